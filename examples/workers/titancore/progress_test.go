package titancore

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// read gives what a reader reports of pieces of ffmpeg's output.
func read(t *testing.T, pieces ...string) (reports []Progress, ended bool) {
	t.Helper()
	reader := &progressReader{report: func(progress Progress) { reports = append(reports, progress) }}
	for _, piece := range pieces {
		if taken, err := reader.Write([]byte(piece)); taken != len(piece) || err != nil {
			t.Fatalf("Write took %d of %d bytes, %v", taken, len(piece), err)
		}
	}
	return reports, reader.ended
}

// recorded is what ffmpeg 5.1 of Debian 12 wrote for 25 frames in real time.
func recorded(t *testing.T) string {
	t.Helper()
	output, err := os.ReadFile("testdata/ffmpeg-5.1.txt")
	if err != nil {
		t.Fatal(err)
	}
	return string(output)
}

func TestProgressRecorded(t *testing.T) {
	t.Parallel()
	reports, ended := read(t, recorded(t))
	want := []Progress{
		{Frame: 1, OutTime: 78 * time.Microsecond},
		{Frame: 6, Speed: 0.96, OutTime: 200078 * time.Microsecond},
		{Frame: 11, Speed: 0.964, OutTime: 400078 * time.Microsecond},
		{Frame: 16, Speed: 0.966, OutTime: 600078 * time.Microsecond},
		{Frame: 21, Speed: 0.967, OutTime: 800078 * time.Microsecond},
		{Frame: 25, Speed: 0.998, OutTime: 960078 * time.Microsecond},
	}
	if !reflect.DeepEqual(reports, want) || !ended {
		t.Errorf("ended %v: %+v", ended, reports)
	}
}

// TestProgressInPieces: a pipe may cut the text anywhere.
func TestProgressInPieces(t *testing.T) {
	t.Parallel()
	text := recorded(t)
	want, _ := read(t, text)
	for cut := range len(text) {
		if got, ended := read(t, text[:cut], text[cut:]); !reflect.DeepEqual(got, want) || !ended {
			t.Fatalf("cut at byte %d: %+v", cut, got)
		}
	}
	if got, ended := read(t, strings.Split(text, "")...); !reflect.DeepEqual(got, want) || !ended {
		t.Errorf("byte by byte: %+v", got)
	}
}

func TestProgressOfOtherKinds(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		text  string
		want  []Progress
		ended bool
	}{
		{"nothing", "", nil, false},
		{"no end of the last line", "frame=3\nprogress=end", nil, false},
		{"not available", "frame=0\nfps=0.00\nout_time_us=N/A\nout_time_ms=N/A\nout_time=N/A\nspeed=N/A\nbitrate=N/A\nprogress=continue\n", []Progress{{}}, false},
		{"not available again keeps what is done", "frame=4\nfps=9\nout_time_us=5\nspeed=2x\nprogress=continue\nout_time_us=N/A\nspeed=N/A\nprogress=end\n", []Progress{
			{Frame: 4, FramesPerSecond: 9, Speed: 2, OutTime: 5 * time.Microsecond}, {Frame: 4, OutTime: 5 * time.Microsecond},
		}, true},
		{"keys are missing", "frame=4\nprogress=continue\nprogress=continue\nframe=7\nprogress=end\n", []Progress{{Frame: 4}, {Frame: 4}, {Frame: 7}}, true},
		{"only the old key of the time", "out_time_ms=1500000\nprogress=continue\n", []Progress{{OutTime: 1500 * time.Millisecond}}, false},
		{"a time before the beginning", "out_time_us=-577014\nprogress=continue\n", []Progress{{}}, false},
		{"spaces and carriage returns", "frame=   4\r\nspeed=   1.5x\r\nprogress=continue\r\n", []Progress{{Frame: 4, Speed: 1.5}}, false},
		{"nonsense", "=\n==\nframe\nframe=x\nframe=-1\nfps=NaN\nspeed=+Infx\nspeed=-1x\nout_time_us=99999999999999999999\nout_time_us=9223372036854775807\n\x00\xff\nprogress=continue\n", []Progress{{}}, false},
		{"a line that is too long", "frame=1\n" + strings.Repeat("x", 3*progressLineMax) + "frame=9\nfps=2\nprogress=continue\n", []Progress{{Frame: 1, FramesPerSecond: 2}}, false},
		{"an unknown word of progress", "frame=1\nprogress=paused\n", []Progress{{Frame: 1}}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got, ended := read(t, test.text); !reflect.DeepEqual(got, test.want) || ended != test.ended {
				t.Errorf("got %+v (ended %v), want %+v (%v)", got, ended, test.want, test.ended)
			}
		})
	}
}

// TestProgressKeepsLittle: a line without an end costs no memory.
func TestProgressKeepsLittle(t *testing.T) {
	t.Parallel()
	reader := &progressReader{report: func(Progress) {}}
	for range 1000 {
		if _, err := reader.Write([]byte(strings.Repeat("x", 1000))); err != nil {
			t.Fatal(err)
		}
	}
	if cap(reader.line) > 4*progressLineMax {
		t.Errorf("it keeps %d bytes", cap(reader.line))
	}
}

// FuzzProgress: no bytes break the reader, and where they are cut makes no difference.
func FuzzProgress(f *testing.F) {
	f.Add([]byte("frame=1\nfps=25.0\nout_time_us=40000\nspeed=1.0x\nprogress=end\n"), 7)
	f.Add([]byte("frame=N/A\n\nprogress=continue\r\n"), 0)
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		cut = min(max(cut, 0), len(text))
		whole, wholeEnded := read(t, string(text))
		split, splitEnded := read(t, string(text[:cut]), string(text[cut:]))
		if !reflect.DeepEqual(whole, split) || wholeEnded != splitEnded {
			t.Fatalf("cut at %d: %+v instead of %+v", cut, split, whole)
		}
		for _, progress := range whole {
			if progress.Frame < 0 || progress.OutTime < 0 || !(progress.Speed >= 0) || !(progress.FramesPerSecond >= 0) {
				t.Fatalf("impossible progress %+v", progress)
			}
		}
	})
}
