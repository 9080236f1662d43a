package titancore

import (
	"bufio"
	"context"
	"fmt"
	"image"
	"image/jpeg"
	"math"
	"os"
	"time"
)

// sketchReport is the least time between two reports of a [Sketch].
const sketchReport = 100 * time.Millisecond

// Sketch renders without ffmpeg: it draws waves that run through the picture and encodes each
// frame as JPEG, one behind the other in a file, which is Motion JPEG as players know it.
type Sketch struct {
	// RealTime makes a second of video take a second, which costs little of a core.
	RealTime bool
}

// Name says what renders.
func (s *Sketch) Name() string { return "Go's own JPEG encoder" }

// Extension is that of a Motion JPEG file.
func (s *Sketch) Extension() string { return ".mjpeg" }

// Render draws and encodes all frames.
func (s *Sketch) Render(ctx context.Context, job Job, path string, report func(Progress)) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("sketch: %w", err)
	}
	buffered := bufio.NewWriter(file)
	err = s.encode(ctx, job, buffered, report)
	if err == nil {
		err = buffered.Flush()
	}
	if closing := file.Close(); err == nil {
		err = closing
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("sketch: %w", err)
	}
	return err
}

func (s *Sketch) encode(ctx context.Context, job Job, file *bufio.Writer, report func(Progress)) error {
	started := time.Now()
	var reported time.Time
	picture := image.NewYCbCr(image.Rect(0, 0, job.Width, job.Height), image.YCbCrSubsampleRatio420)
	for frame := range job.Frames {
		if err := s.await(ctx, started, frame, job); err != nil {
			return err
		}
		draw(picture, frame)
		if err := jpeg.Encode(file, picture, &jpeg.Options{Quality: 70}); err != nil {
			return err
		}
		now := time.Now()
		if now.Sub(reported) < sketchReport && frame+1 < job.Frames {
			continue
		}
		reported = now
		report(sketchProgress(frame+1, job, now.Sub(started)))
	}
	return nil
}

// await waits, in real time, until the frame is due.
func (s *Sketch) await(ctx context.Context, started time.Time, frame int, job Job) error {
	if s.RealTime {
		due := started.Add(playTime(frame, job))
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(due)):
		}
	}
	return context.Cause(ctx)
}

// playTime is for how long the first frames of a job play.
func playTime(frames int, job Job) time.Duration {
	return time.Duration(frames) * time.Second / time.Duration(job.FramesPerSecond)
}

// sketchProgress says how far a render is after some frames, which took so long.
func sketchProgress(frames int, job Job, took time.Duration) Progress {
	done := Progress{Frame: frames, OutTime: playTime(frames, job)}
	if seconds := took.Seconds(); seconds > 0 {
		done.FramesPerSecond = math.Round(10*float64(frames)/seconds) / 10
		done.Speed = math.Round(100*done.OutTime.Seconds()/seconds) / 100
	}
	return done
}

// waves is one turn of a sine in 256 steps, from 0 to 254.
var waves = func() (table [256]uint8) {
	for step := range table {
		table[step] = uint8(127 + 127*math.Sin(2*math.Pi*float64(step)/256))
	}
	return table
}()

// draw draws one frame: three waves that cross each other, in colours that wander.
func draw(picture *image.YCbCr, frame int) {
	bounds := picture.Bounds()
	for y := range bounds.Dy() {
		row := picture.Y[y*picture.YStride:]
		down := int(waves[uint8(2*y+frame)])
		for x := range bounds.Dx() {
			across := int(waves[uint8(x+3*frame)])
			aslant := int(waves[uint8(x+y-2*frame)])
			row[x] = uint8((down + across + aslant) / 3)
		}
	}
	for y := range (bounds.Dy() + 1) / 2 {
		blue, red := picture.Cb[y*picture.CStride:], picture.Cr[y*picture.CStride:]
		for x := range (bounds.Dx() + 1) / 2 {
			blue[x] = 64 + waves[uint8(x+frame)]/2
			red[x] = 64 + waves[uint8(2*y-frame)]/2
		}
	}
}
