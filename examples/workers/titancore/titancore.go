// Package titancore renders short videos and tells how far it is: the seed's Titan Core.
//
// A job waits in a queue with a bound, is rendered by ffmpeg (or, where there is none, by an
// encoder of our own, see [Sketch]), and is told on three channels:
//
//	job_progress:JOB   log     each step, so that who comes late, or back, misses none
//	video_render:JOB   events  its stages: queued, started, finished, failed
//	jobs:index         state   the newest jobs, so that a page knows what to listen to
//
// ffmpeg says how far it is with -progress, in lines that ffmpeg's reader (progress.go) turns into
// values. The reader never waits for Redis: it leaves the newest value in one place, and the
// worker publishes what lies there a few times a second. A Redis that hangs costs some steps of a
// log, never a render. How a job ends is told until somebody takes it, half a minute long.
package titancore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/millrace/millrace/examples/workers/channels"
)

const (
	queueMax     = 16  // jobs that wait; one more is refused
	indexMax     = 12  // jobs that the index lists, the newest first
	framesMax    = 1e6 // of one job
	sizeMax      = 3840
	interval     = 250 * time.Millisecond // between two steps of a log
	endPatience  = 30 * time.Second       // to tell how a job ended
	stopPatience = time.Second            // to tell it of all jobs, when the worker is stopped
)

// The states of a job, in the words of its events.
const (
	statusQueued     = "queued"
	statusProcessing = "processing"
	statusComplete   = "complete"
	statusFailed     = "failed"
)

var (
	// ErrQueueFull says that too many jobs wait already.
	ErrQueueFull = errors.New("the queue is full")
	// ErrStopped says that the worker renders no more.
	ErrStopped = errors.New("the worker was stopped")
)

// Job is one video to render.
type Job struct {
	// ID names the job's channels: 1 to 128 of A-Z a-z 0-9 _ . @ = | + -.
	ID string
	// Width and Height in pixels are even, and at most 3840; FramesPerSecond is 1 to 120.
	Width, Height, FramesPerSecond int
	// Frames is the length, 1 to a million.
	Frames int
}

// check says what is wrong with a job.
func (j Job) check() error {
	switch {
	case !channels.IsID(j.ID):
		return fmt.Errorf("titancore: %.40q can't be a job's id", j.ID)
	case min(j.Width, j.Height) < 16 || max(j.Width, j.Height) > sizeMax || j.Width%2+j.Height%2 > 0:
		return fmt.Errorf("titancore: job %s: %dx%d pixels are not possible: both must be even, 16 to %d", j.ID, j.Width, j.Height, sizeMax)
	case j.FramesPerSecond < 1 || j.FramesPerSecond > 120:
		return fmt.Errorf("titancore: job %s: %d frames a second are not in 1..120", j.ID, j.FramesPerSecond)
	case j.Frames < 1 || j.Frames > framesMax:
		return fmt.Errorf("titancore: job %s: %d frames are not in 1..1000000", j.ID, j.Frames)
	}
	return nil
}

// Progress is how far a render is. What is not known is 0.
type Progress struct {
	Frame           int           // frames that are encoded
	FramesPerSecond float64       // encoded, of late
	Speed           float64       // times as fast as the video plays
	OutTime         time.Duration // how much of the video is there
}

// Renderer makes a video.
type Renderer interface {
	// Render makes the job's video in the file path. It calls report as it goes on, from any
	// goroutine, but not once it has returned. When ctx is done it stops soon.
	Render(ctx context.Context, job Job, path string, report func(Progress)) error
	// Name says in a word or two what renders; Extension ends a video's file name, with its dot.
	Name() string
	Extension() string
}

// Options says how a worker works.
type Options struct {
	Publisher channels.Publisher
	// Renderer makes the videos; [NewRenderer] gives one.
	Renderer Renderer
	// Folder is where videos stay. Empty: they are removed when they are done.
	Folder string
	// Logger takes the worker's log lines. Nil: slog.Default().
	Logger *slog.Logger
}

// Worker renders one job after the other. Make it with [New]; Submit is safe for use by many
// goroutines, Run runs once.
type Worker struct {
	publisher  channels.Publisher
	renderer   Renderer
	folder     string
	logger     *slog.Logger
	complaints *channels.Complaints
	queue      chan Job

	mutex   sync.Mutex // guards what follows, and is held while a job is put into the queue
	index   []string   // ids of jobs, the newest first
	stopped bool
}

