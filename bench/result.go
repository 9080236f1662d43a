package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Result is all that a run found out: what `--json` writes and the report reads.
type Result struct {
	Version  int       `json:"version"` // of this format: 1
	Started  time.Time `json:"started"`
	Seconds  float64   `json:"seconds"` // that the run took
	Command  string    `json:"command"` // how to repeat it
	Machine  Machine   `json:"machine"`
	Settings Settings  `json:"settings"`
	Subjects []About   `json:"subjects"`
	Samples  []Sample  `json:"samples"`
	// Failures are measurements that did not come about, and why.
	Failures []string `json:"failures,omitempty"`
}

const resultVersion = 1

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

// Sample is one measurement of one subject.
type Sample struct {
	Scenario string             `json:"scenario"`
	Case     string             `json:"case"`
	Subject  string             `json:"subject"`
	Wire     Wire               `json:"wire"`
	Round    int                `json:"round"` // from 1
	Metrics  map[string]float64 `json:"metrics"`
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
	metricKernelBytes     = "kernelBytes"
	metricStreams         = "streams"
	metricPings           = "pings"
	metricProcesses       = "processes"
	metricFirstSeconds    = "firstSeconds"
)

// missing is how many deliveries of a sample did not arrive.
func (s *Sample) missing() float64 { return s.Metrics[metricExpected] - s.Metrics[metricDeliveries] }

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
