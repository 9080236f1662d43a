package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Result is all that a run, or several that belong together, found out: what `--json` writes and
// the report reads.
type Result struct {
	Version  int       `json:"version"` // of this format: 2
	Started  time.Time `json:"started"`
	Seconds  float64   `json:"seconds"`  // that measuring took, pauses between runs left out
	Commands []string  `json:"commands"` // how to repeat it
	Machine  Machine   `json:"machine"`
	// Revisions are those of Millrace by scenario, of scenarios that were measured with another one
	// than Machine names.
	Revisions map[string]string `json:"revisions,omitempty"`
	Settings  Settings          `json:"settings"`
	Subjects  []About           `json:"subjects"`
	// Cells are the measurements that were made, also those that came to nothing.
	Cells   []Cell   `json:"cells"`
	Samples []Sample `json:"samples"`
}

const resultVersion = 2

// Cell is one measurement: a part of a scenario, asked of a subject over a wire in a round.
type Cell struct {
	Scenario string  `json:"scenario"`
	Part     string  `json:"part,omitempty"` // empty where the scenario has only one
	Subject  string  `json:"subject"`
	Wire     Wire    `json:"wire"`
	Round    int     `json:"round"` // from 1
	Seconds  float64 `json:"seconds"`
	Failure  string  `json:"failure,omitempty"` // why it came to nothing
}

func (c *Cell) String() string {
	scenario := c.Scenario
	if c.Part != "" {
		scenario += " (" + c.Part + ")"
	}
	return fmt.Sprintf("round %d, %s, %s over %s", c.Round, scenario, c.Subject, c.Wire)
}

// same says whether two cells ask the same.
func (c *Cell) same(other *Cell) bool {
	return c.Scenario == other.Scenario && c.Part == other.Part && c.Subject == other.Subject && c.Wire == other.Wire && c.Round == other.Round
}

// Machine is what the run ran on.
type Machine struct {
	Processor   string  `json:"processor"`
	Cores       int     `json:"cores"`
	MemoryBytes int64   `json:"memoryBytes"`
	Kernel      string  `json:"kernel"`
	Go          string  `json:"go"`
	Revision    string  `json:"revision,omitempty"` // of Millrace, where the build knows it
	LoadBefore  float64 `json:"loadBefore"`         // one-minute load average at the start
}

// About is a subject and its settings, or why it was skipped.
type About struct {
	Name    string `json:"name"`
	About   string `json:"about"`
	Skipped string `json:"skipped,omitempty"`
}

// Sample is what one measurement of one subject gave for one case.
type Sample struct {
	Scenario string             `json:"scenario"`
	Part     string             `json:"part,omitempty"` // of the cell it belongs to
	Case     string             `json:"case"`
	Subject  string             `json:"subject"`
	Wire     Wire               `json:"wire"`
	Round    int                `json:"round"` // from 1
	Metrics  map[string]float64 `json:"metrics"`
}

func (s *Sample) of(c *Cell) bool {
	return c.same(&Cell{Scenario: s.Scenario, Part: s.Part, Subject: s.Subject, Wire: s.Wire, Round: s.Round})
}

// Names of metrics. The unit stands at the end of each.
const (
	metricBytesPerStream  = "processBytesPerStream"
	metricKernelPerStream = "kernelBytesPerStream"
	metricBaseBytes       = "processBytesBase"
	metricSettleSeconds   = "settleSeconds"
	metricCPUPerMillion   = "cpuSecondsPerMillion"
	metricCPUSeconds      = "cpuSeconds"
	metricRedisCPU        = "redisCPUMicrosPerEvent"
	metricCPUPerEvent     = "cpuMicrosPerEvent"
	metricP50             = "latencyP50Micros"
	metricP99             = "latencyP99Micros"
	metricP999            = "latencyP999Micros"
	metricMax             = "latencyMaxMicros"
	metricPerSecond       = "perSecond"
	metricExpected        = "deliveriesExpected"
	metricDeliveries      = "deliveries"
	metricLost            = "lostInSequence"
	metricRepeated        = "repeated"
	metricLateP99         = "publisherLateP99Micros"
	metricSeconds         = "seconds"
	metricMemoryBytes     = "processBytes"
	metricStreamsBytes    = "processBytesOfStreams"
	metricKernelBytes     = "kernelBytes"
	metricStreams         = "streams"
	metricRefused         = "handshakesRefused"
	metricPings           = "pings"
	metricProcesses       = "processes"
	metricFirstSeconds    = "firstSeconds"
	metricTimesFew        = "timesFewOthers"
	metricPerGateway      = "redisCPUMicrosPerGateway"
	metricRedisPerKey     = "redisBytesPerTrackedKey"
	metricTimesAlone      = "latencyP99TimesAlone"
	metricGrowthBytes     = "processBytesGrowth"
	metricPeakPerSecond   = "connectsPeakPerSecond"
	metricPeakOfLimit     = "connectsPeakOfLimit"

	metricBytesPerDelivery = "bytesPerDelivery"
	metricTimesFewerBytes  = "timesFewerBytes"
	metricTimesCPU         = "timesCPU"
	metricTimesWriteCPU    = "timesCPUOfAWrite"
	metricPerWrite         = "messagesPerWrite"
)

// missing is how many deliveries of a sample did not arrive.
func (s *Sample) missing() float64 { return s.Metrics[metricExpected] - s.Metrics[metricDeliveries] }

// done says whether a cell was measured, and well.
func (r *Result) done(c *Cell) bool {
	return slices.ContainsFunc(r.Cells, func(other Cell) bool { return other.Failure == "" && other.same(c) })
}

// put keeps what a cell gave, in the place of what an earlier try gave.
func (r *Result) put(c Cell, samples []Sample) {
	r.Cells = slices.DeleteFunc(r.Cells, func(other Cell) bool { return other.same(&c) })
	r.Samples = slices.DeleteFunc(r.Samples, func(s Sample) bool { return s.of(&c) })
	r.Cells = append(r.Cells, c)
	r.Samples = append(r.Samples, samples...)
}

// Failures says, a line each, which measurements came to nothing, and why.
func (r *Result) Failures() []string {
	var lines []string
	for i := range r.Cells {
		if c := &r.Cells[i]; c.Failure != "" {
			lines = append(lines, c.String()+": "+c.Failure)
		}
	}
	return lines
}

// ReadResult reads what a run wrote with `--json`.
func ReadResult(path string) (*Result, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read a result: %w", err)
	}
	var result Result
	if err := json.Unmarshal(text, &result); err != nil {
		return nil, fmt.Errorf("%s is no result of a run: %w", path, err)
	}
	if result.Version != resultVersion {
		return nil, fmt.Errorf("%s is of version %d, this binary reads %d: run the benchmark again", path, result.Version, resultVersion)
	}
	return &result, nil
}

// Write writes the result as JSON, whole or not at all.
func (r *Result) Write(path string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	if err := os.WriteFile(path+".part", append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	if err := os.Rename(path+".part", path); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// thisMachine describes where the harness runs.
func thisMachine(revision string) Machine {
	machine := Machine{Cores: runtime.NumCPU(), Go: runtime.Version(), Revision: revision}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				machine.Processor = strings.TrimSpace(value)
				break
			}
		}
	}
	if kilobytes, err := fieldOf("/proc/meminfo", "MemTotal:"); err == nil {
		machine.MemoryBytes = kilobytes << 10
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		machine.Kernel = unix.ByteSliceToString(name.Sysname[:]) + " " + unix.ByteSliceToString(name.Release[:])
	}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(text), &machine.LoadBefore)
	}
	return machine
}