// New makes a worker, which does nothing before [Worker.Run].
func New(options Options) *Worker {
	logger := cmp.Or(options.Logger, slog.Default())
	return &Worker{
		publisher: options.Publisher, renderer: options.Renderer, folder: options.Folder, logger: logger,
		complaints: channels.NewComplaints(logger), queue: make(chan Job, queueMax),
	}
}

// Submit puts a job into the queue and tells that it waits there. The error is [ErrQueueFull] or
// [ErrStopped], or says what is wrong with the job.
func (w *Worker) Submit(ctx context.Context, job Job) error {
	if err := job.check(); err != nil {
		return err
	}
	// The index first: a page that is told of the job then hears all of it. Told before the job
	// can be taken, "queued" comes before "processing".
	w.mutex.Lock()
	defer w.mutex.Unlock()
	switch {
	case w.stopped:
		return ErrStopped
	case len(w.queue) == cap(w.queue):
		return ErrQueueFull
	}
	w.tellIndex(ctx, job.ID)
	w.tellStage(ctx, job, statusQueued, fmt.Sprintf("Waiting behind %d others", len(w.queue)))
	w.step(ctx, job, statusQueued, Progress{}, "Waiting to be rendered")
	w.queue <- job // does not block: only Submit sends, and it holds the mutex
	return nil
}

// tellIndex puts a job first in the index. The caller holds the mutex.
func (w *Worker) tellIndex(ctx context.Context, id string) {
	index := []string{id}
	for _, known := range w.index {
		if known != id && len(index) < indexMax {
			index = append(index, known)
		}
	}
	w.index = index
	w.complaints.Add(ctx, "the index of jobs could not be written", w.publisher.Set(ctx, "jobs:"+channels.IndexID, channels.NewIndex(index)))
}

// Run renders jobs until ctx is done; what waits then is told to have failed. It returns nil, or
// why there can be no videos at all.
func (w *Worker) Run(ctx context.Context) error {
	folder := w.folder
	if folder == "" {
		temporary, err := os.MkdirTemp("", "titancore-")
		if err != nil {
			return fmt.Errorf("titancore: a folder for videos: %w", err)
		}
		defer os.RemoveAll(temporary)
		folder = temporary
	}
	w.logger.Info("titancore renders", "with", w.renderer.Name())
	for {
		select {
		case <-ctx.Done():
			w.refuse(ctx)
			return nil
		case job := <-w.queue:
			w.work(ctx, job, filepath.Join(folder, job.ID+w.renderer.Extension()))
		}
	}
}

// refuse takes no more jobs, and tells of every one that waits that the worker was stopped.
func (w *Worker) refuse(ctx context.Context) {
	w.mutex.Lock()
	w.stopped = true
	w.mutex.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
	defer cancel()
	for {
		select {
		case job := <-w.queue:
			w.end(ctx, job, Progress{}, 0, ErrStopped)
		default:
			return
		}
	}
}

// work renders one job and tells how it goes.
func (w *Worker) work(ctx context.Context, job Job, path string) {
	if w.folder == "" {
		defer os.Remove(path)
	}
	w.tellStage(ctx, job, "started", "Rendering with "+w.renderer.Name())
	var newest latest
	done := make(chan error, 1)
	go func() { done <- w.renderer.Render(ctx, job, path, newest.put) }()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if progress, fresh := newest.take(); fresh {
				w.step(ctx, job, statusProcessing, progress, fmt.Sprintf("Rendering frame %d/%d", progress.Frame, job.Frames))
			}
		case err := <-done:
			progress, _ := newest.take()
			if ctx.Err() != nil {
				// A job that seems to go on for ever is the worst of all ends: it is told also now.
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
				defer cancel()
				if err != nil {
					err = ErrStopped
				}
			}
			w.end(ctx, job, progress, sizeOf(path), err)
			return
		}
	}
}

// sizeOf is the size of a file in bytes, 0 where there is none.
func sizeOf(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// latest holds the newest progress of a render. Its methods are safe for use by many goroutines.
type latest struct {
	mutex    sync.Mutex // guards what follows
	progress Progress
	fresh    bool
}

func (l *latest) put(progress Progress) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.progress, l.fresh = progress, true
}

// take gives the newest progress, and whether it is news.
func (l *latest) take() (Progress, bool) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	fresh := l.fresh
	l.fresh = false
	return l.progress, fresh
}
