package titancore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/jpeg"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/examples/workers/channels/channelstest"
	"github.com/millrace/millrace/internal/polltest"
)

// small is a job that takes next to no time.
var small = Job{ID: "job_1", Width: 64, Height: 36, FramesPerSecond: 25, Frames: 50}

// reports collects what a renderer reports.
type reports struct {
	mutex sync.Mutex
	all   []Progress
}

func (r *reports) add(progress Progress) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.all = append(r.all, progress)
}

// check says what no renderer may do: go back, or end before the last frame.
func (r *reports) check(t *testing.T, job Job) {
	t.Helper()
	r.mutex.Lock()
	defer r.mutex.Unlock()
	frame := 0
	for _, progress := range r.all {
		if progress.Frame < frame {
			t.Errorf("frame %d after %d", progress.Frame, frame)
		}
		frame = progress.Frame
	}
	if frame != job.Frames {
		t.Errorf("the last frame told is %d of %d", frame, job.Frames)
	}
}

// realFFmpeg gives the installed one. .ci/deps installs it, so that CI never skips.
func realFFmpeg(t *testing.T) *FFmpeg {
	t.Helper()
	path, err := exec.LookPath("ffmpeg")
	if err != nil {
		t.Skip("ffmpeg is not installed (apt-get install ffmpeg): only our own encoder and recorded output are tested")
	}
	return &FFmpeg{Path: path}
}

func TestFFmpegRenders(t *testing.T) {
	t.Parallel()
	ffmpeg := realFFmpeg(t)
	path := filepath.Join(t.TempDir(), "video.mp4")
	var told reports
	if err := ffmpeg.Render(t.Context(), small, path, told.add); err != nil {
		t.Fatal(err)
	}
	told.check(t, small)
	video, err := os.ReadFile(path)
	if err != nil || len(video) < 1000 || !bytes.Equal(video[4:8], []byte("ftyp")) {
		t.Errorf("the video is no MP4: %d bytes, %v", len(video), err)
	}
}

// TestFFmpegSaysWhy: what ffmpeg complains of is in the error.
func TestFFmpegSaysWhy(t *testing.T) {
	t.Parallel()
	ffmpeg := realFFmpeg(t)
	err := ffmpeg.Render(t.Context(), small, filepath.Join(t.TempDir(), "nowhere", "video.mp4"), func(Progress) {})
	if err == nil || !strings.Contains(err.Error(), "No such file or directory") || strings.Contains(err.Error(), "\n") {
		t.Errorf("the error is %v", err)
	}
}

func TestSketchRenders(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "video.mjpeg")
	var told reports
	if err := (&Sketch{}).Render(t.Context(), small, path, told.add); err != nil {
		t.Fatal(err)
	}
	told.check(t, small)
	video, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	frames := bytes.SplitAfter(video, []byte{0xff, 0xd9}) // the end of an image, which no other bytes look like
	if len(frames) != small.Frames+1 || len(frames[small.Frames]) != 0 {
		t.Fatalf("the file holds %d images", len(frames)-1)
	}
	for number, frame := range frames[:small.Frames] {
		picture, err := jpeg.Decode(bytes.NewReader(frame))
		if err != nil || picture.Bounds().Dx() != small.Width || picture.Bounds().Dy() != small.Height {
			t.Fatalf("frame %d: %v", number, err)
		}
		if number > 0 && bytes.Equal(frame, frames[number-1]) {
			t.Fatalf("frame %d is the one before", number)
		}
	}
}

func TestSketchInRealTime(t *testing.T) {
	t.Parallel()
	job := small
	job.Frames = 11
	started := time.Now()
	if err := (&Sketch{RealTime: true}).Render(t.Context(), job, filepath.Join(t.TempDir(), "v"), func(Progress) {}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(started); took < 400*time.Millisecond {
		t.Errorf("10 frames of 40 ms took %v", took)
	}
}

func TestSketchStops(t *testing.T) {
	t.Parallel()
	job := small
	job.Frames = framesMax
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := (&Sketch{}).Render(ctx, job, filepath.Join(t.TempDir(), "v"), func(Progress) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	if err := (&Sketch{}).Render(t.Context(), small, filepath.Join(t.TempDir(), "nowhere", "v"), func(Progress) {}); err == nil {
		t.Error("a file that can't be made is no error")
	}
}

// pretend makes a program that stands for an ffmpeg that misbehaves.
func pretend(t *testing.T, script string) *FFmpeg {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ffmpeg")
	syscall.ForkLock.RLock() // a child that another test begins now would hold the file open, and Linux runs no file that is open for writing
	err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	return &FFmpeg{Path: path}
}

func TestFFmpegFails(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, script, want string }{
		{"with words", "echo progress=end; echo 'first line' >&2; echo 'no space left' >&2; exit 3", "ffmpeg: exit status 3: first line no space left"},
		{"without a word", "exit 4", "ffmpeg: exit status 4"},
		{"by a signal", "kill -9 $$", "ffmpeg: signal: killed"},
		{"well, but before the end", "echo frame=3; echo progress=continue", "did not say that the video is complete"},
		{"with too many words", "yes complaint | head -c 100000 >&2; echo 'the last' >&2; exit 1", "complaint complaint the last"},
		{"with words that are no text", `printf '\377\376bad\033\n' >&2; exit 1`, "bad"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			err := pretend(t, test.script).Render(t.Context(), small, "unused", func(Progress) {})
			if err == nil || !strings.Contains(err.Error(), test.want) || len(err.Error()) > lastWordsBytesMax+100 {
				t.Errorf("the error is %v, want %s", err, test.want)
			}
		})
	}
	if err := (&FFmpeg{Path: "/nonexistent/ffmpeg"}).Render(t.Context(), small, "unused", func(Progress) {}); err == nil {
		t.Error("a program that is not there is no error")
	}
}

