package bench

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Options says what to measure. The zero value measures the quick scenarios of all subjects.
type Options struct {
	Scenarios []string // see [ScenarioNames]; none: those of the size
	Subjects  []string // see [SubjectNames]; none: all
	Wires     []Wire   // none: all
	// Full takes the sizes and all scenarios of a published report instead of those of a look.
	Full bool
	// Streams is the size of a crowd; 0: 10,000. Up to 17,000: a server has descriptors for
	// little more, and some scenarios add others.
	Streams int
	// Rounds is how often everything is measured; 0: 5 in full, else 2.
	Rounds int
	// Million is how many streams the fleet of scenario million holds; 0: 1,000,000.
	Million int
	// Duration is how long each paced load lasts; 0: 4 s in full, else 2 s.
	Duration time.Duration
	// AllCores lets the server use every core instead of one of its own.
	AllCores bool

	// Output is the file that gets every sample, written anew after each measurement; empty: none.
	Output string
	// Append goes on with what Output holds already: what is there is not measured again.
	Append bool

	// Binary is the program that has the roles and `millrace serve`; empty: this one.
	Binary string
	// Peers is the directory with the sources of the peers' servers; empty: bench/peers.
	Peers string
	// Cache is where what is built of them is kept; empty: in the user's cache directory.
	Cache string
	// Revision is that of Millrace, for the report.
	Revision string

	// Progress gets lines, or a bar where Terminal says that a person looks at it; nil: nobody.
	Progress io.Writer
	Terminal bool
}

// Settings are the sizes and times of a run.
type Settings struct {
	Cores   string `json:"cores"` // one or all: what the server may use
	Rounds  int    `json:"rounds"`
	Streams int    `json:"streams"` // of a crowd
	// IdleLow and IdleHigh are the sizes of the crowd between which memory is compared.
	IdleLow  int `json:"idleLow"`
	IdleHigh int `json:"idleHigh"`
	// Settle is from the last handshake to a look at memory, in seconds.
	Settle float64 `json:"settleSeconds"`
	// MessageBytes is the size of a published message.
	MessageBytes int `json:"messageBytes"`
	// Paced is how long each paced load lasts, in seconds.
	Paced float64 `json:"pacedSeconds"`
	// FanoutPerSecond and UnicastPerSecond are the rates of messages.
	FanoutPerSecond  float64 `json:"fanoutPerSecond"`
	UnicastPerSecond float64 `json:"unicastPerSecond"`
	// BurstMessages go out back to back, Bursts times.
	BurstMessages int `json:"burstMessages"`
	Bursts        int `json:"bursts"`
	// Connects is how often the crowd connects, after once to warm up.
	Connects int `json:"connects"`
	// Keepalive is how long idle streams are watched, in seconds.
	Keepalive float64 `json:"keepaliveSeconds"`
	// Million is how many streams the fleet holds, MillionKeepalive how long it is watched, in
	// seconds.
	Million          int     `json:"million"`
	MillionKeepalive float64 `json:"millionKeepaliveSeconds"`
}

// OptionError says what is wrong with an [Options].
type OptionError struct{ Problem string }

func (e *OptionError) Error() string { return e.Problem }

func errOption(format string, arguments ...any) error {
	return &OptionError{fmt.Sprintf(format, arguments...)}
}

const (
	streamsDefault = 10_000
	streamsMax     = 17_000
	streamsMin     = 10
)

// resolve fills what is not given.
func (o *Options) resolve() (*Settings, error) {
	if o.Append && o.Output == "" {
		return nil, errOption("to go on with a run needs the file that it wrote: give --json too")
	}
	s := &Settings{
		Cores: "one", Rounds: 2, Streams: streamsDefault, Settle: 1.5,
		MessageBytes: 154, Paced: 2, FanoutPerSecond: 5, BurstMessages: 50, Bursts: 1,
		UnicastPerSecond: 2000, Connects: 1, Keepalive: 60,
		Million: 1_000_000, MillionKeepalive: 60,
	}
	if o.Full {
		s.Rounds, s.Paced = 5, 4
		s.MillionKeepalive = 600
	}
	if o.AllCores {
		s.Cores = "all"
	}
	if o.Million != 0 {
		s.Million = o.Million
	}
	if s.Million < streamsMin {
		return nil, errOption("a fleet for %d streams: expected at least %d", s.Million, streamsMin)
	}
	if o.Streams != 0 {
		s.Streams = o.Streams
	}
	if s.Streams < streamsMin || s.Streams > streamsMax {
		return nil, errOption("a crowd of %d streams: expected %d to %d", s.Streams, streamsMin, streamsMax)
	}
	s.IdleLow, s.IdleHigh = s.Streams/5, min(s.Streams*9/5, 18_000)
	if o.Rounds != 0 {
		s.Rounds = o.Rounds
	}
	if s.Rounds < 1 {
		return nil, errOption("expected at least one round")
	}
	if o.Duration != 0 {
		s.Paced = o.Duration.Seconds()
		s.Settle = min(s.Settle, s.Paced)
		s.Keepalive = min(s.Keepalive, 6*s.Paced)
		s.MillionKeepalive = min(s.MillionKeepalive, 6*s.Paced)
	}
	if s.Paced < 0.5 {
		return nil, errOption("a load of less than half a second tells nothing")
	}
	return s, o.resolvePaths()
}

func (o *Options) resolvePaths() error {
	if o.Binary == "" {
		path, err := os.Executable()
		if err != nil {
			return fmt.Errorf("where this program is: %w", err)
		}
		o.Binary = path
	}
	if o.Peers == "" {
		o.Peers = filepath.Join("bench", "peers")
	}
	if o.Cache == "" {
		directory, err := os.UserCacheDir()
		if err != nil {
			directory = os.TempDir()
		}
		o.Cache = filepath.Join(directory, "millrace-bench")
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	if len(o.Wires) == 0 {
		o.Wires = Wires()
	}
	return nil
}

// command is the command line that repeats a run with these options.
func (o *Options) command() string {
	words := append([]string{"millrace", "bench"}, o.Scenarios...)
	if o.Full {
		words = append(words, "--full")
	}
	if len(o.Subjects) > 0 {
		words = append(words, "--subjects", strings.Join(o.Subjects, ","))
	}
	if len(o.Wires) == 1 {
		words = append(words, "--wires", string(o.Wires[0]))
	}
	if o.Streams != 0 {
		words = append(words, "--streams", strconv.Itoa(o.Streams))
	}
	if o.Rounds != 0 {
		words = append(words, "--rounds", strconv.Itoa(o.Rounds))
	}
	if o.Million != 0 {
		words = append(words, "--million", strconv.Itoa(o.Million))
	}
	if o.Duration != 0 {
		words = append(words, "--duration", o.Duration.String())
	}
	if o.AllCores {
		words = append(words, "--cores", "all")
	}
	return strings.Join(words, " ")
}
