// Package crew runs the example workers together: all on one Redis, as `go run
// ./examples/workers` does, or all in a gateway's own process, as `millrace serve --demo` does.
package crew

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/examples/workers/ads"
	"github.com/millrace/millrace/examples/workers/channels"
	"github.com/millrace/millrace/examples/workers/ml"
	"github.com/millrace/millrace/examples/workers/titancore"
)

// Names are the workers that there are.
var Names = []string{"titancore", "ads", "ml"}

// Options says who works, and how. The zero value of each field but Broker and Renderer is a good one.
type Options struct {
	Broker channels.Broker
	// Workers are some of Names. Empty: all.
	Workers []string
	// Users are those whom ml alerts. Empty: "demo".
	Users []string
	// Speed is how many times as fast as it happened ads replays; ml looks as often as it changes.
	Speed float64
	// Campaigns is what ads replays. Nil: the file that is built in.
	Campaigns *ads.File
	// Renderer makes titancore's videos.
	Renderer titancore.Renderer
	// Videos is the folder where titancore leaves them. Empty: they are removed.
	Videos string
	// Period is the time between two rounds of titancore's clips. 0: 20 s.
	Period time.Duration
	// Logger takes the log lines. Nil: slog.Default().
	Logger *slog.Logger
}

// Run runs the workers until ctx is done, or one of them can't go on: then all are stopped, and
// the error says why.
func Run(ctx context.Context, options Options) error {
	names := options.Workers
	if len(names) == 0 {
		names = Names
	}
	for _, name := range names {
		if !slices.Contains(Names, name) {
			return fmt.Errorf("no worker is called %q; there are %s", name, strings.Join(Names, ", "))
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	problems := make([]error, len(names))
	var running sync.WaitGroup
	for place, name := range names {
		running.Go(func() {
			if problems[place] = options.run(ctx, name); problems[place] != nil {
				cancel()
			}
		})
	}
	running.Wait()
	return errors.Join(problems...)
}

// run runs one worker.
func (o *Options) run(ctx context.Context, name string) error {
	switch name {
	case "titancore":
		worker := titancore.New(titancore.Options{Publisher: o.Broker, Renderer: o.Renderer, Folder: o.Videos, Logger: o.Logger})
		var submitting sync.WaitGroup
		defer submitting.Wait()
		submitting.Go(func() { worker.Showreel(ctx, titancore.Clip, cmp.Or(o.Period, titancore.ShowreelPeriod)) })
		return worker.Run(ctx)
	case "ads":
		return ads.Run(ctx, ads.Options{Publisher: o.Broker, File: o.Campaigns, Speed: o.Speed, Logger: o.Logger})
	default:
		users := o.Users
		if len(users) == 0 {
			users = []string{"demo"}
		}
		return ml.Run(ctx, ml.Options{Broker: o.Broker, Users: users, Interval: o.interval(), Logger: o.Logger})
	}
}

// interval is how often ml looks: twice an hour of the file, that no hour is missed.
func (o *Options) interval() time.Duration {
	if o.Speed <= 0 {
		return ml.IntervalDefault
	}
	const halfAnHour = 1800
	return min(max(time.Duration(halfAnHour/o.Speed*float64(time.Second)), 5*time.Millisecond), ml.IntervalDefault)
}
