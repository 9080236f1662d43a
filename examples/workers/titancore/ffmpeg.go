package titancore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// killPatience is how long a told ffmpeg may take to end before it is killed.
const killPatience = 2 * time.Second

// FFmpeg renders with the program ffmpeg, which draws its own test picture and encodes it. The
// encoder, mpeg4, is built into every ffmpeg.
type FFmpeg struct {
	// Path is the program.
	Path string
	// RealTime makes a second of video take a second, which costs little of a core.
	RealTime bool
}

// NewRenderer gives a renderer by its name: ffmpeg, which must be on the PATH, go for our own
// encoder, or auto for ffmpeg where it is on the PATH, else our own. With realTime a second of video
// takes a second.
func NewRenderer(name string, realTime bool) (Renderer, error) {
	path, err := exec.LookPath("ffmpeg")
	switch {
	case name == "ffmpeg" && err != nil:
		return nil, fmt.Errorf("%w; install it (apt-get install ffmpeg), or take another encoder", err)
	case name == "ffmpeg", name == "auto" && err == nil:
		return &FFmpeg{Path: path, RealTime: realTime}, nil
	case name == "go", name == "auto":
		return &Sketch{RealTime: realTime}, nil
	default:
		return nil, fmt.Errorf("%q is none; there are auto, ffmpeg and go", name)
	}
}

// Name says what renders.
func (f *FFmpeg) Name() string { return "ffmpeg" }

// Extension is that of an MP4 file.
func (f *FFmpeg) Extension() string { return ".mp4" }

// Render runs ffmpeg to its end. An error holds ffmpeg's last words.
func (f *FFmpeg) Render(ctx context.Context, job Job, path string, report func(Progress)) error {
	// The kernel sends a child's Pdeathsig when the thread that started it ends, which in Go may
	// be long before the process: the thread is kept until ffmpeg is gone.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	command := exec.CommandContext(ctx, f.Path, f.arguments(job, path)...)
	reader := &progressReader{report: report}
	words := &lastWords{}
	command.Stdout, command.Stderr = reader, words
	command.Env = childEnvironment()
	command.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL, // a worker that is killed leaves no ffmpeg behind
		Setpgid:   true,            // Ctrl-C reaches the worker, which ends ffmpeg in its own order
	}
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = killPatience
	closeOnExec()
	err := command.Run()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil && words.String() != "":
		return fmt.Errorf("ffmpeg: %w: %s", err, words)
	case err != nil:
		return fmt.Errorf("ffmpeg: %w", err)
	case !reader.ended:
		return errors.New("ffmpeg ended well, but did not say that the video is complete")
	}
	return nil
}

// closeOnExec keeps from children what Go itself has not opened, and so not marked: in a gateway's
// process netpoll's epoll. A kernel before 5.11 can't do it in one call, and there such a child has
// a descriptor or two that it does not look at.
func closeOnExec() {
	const firstAfterStderr = 3
	_ = unix.CloseRange(firstAfterStderr, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
}

// arguments is ffmpeg's command line. Nothing of it goes through a shell.
func (f *FFmpeg) arguments(job Job, path string) []string {
	arguments := []string{
		"-hide_banner", "-nostdin", "-nostats", "-loglevel", "error",
		"-progress", "pipe:1", "-stats_period", "0.2",
	}
	if f.RealTime {
		arguments = append(arguments, "-re")
	}
	source := fmt.Sprintf("testsrc2=size=%dx%d:rate=%d", job.Width, job.Height, job.FramesPerSecond)
	return append(arguments, "-f", "lavfi", "-i", source, "-frames:v", strconv.Itoa(job.Frames),
		"-c:v", "mpeg4", "-qscale:v", "5", "-threads", "1", "-y", path)
}

// childEnvironment is what a child needs of ours: it is told no secret that this process may have
// in its environment.
func childEnvironment() []string {
	environment := []string{"LC_ALL=C"}
	for _, name := range []string{"PATH", "LD_LIBRARY_PATH", "TMPDIR"} {
		if value, found := os.LookupEnv(name); found {
			environment = append(environment, name+"="+value)
		}
	}
	return environment
}

// lastWordsBytesMax is how much of what a child complained of is kept.
const lastWordsBytesMax = 300

// lastWords keeps the end of what is written to it.
type lastWords struct {
	kept []byte
	cut  bool // there was more
}

// Write takes the next bytes; it never fails.
func (l *lastWords) Write(piece []byte) (int, error) {
	l.kept = append(l.kept, piece...)
	if excess := len(l.kept) - lastWordsBytesMax; excess > 0 {
		l.kept, l.cut = append(l.kept[:0], l.kept[excess:]...), true
	}
	return len(piece), nil
}

// String gives them in one line of UTF-8.
func (l *lastWords) String() string {
	text := strings.Join(strings.Fields(strings.ToValidUTF8(string(l.kept), "")), " ")
	if l.cut {
		text = "… " + text
	}
	return text
}
