package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// The exit codes.
const (
	exitKept   = 0
	exitBroken = 1
	exitFailed = 2 // the audit could not run
)

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(arguments []string) int {
	p, err := parsePlan(arguments, os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitKept
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "audit:", err)
		return exitFailed
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	result, err := newAudit(p, os.Stderr).run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "audit:", err)
		return exitFailed
	}
	result.print(os.Stdout)
	if !result.passed() {
		return exitBroken
	}
	return exitKept
}