// TestFFmpegGetsLittle: of what this process has open, and of its environment, a child sees only
// what it needs.
func TestFFmpegGetsLittle(t *testing.T) {
	t.Setenv("MILLRACE_AUTH_HMAC_SECRET", "a secret of this process")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	unmarked, err := syscall.Dup(2) // as a library may open one, without the mark that Go's have
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(unmarked)
	folder := t.TempDir()
	script := fmt.Sprintf("env >%[1]s/env; ls -l /proc/$$/fd | grep -v /ffmpeg >%[1]s/fd; echo progress=end", folder)
	if err := pretend(t, script).Render(t.Context(), small, "unused", func(Progress) {}); err != nil {
		t.Fatal(err)
	}
	environment, err := os.ReadFile(filepath.Join(folder, "env"))
	if err != nil || strings.Contains(string(environment), "secret") || !strings.Contains(string(environment), "PATH=") {
		t.Errorf("the child's environment is\n%s%v", environment, err)
	}
	descriptors, err := os.ReadFile(filepath.Join(folder, "fd"))
	if err != nil || strings.Contains(string(descriptors), "socket:") || strings.Contains(string(descriptors), fmt.Sprintf(" %d -> ", unmarked)) {
		t.Errorf("the child has open\n%s%v", descriptors, err)
	}
}

// TestFFmpegIsEnded: one that hears the request ends at once, one that does not is killed.
func TestFFmpegIsEnded(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, script string }{
		{"at the request", "echo progress=continue; exec sleep 1000"},
		{"by force", "trap '' TERM; echo progress=continue; while :; do sleep 0.05; done"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ffmpeg := pretend(t, test.script)
			ended := make(chan error, 1)
			go func() { ended <- ffmpeg.Render(ctx, small, "unused", func(Progress) { cancel() }) }()
			select {
			case err := <-ended:
				if !errors.Is(err, context.Canceled) {
					t.Errorf("the error is %v", err)
				}
			case <-time.After(channelstest.Patience):
				t.Error("it was not ended")
			}
		})
	}
}

// TestFFmpegDiesWithTheWorker: a worker that is killed leaves no ffmpeg behind. The worker is this
// test in a process of its own.
func TestFFmpegDiesWithTheWorker(t *testing.T) {
	const variable = "TITANCORE_TEST_CHILD"
	if path := os.Getenv(variable); path != "" {
		_ = (&FFmpeg{Path: path}).Render(context.Background(), small, "unused", func(Progress) {})
		return
	}
	folder := t.TempDir()
	ffmpeg := pretend(t, fmt.Sprintf("echo $$ >%[1]s/new; mv %[1]s/new %[1]s/pid; exec sleep 1000", folder))
	worker := exec.Command(os.Args[0], "-test.run=^TestFFmpegDiesWithTheWorker$")
	worker.Env = append(os.Environ(), variable+"="+ffmpeg.Path)
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	child := 0
	polltest.Eventually(t, "a child", func() bool {
		text, err := os.ReadFile(filepath.Join(folder, "pid"))
		child, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil && child > 0
	})
	if err := worker.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = worker.Wait() // it was killed
	polltest.Eventually(t, "the end of the child", func() bool {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
		return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) || strings.Contains(string(state), ") Z ")
	})
}

func TestNewRenderer(t *testing.T) {
	for _, test := range []struct{ encoder, path, want string }{
		{"go", "", "Go's own JPEG encoder"},
		{"auto", "", "Go's own JPEG encoder"},
		{"ffmpeg", "", ""},
		{"vhs", "", ""},
		{"auto", "with", "ffmpeg"},
		{"ffmpeg", "with", "ffmpeg"},
		{"go", "with", "Go's own JPEG encoder"},
	} {
		t.Run(test.encoder+" "+test.path, func(t *testing.T) {
			t.Setenv("PATH", t.TempDir())
			if test.path != "" {
				t.Setenv("PATH", filepath.Dir(pretend(t, "").Path))
			}
			renderer, err := NewRenderer(test.encoder, true)
			if (err != nil) != (test.want == "") || err == nil && renderer.Name() != test.want {
				t.Errorf("got %v, %v", renderer, err)
			}
		})
	}
}
