// Command workers runs the example workers on a Redis, so that a gateway on the same Redis has
// something live to show:
//
//	go run ./examples/workers --redis redis://127.0.0.1:6379 all
//
// titancore renders videos, ads replays what campaigns did, ml alerts when a metric leaves its
// band. Each stands in a package of its own, whose comment tells its story; README.md in this
// folder says which commands of Redis they use, and has the two workers in Python and Node.
//
// It does not matter where the workers run, what they are written in, or how many gateways there
// are: all that they share is Redis.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/millrace/millrace/examples/workers/ads"
	"github.com/millrace/millrace/examples/workers/channels"
	"github.com/millrace/millrace/examples/workers/crew"
	"github.com/millrace/millrace/examples/workers/titancore"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "workers:", err)
		os.Exit(1)
	}
}

// command is the command line.
type command struct {
	redis, prefix string
	users, csv    string
	videos        string
	encoder       string
	realTime      bool
	crew          crew.Options
}

// run runs one command line until ctx is done.
func run(ctx context.Context, arguments []string, stderr io.Writer) error {
	var c command
	if err := c.parse(arguments, stderr); err != nil {
		return err
	}
	if err := c.prepare(); err != nil {
		return err
	}
	redis, err := channels.Dial(c.redis, c.prefix)
	if err != nil {
		return err
	}
	defer redis.Close()
	c.crew.Broker = redis
	// A line for each job and each alert: workers that run by themselves may say what they do.
	c.crew.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return crew.Run(ctx, c.crew)
}

// parse reads the command line.
func (c *command) parse(arguments []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("workers", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintf(stderr, "usage: workers [flags] [all | %s ...]\n", strings.Join(crew.Names, " | "))
		flags.PrintDefaults()
	}
	flags.StringVar(&c.redis, "redis", "", "`URL` of Redis; without it $REDIS_URL, or redis://127.0.0.1:6379")
	flags.StringVar(&c.prefix, "channel-prefix", "", "goes before every channel's name, as the gateway's setting does")
	flags.StringVar(&c.users, "users", "demo", "ids of the users whom ml alerts, with commas between")
	flags.StringVar(&c.csv, "csv", "", "`FILE` that ads replays; without it the one that is built in")
	flags.Float64Var(&c.crew.Speed, "speed", ads.SpeedDefault, "how many times as fast as it happened ads replays")
	flags.StringVar(&c.videos, "videos", "", "`FOLDER` where titancore leaves its videos; without it they are removed")
	flags.StringVar(&c.encoder, "encoder", "auto", "what titancore renders with: auto, ffmpeg or go")
	flags.BoolVar(&c.realTime, "real-time", true, "let a second of video take a second; false: as fast as it goes")
	flags.DurationVar(&c.crew.Period, "period", titancore.ShowreelPeriod, "time between two rounds of titancore's clips")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	c.redis = cmp.Or(c.redis, os.Getenv("REDIS_URL"), "redis://127.0.0.1:6379")
	c.crew.Workers = flags.Args()
	return nil
}

// prepare turns what the command line says into what the crew needs, before anything is started.
func (c *command) prepare() (err error) {
	if len(c.crew.Workers) == 1 && c.crew.Workers[0] == "all" {
		c.crew.Workers = nil
	}
	for user := range strings.SplitSeq(c.users, ",") {
		c.crew.Users = append(c.crew.Users, strings.TrimSpace(user))
	}
	if c.crew.Period <= 0 {
		return fmt.Errorf("--period: %v is not possible; it must be more than 0", c.crew.Period)
	}
	if c.videos != "" {
		if info, err := os.Stat(c.videos); err != nil || !info.IsDir() {
			return fmt.Errorf("--videos: %s is no folder", c.videos)
		}
		c.crew.Videos = c.videos
	}
	if c.crew.Renderer, err = titancore.NewRenderer(c.encoder, c.realTime); err != nil {
		return fmt.Errorf("--encoder: %w", err)
	}
	if c.csv == "" {
		return nil
	}
	file, err := os.Open(c.csv)
	if err != nil {
		return fmt.Errorf("--csv: %w", err)
	}
	defer file.Close()
	c.crew.Campaigns, err = ads.Read(c.csv, file)
	return err
}
