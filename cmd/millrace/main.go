package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"github.com/millrace/millrace/internal/settings"
)

// Exit codes of every command.
const (
	exitGood    = 0
	exitFailure = 1
	exitUsage   = 2
)

// commands is the command line. Each command stands in the file of its name.
type commands struct {
	Serve   serveCommand   `cmd:"" help:"Serve SSE and WebSocket streams, fed by Redis or by this process's memory."`
	Publish publishCommand `cmd:"" help:"Publish an event, or one a line from standard input."`
	Tail    tailCommand    `cmd:"" help:"Print events as they come."`
	Token   tokenCommand   `cmd:"" help:"Mint a token for development."`
	Check   checkCommand   `cmd:"" help:"Say what is wrong with the configuration, or that nothing is."`
	Upgrade upgradeCommand `cmd:"" help:"Have a running gateway hand all its streams to a new process."`
	Bench   benchCommand   `cmd:"" help:"Measure this gateway beside other servers, on this machine."`
	Version versionCommand `cmd:"" help:"Say what this binary is made of."`

	Document  documentCommand  `cmd:"" hidden:"" help:"Print the man page or a shell's completions."`
	BenchRole benchRoleCommand `cmd:"" hidden:""`
}

// process is what a command may touch of the world outside.
type process struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	environment    []string
	given          []string // names of the flags that stand on the command line
}

// usageError says that the command was called wrongly.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

func errUsage(format string, arguments ...any) error {
	return usageError{fmt.Errorf(format, arguments...)}
}

func main() {
	os.Exit(run(os.Args[1:], &process{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, environment: os.Environ(),
	}))
}

// run runs one command line and gives its exit code.
func run(arguments []string, world *process) int {
	parser, err := newParser(world)
	if err != nil {
		fmt.Fprintln(world.stderr, "millrace:", err)
		return exitFailure
	}
	parsed, err := parser.Parse(arguments)
	if err != nil {
		complain(world.stderr, err)
		fmt.Fprintln(world.stderr, usageHint(err))
		return exitUsage
	}
	for _, step := range parsed.Path {
		if step.Flag != nil {
			world.given = append(world.given, step.Flag.Name)
		}
	}
	err = parsed.Run(world)
	if err != nil && !errors.Is(err, errSilent) {
		complain(world.stderr, err)
	}
	return exitCode(err)
}

// errSilent is a failure that the command has told the user about itself.
var errSilent = errors.New("failed")

func newParser(world *process) (*kong.Kong, error) {
	return kong.New(&commands{},
		kong.Name("millrace"),
		kong.Description("An event-loop gateway: what workers publish on Redis reaches browsers by Server-Sent Events and WebSocket."),
		kong.Writers(world.stdout, world.stderr),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.ValueFormatter(helpOf),
		kong.Vars(benchNames()),
		kong.BindTo(context.Background(), (*context.Context)(nil)),
	)
}

// helpOf adds to a setting's help the name of its environment variable. Settings are not given
// kong's env tag, since kong would then read the variables itself, in another order.
func helpOf(value *kong.Value) string {
	text := kong.DefaultHelpValueFormatter(value)
	for _, field := range settings.Fields() {
		if field.Name == value.Name && field.Environment != "" {
			return text + " ($" + field.Environment + ")"
		}
	}
	return text
}

// complain prints an error, one line each where it is several.
func complain(stderr io.Writer, err error) {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(stderr, "millrace:", strings.TrimRight(line, "\n"))
	}
}

// usageHint says where help is for the command that was called wrongly.
func usageHint(err error) string {
	command := "millrace"
	var parseError *kong.ParseError
	if errors.As(err, &parseError) && parseError.Context != nil && parseError.Context.Command() != "" {
		command += " " + strings.Fields(parseError.Context.Command())[0]
	}
	return "`" + command + " --help` shows what there is."
}

// exitCode gives the exit code for the outcome of a command.
func exitCode(err error) int {
	var usage usageError
	var problems settings.Problems
	switch {
	case err == nil:
		return exitGood
	case errors.As(err, &usage), errors.As(err, &problems) && problems.Usage():
		return exitUsage
	default:
		return exitFailure
	}
}

// isTerminal says whether a person looks at stream.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
