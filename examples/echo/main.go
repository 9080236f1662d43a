// Command echo is a WebSocket server that says back what it hears, for suites and people that want
// to try how Millrace speaks RFC 6455:
//
//	go run ./examples/echo --listen 127.0.0.1:9001
//
// It is made of the parts that the gateway is made of and of no others: the front desk and the loop
// of package netio, the handshake, reader and writer of package proto. What a suite finds here is so
// in the gateway, but for what the gateway forbids: there a message is a command of at most 64 KiB,
// binary is refused and an Origin is judged. Here messages may be 16 MiB long, text and binary, in
// any fragments, from anybody, and compressed if --deflate is given.
//
// It is for tests: who connects is not asked, and a connection that says nothing is kept for ever.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// shutdownTime is how long handshakes under way are given at the end.
const shutdownTime = 2 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}

// run serves until ctx is done.
func run(ctx context.Context, arguments []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("echo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	address := flags.String("listen", "127.0.0.1:9001", "`HOST:PORT` to serve WebSockets on")
	compress := flags.Bool("deflate", false, "agree to permessage-deflate (RFC 7692)")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	s, err := newServer(*address, *compress)
	if err != nil {
		return err
	}
	fmt.Fprintf(stderr, "echo: ws://%v\n", s.desk.Addr())
	<-ctx.Done()
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	return s.close(limit)
}
