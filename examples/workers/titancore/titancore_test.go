package titancore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/examples/workers/channels/channelstest"
	"github.com/millrace/millrace/internal/polltest"
)

// run runs a worker until the test ends.
func run(t *testing.T, redis *channelstest.Redis, renderer Renderer, folder string) (worker *Worker, stop func()) {
	t.Helper()
	worker = New(Options{Publisher: redis, Renderer: renderer, Folder: folder, Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := worker.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = func() { cancel(); running.Wait() }
	t.Cleanup(stop)
	return worker, stop
}

// ended waits for the last entry of a job's log.
func ended(t *testing.T, redis *channelstest.Redis, id string) (log []channelstest.Event) {
	t.Helper()
	polltest.Eventually(t, "the end of "+id, func() bool {
		log = redis.Log("job_progress:" + id)
		return len(log) > 0 && slices.Contains([]string{"complete", "failed"}, log[len(log)-1].Text("status"))
	})
	return log
}

// TestJob: what a page sees of a job, from the queue to the end, with a renderer that takes
// longer than a step.
func TestJob(t *testing.T) {
	t.Parallel()
	redis := channelstest.Start(t)
	stages := redis.Hear("video_render:*")
	folder := t.TempDir()
	worker, _ := run(t, redis, &Sketch{RealTime: true}, folder)
	job := small
	job.ID, job.Frames = "job_7", 30
	if err := worker.Submit(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	log := ended(t, redis, job.ID)
	var statuses []string
	progress := -1.0
	for _, entry := range log {
		if entry.Text("type") != "job_progress" || entry.Text("jobId") != "job_7" || entry.Number("frames") != 30 {
			t.Errorf("the entry is %v", entry.Data)
		}
		if _, err := time.Parse(time.RFC3339, entry.Text("timestamp")); err != nil {
			t.Error(err)
		}
		if now := entry.Number("progress"); now < progress || now > 1 || (now == 1) != (entry.Text("status") == "complete") {
			t.Errorf("progress %v after %v, status %s", now, progress, entry.Text("status"))
		} else {
			progress = now
		}
		if status := entry.Text("status"); !slices.Contains(statuses, status) {
			statuses = append(statuses, status)
		}
	}
	if !slices.Equal(statuses, []string{"queued", "processing", "complete"}) {
		t.Errorf("the states are %v", statuses)
	}
	if middle := log[1]; !strings.HasPrefix(middle.Text("message"), "Rendering frame ") || !strings.HasSuffix(middle.Text("message"), "/30") ||
		middle.Number("outTimeMs") == 0 || middle.Number("fps") == 0 || middle.Number("speed") == 0 {
		t.Errorf("a step is %v", middle.Data)
	}
	polltest.Eventually(t, "all stages", func() bool {
		var told []string
		for _, event := range stages.Events() {
			told = append(told, event.Channel+" "+event.Text("stage"))
		}
		return slices.Equal(told, []string{"video_render:job_7 queued", "video_render:job_7 started", "video_render:job_7 finished"})
	})
	info, err := os.Stat(filepath.Join(folder, "job_7.mjpeg"))
	if err != nil || float64(info.Size()) != stages.Events()[2].Number("bytes") {
		t.Errorf("the video: %v, told %v", err, stages.Events()[2].Data)
	}
	if index, found := redis.State("jobs:index"); !found || fmt.Sprint(index.Data) != "map[ids:[job_7] type:index]" {
		t.Errorf("the index is %v", index.Data)
	}
}

// TestFraction: progress is 1 when the job is complete, and not before.
func TestFraction(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		status string
		frame  int
		want   float64
	}{
		{statusQueued, 0, 0},
		{statusProcessing, 25, 0.5},
		{statusProcessing, 50, 0.999},
		{statusProcessing, 60, 0.999},
		{statusFailed, 50, 0.999},
		{statusComplete, 50, 1},
	} {
		if got := progressEvent(small, test.status, Progress{Frame: test.frame}, "", time.Now()); got.Progress != test.want {
			t.Errorf("%s at frame %d of 50: %v, want %v", test.status, test.frame, got.Progress, test.want)
		}
	}
}

// TestJobWithFFmpeg is the same for the real ffmpeg, in short; the video is removed.
func TestJobWithFFmpeg(t *testing.T) {
	t.Parallel()
	ffmpeg := realFFmpeg(t)
	redis := channelstest.Start(t)
	worker, _ := run(t, redis, ffmpeg, "")
	if err := worker.Submit(t.Context(), small); err != nil {
		t.Fatal(err)
	}
	log := ended(t, redis, small.ID)
	if last := log[len(log)-1]; last.Text("status") != "complete" || last.Number("progress") != 1 || last.Number("frame") != float64(small.Frames) {
		t.Errorf("it ended with %v", last.Data)
	}
}

// TestJobFails: a render that fails is told with its reason, and the next job goes on.
func TestJobFails(t *testing.T) {
	t.Parallel()
	redis := channelstest.Start(t)
	stages := redis.Hear("video_render:*")
	worker, _ := run(t, redis, pretend(t, "echo frame=5; echo progress=continue; echo 'no space left on device' >&2; exit 1"), "")
	for _, id := range []string{"job_1", "job_2"} {
		job := small
		job.ID = id
		if err := worker.Submit(t.Context(), job); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"job_1", "job_2"} {
		log := ended(t, redis, id)
		last := log[len(log)-1]
		if last.Text("status") != "failed" || last.Number("progress") >= 1 || !strings.Contains(last.Text("message"), "no space left on device") {
			t.Errorf("%s ended with %v", id, last.Data)
		}
	}
	polltest.Eventually(t, "the stage failed", func() bool {
		events := stages.Events()
		return len(events) > 0 && events[len(events)-1].Text("stage") == "failed" && strings.Contains(events[len(events)-1].Text("message"), "no space left")
	})
}

// TestStoppedWorker: neither the job that is rendered nor those that wait seem to go on for ever.
func TestStoppedWorker(t *testing.T) {
	t.Parallel()
	redis := channelstest.Start(t)
	worker, stop := run(t, redis, pretend(t, "echo frame=5; echo progress=continue; exec sleep 1000"), "")
	for _, id := range []string{"job_1", "job_2", "job_3"} {
		job := small
		job.ID = id
		if err := worker.Submit(t.Context(), job); err != nil {
			t.Fatal(err)
		}
	}
	polltest.Eventually(t, "a step of the first job", func() bool { return len(redis.Log("job_progress:job_1")) > 1 })
	stop()
	for _, id := range []string{"job_1", "job_2", "job_3"} {
		log := redis.Log("job_progress:" + id)
		if last := log[len(log)-1]; last.Text("status") != "failed" || last.Text("message") != "Failed: the worker was stopped" {
			t.Errorf("%s ended with %v", id, last.Data)
		}
	}
	if err := worker.Submit(t.Context(), small); !errors.Is(err, ErrStopped) {
		t.Errorf("a job for a worker that is stopped: %v", err)
	}
}

// TestQueueIsBounded: one job too many is refused, and no trace of it is told.
func TestQueueIsBounded(t *testing.T) {
	t.Parallel()
	redis := channelstest.Start(t)
	worker := New(Options{Publisher: redis, Renderer: &Sketch{}}) // which does not run
	for number := range queueMax + 1 {
		job := small
		job.ID = fmt.Sprintf("job_%d", number)
		if err := worker.Submit(t.Context(), job); (err != nil) != (number == queueMax) || err != nil && !errors.Is(err, ErrQueueFull) {
			t.Fatalf("job %d: %v", number, err)
		}
	}
	if log := redis.Log(fmt.Sprintf("job_progress:job_%d", queueMax)); len(log) > 0 {
		t.Errorf("the refused job has a log: %v", log)
	}
	index, _ := redis.State("jobs:index")
	ids, _ := index.Data["ids"].([]any)
	if len(ids) != indexMax || ids[0] != fmt.Sprintf("job_%d", queueMax-1) {
		t.Errorf("the index is %v", ids)
	}
}

func TestBadJobs(t *testing.T) {
	t.Parallel()
	worker := New(Options{Renderer: &Sketch{}})
	for name, change := range map[string]func(*Job){
		"no id": func(j *Job) { j.ID = "" }, "an id of two parts": func(j *Job) { j.ID = "a:b" }, "the id of the index": func(j *Job) { j.ID = "index" },
		"a path": func(j *Job) { j.ID = "../x" }, "no frames": func(j *Job) { j.Frames = 0 }, "too many": func(j *Job) { j.Frames = framesMax + 1 },
		"odd": func(j *Job) { j.Width = 33 }, "too large": func(j *Job) { j.Height = sizeMax + 2 }, "too small": func(j *Job) { j.Height = 2 },
		"too fast": func(j *Job) { j.FramesPerSecond = 121 }, "too slow": func(j *Job) { j.FramesPerSecond = 0 },
	} {
		job := small
		change(&job)
		if err := worker.Submit(t.Context(), job); err == nil || errors.Is(err, ErrQueueFull) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRedisIsAway: while Redis is away a render goes on, and its end is told when it is back.
func TestRedisIsAway(t *testing.T) {
	t.Parallel()
	redis := channelstest.Start(t)
	folder := t.TempDir()
	worker, _ := run(t, redis, pretend(t, fmt.Sprintf(
		"echo frame=5; echo progress=continue; touch %[1]s/begun; while ! [ -e %[1]s/go ]; do sleep 0.05; done; echo progress=end", folder)), "")
	if err := worker.Submit(t.Context(), small); err != nil {
		t.Fatal(err)
	}
	polltest.Eventually(t, "a render", func() bool {
		_, err := os.Stat(filepath.Join(folder, "begun"))
		return err == nil
	})
	redis.Server.Kill()
	if err := os.WriteFile(filepath.Join(folder, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	redis.Server.Restart(t)
	if log := ended(t, redis, small.ID); log[len(log)-1].Text("status") != "complete" {
		t.Errorf("it ended with %v", log[len(log)-1].Data)
	}
}

// TestShowreel: clips come two at once, and again, with the seed's job_123 first.
func TestShowreel(t *testing.T) {
	t.Parallel()
	redis := channelstest.Start(t)
	worker, _ := run(t, redis, &Sketch{}, "")
	ctx, cancel := context.WithCancel(t.Context())
	var showing sync.WaitGroup
	showing.Go(func() { worker.Showreel(ctx, small, 50*time.Millisecond) })
	defer showing.Wait()
	defer cancel()
	polltest.Eventually(t, "the ids to begin again", func() bool {
		begun := 0
		for _, entry := range redis.Log("job_progress:job_123") {
			if entry.Text("status") == "queued" {
				begun++
			}
		}
		return begun > 1
	})
	index, _ := redis.State("jobs:index")
	if ids, _ := index.Data["ids"].([]any); len(ids) != indexMax || !slices.Contains(ids, any("job_134")) {
		t.Errorf("the index is %v", index.Data)
	}
}
