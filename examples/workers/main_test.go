package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/examples/workers/channels/channelstest"
	"github.com/millrace/millrace/internal/leaktest"
	"github.com/millrace/millrace/internal/logtest"
	"github.com/millrace/millrace/internal/polltest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m, leaktest.Rueidis())) }

// TestCommand runs one worker by the command line, on a file of the user's own.
func TestCommand(t *testing.T) {
	redis := channelstest.Start(t)
	csv := filepath.Join(t.TempDir(), "mine.csv")
	text := "time,campaign,impressions,clicks,conversions,spend,revenue\n2026-11-02T13:00:00Z,mine,10,5,1,2,4\nbad\n"
	if err := os.WriteFile(csv, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var log logtest.Text
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"--redis", redis.Server.URL(), "--channel-prefix", "app:", "--csv", csv, "--speed", "36000", "ads"}, &log)
	}()
	polltest.Eventually(t, "a state", func() bool {
		_, found := redis.State("app:campaign_metrics:mine")
		return found
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "mine.csv:3:1: has 1 fields instead of 7") || strings.Contains(log.String(), "titancore") {
		t.Errorf("it said\n%s", &log)
	}
}

func TestCommandSaysWhatIsWrong(t *testing.T) {
	redis := channelstest.Start(t)
	t.Setenv("REDIS_URL", redis.Server.URL())
	for _, test := range []struct {
		arguments []string
		want      string
	}{
		{[]string{"vhs"}, `no worker is called "vhs"`},
		{[]string{"all", "ads"}, `no worker is called "all"`},
		{[]string{"--redis", "127.0.0.1"}, "redis: the address must be"},
		{[]string{"--redis", "redis://127.0.0.1:1"}, "is it running"},
		{[]string{"--csv", "nowhere.csv"}, "--csv: open nowhere.csv"},
		{[]string{"--csv", "main.go"}, "main.go:1:1: the first line must be"},
		{[]string{"--encoder", "vhs"}, `--encoder: "vhs" is none`},
		{[]string{"--period", "-1s"}, "--period: -1s is not possible"},
		{[]string{"--videos", "main.go"}, "--videos: main.go is no folder"},
		{[]string{"--speed", "-1", "ads"}, "a speed of -1 is not possible"},
		{[]string{"--users", "ada,", "ml"}, "can't be a user's id"},
		{[]string{"--nonsense"}, "flag provided but not defined"},
	} {
		err := run(t.Context(), test.arguments, &logtest.Text{})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: %v, want %s", test.arguments, err, test.want)
		}
	}
	var help logtest.Text
	if err := run(t.Context(), []string{"--help"}, &help); !errors.Is(err, flag.ErrHelp) || !strings.Contains(help.String(), "-channel-prefix") {
		t.Errorf("--help: %v\n%s", err, &help)
	}
}
