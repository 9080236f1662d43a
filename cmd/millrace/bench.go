package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/millrace/millrace/bench"
)

// benchCommand is `millrace bench`.
type benchCommand struct {
	Run    benchRunCommand    `cmd:"" default:"withargs" help:"Measure, and print a table (the default)."`
	Report benchReportCommand `cmd:"" help:"Write BENCHMARKS.md and its plots from the JSON of one run or more."`
}

// benchRunCommand is `millrace bench [SCENARIO...]`.
type benchRunCommand struct {
	Scenarios []string      `arg:"" optional:"" help:"What to measure: ${bench_scenarios}. None: what fits into ten minutes, with --full everything, each of the servers for which it tells something."`
	Subjects  []string      `name:"subjects" placeholder:"NAME,..." help:"Servers to measure: ${bench_subjects}. None: all that are here."`
	Wires     []string      `name:"wires" enum:"sse,ws" placeholder:"WIRE" help:"sse, ws or both (the default)."`
	Streams   int           `name:"streams" placeholder:"N" help:"Streams of a crowd (10000)."`
	Million   int           `name:"million" placeholder:"N" help:"Streams of the scenario million (1000000)."`
	Rounds    int           `name:"rounds" placeholder:"N" help:"How often everything is measured (2, with --full 5)."`
	Duration  time.Duration `name:"duration" placeholder:"D" help:"Length of each paced load (2s, with --full 4s)."`
	Quick     bool          `name:"quick" xor:"size" help:"Sizes and scenarios for a look (the default)."`
	Full      bool          `name:"full" xor:"size" help:"Sizes and scenarios of a published report."`
	Cores     string        `name:"cores" enum:"one,all" default:"one" help:"Give the server one core of its own, or all together with everybody else: one or all."`
	JSON      string        `name:"json" placeholder:"FILE" help:"Write every sample to FILE, anew after each measurement."`
	Append    bool          `name:"append" help:"Go on with what is in the file of --json: measure what is missing or failed, and further rounds."`
	Peers     string        `name:"peers" placeholder:"DIRECTORY" help:"Sources of the peers' servers (bench/peers)."`
}

// benchNames fills in what help says of scenarios and subjects.
func benchNames() map[string]string {
	return map[string]string{
		"bench_scenarios": strings.Join(bench.ScenarioNames(), ", "),
		"bench_subjects":  strings.Join(bench.SubjectNames(), ", "),
	}
}

// Run measures until it is done, or until the first SIGINT or SIGTERM; what was measured by then
// is still printed.
func (c *benchRunCommand) Run(world *process) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	options := bench.Options{
		Scenarios: c.Scenarios, Subjects: c.Subjects, Full: c.Full, Streams: c.Streams, Million: c.Million, Rounds: c.Rounds,
		Duration: c.Duration, AllCores: c.Cores == "all", Peers: c.Peers, Output: c.JSON, Append: c.Append,
		Revision: buildRevision(), Progress: world.stderr, Terminal: isTerminal(world.stderr),
	}
	for _, wire := range c.Wires {
		options.Wires = append(options.Wires, bench.Wire(wire))
	}
	result, err := bench.Run(ctx, options)
	var wrong *bench.OptionError
	if errors.As(err, &wrong) {
		return errUsage("bench: %w", err)
	}
	if result == nil {
		return fmt.Errorf("bench: %w", err)
	}
	result.PrintTable(world.stdout)
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	if failures := result.Failures(); len(failures) > 0 {
		return fmt.Errorf("bench: %d measurements failed; the table is not whole", len(failures))
	}
	return nil
}

// buildRevision is the commit that this binary was built from, where the build knows it.
func buildRevision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	return commit(info)
}

// benchReportCommand is `millrace bench report FILE...`.
type benchReportCommand struct {
	Files  []string `arg:"" name:"file" help:"What runs wrote with --json: those with the same settings are put together."`
	Output string   `name:"output" default:"BENCHMARKS.md" placeholder:"FILE" help:"Where the report goes."`
	Plots  string   `name:"plots" default:"docs/benchmarks" placeholder:"DIRECTORY" help:"Where its plots go."`
}

// benchRoleCommand starts this binary as one of the harness's own processes.
type benchRoleCommand struct {
	Arguments []string `arg:"" passthrough:"" optional:""`
}

// Run plays the role until its input ends or it is killed.
func (c *benchRoleCommand) Run(world *process) error {
	return bench.RunRole(context.Background(), c.Arguments, world.stdin, os.Stdout)
}

// Run writes the report.
func (c *benchReportCommand) Run(world *process) error {
	results, err := bench.ReadResults(c.Files)
	if err != nil {
		return err
	}
	if err := bench.WriteReport(results, c.Output, c.Plots); err != nil {
		return err
	}
	_, err = fmt.Fprintln(world.stdout, c.Output)
	return err
}
