package titancore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/millrace/millrace/examples/workers/channels"
)

// jobProgress is an entry of the log job_progress:JOB.
type jobProgress struct {
	Type      string  `json:"type"`
	JobID     string  `json:"jobId"`
	Status    string  `json:"status"`   // queued, processing, complete, failed
	Progress  float64 `json:"progress"` // 0 to 1; 1 only with complete
	Message   string  `json:"message"`
	Timestamp string  `json:"timestamp"`

	Frame     int     `json:"frame"`
	Frames    int     `json:"frames"`
	FPS       float64 `json:"fps,omitempty"`   // frames encoded a second
	Speed     float64 `json:"speed,omitempty"` // times as fast as the video plays
	OutTimeMs int64   `json:"outTimeMs"`       // how much of the video is there
}

// videoRender is an event of video_render:JOB.
type videoRender struct {
	Type            string `json:"type"`
	JobID           string `json:"jobId"`
	Stage           string `json:"stage"` // queued, started, finished, failed
	Message         string `json:"message"`
	Timestamp       string `json:"timestamp"`
	Renderer        string `json:"renderer"`
	Width           int    `json:"width"`
	Height          int    `json:"height"`
	FramesPerSecond int    `json:"framesPerSecond"`
	Frames          int    `json:"frames"`
	Bytes           int64  `json:"bytes,omitempty"` // of the finished video
}

// progressEvent words how far a job is.
func progressEvent(job Job, status string, progress Progress, message string, now time.Time) jobProgress {
	fraction := float64(min(progress.Frame, job.Frames)) / float64(job.Frames)
	if status != statusComplete {
		fraction = min(fraction, 0.999) // the last frame is there, the file is not closed
	}
	return jobProgress{
		Type: "job_progress", JobID: job.ID, Status: status, Progress: fraction, Message: message,
		Timestamp: channels.Timestamp(now), Frame: progress.Frame, Frames: job.Frames,
		FPS: progress.FramesPerSecond, Speed: progress.Speed, OutTimeMs: progress.OutTime.Milliseconds(),
	}
}

// step adds to the job's log. A step that does not arrive is followed by another.
func (w *Worker) step(ctx context.Context, job Job, status string, progress Progress, message string) {
	event := progressEvent(job, status, progress, message, time.Now())
	w.complaints.Add(ctx, "the progress of a job could not be published", w.publisher.Append(ctx, "job_progress:"+job.ID, event))
}

// stageEvent words that a job has come to a stage.
func (w *Worker) stageEvent(job Job, stage, message string) videoRender {
	return videoRender{
		Type: "video_render", JobID: job.ID, Stage: stage, Message: message, Timestamp: channels.Timestamp(time.Now()),
		Renderer: w.renderer.Name(), Width: job.Width, Height: job.Height, FramesPerSecond: job.FramesPerSecond, Frames: job.Frames,
	}
}

// tellStage publishes that a job has come to a stage.
func (w *Worker) tellStage(ctx context.Context, job Job, stage, message string) {
	event := w.stageEvent(job, stage, message)
	w.complaints.Add(ctx, "the stage of a job could not be published", w.publisher.Publish(ctx, "video_render:"+job.ID, event))
}

// end tells how a job ended, until somebody takes it, ctx is done or its patience is over.
func (w *Worker) end(ctx context.Context, job Job, progress Progress, bytes int64, failure error) {
	status, stage := statusComplete, w.stageEvent(job, "finished", fmt.Sprintf("Rendered, %d KB", (bytes+999)/1000))
	message := fmt.Sprintf("Rendered %d frames", job.Frames)
	stage.Bytes = bytes
	if failure == nil {
		progress.Frame = job.Frames
		w.logger.Debug("rendered", "job", job.ID, "bytes", bytes)
	} else {
		status, message = statusFailed, "Failed: "+failure.Error()
		stage = w.stageEvent(job, "failed", failure.Error())
		level := slog.LevelWarn
		if errors.Is(failure, ErrStopped) {
			level = slog.LevelDebug // as was asked for
		}
		w.logger.Log(ctx, level, "a render failed", "job", job.ID, "error", failure)
	}
	event := progressEvent(job, status, progress, message, time.Now())
	w.complaints.Add(context.WithoutCancel(ctx), "the end of a job could not be published", channels.Insist(ctx, endPatience, func(ctx context.Context) error {
		return w.publisher.Append(ctx, "job_progress:"+job.ID, event)
	}))
	w.complaints.Add(context.WithoutCancel(ctx), "the end of a job could not be published", channels.Insist(ctx, endPatience, func(ctx context.Context) error {
		return w.publisher.Publish(ctx, "video_render:"+job.ID, stage)
	}))
}
