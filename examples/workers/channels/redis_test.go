package channels_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/examples/workers/channels"
	"github.com/millrace/millrace/examples/workers/channels/channelstest"
	"github.com/millrace/millrace/internal/polltest"
	"github.com/millrace/millrace/internal/redistest"
)

type said struct {
	Said string `json:"said"`
}

// TestRedis: each verb is the command of its mode, as redis-cli sees it.
func TestRedis(t *testing.T) {
	t.Parallel()
	redis := channelstest.Start(t)
	heard := redis.Hear("video_render:*")
	if err := redis.Publish(t.Context(), "video_render:1", said{"hello"}); err != nil {
		t.Fatal(err)
	}
	polltest.Eventually(t, "the event", func() bool {
		events := heard.Events()
		return len(events) == 1 && events[0].Channel == "video_render:1" && events[0].Text("said") == "hello"
	})

	for _, word := range []string{"one", "two"} {
		if err := redis.Append(t.Context(), "job_progress:1", said{word}); err != nil {
			t.Fatal(err)
		}
	}
	log := redis.Log("job_progress:1")
	if len(log) != 2 || log[0].Text("said") != "one" || log[1].Text("said") != "two" {
		t.Errorf("the log holds %v", log)
	}
	if left := redis.Server.CLI(t, "TTL", "job_progress:1"); left == "-1" {
		t.Error("the log lives for ever")
	}

	if err := redis.Set(t.Context(), "campaign_metrics:1", said{"newest"}); err != nil {
		t.Fatal(err)
	}
	values, err := redis.Get(t.Context(), "campaign_metrics:1", "campaign_metrics:none", "campaign_metrics:1")
	if err != nil {
		t.Fatal(err)
	}
	if string(values[0]) != `{"said":"newest"}` || values[1] != nil || !bytes.Equal(values[2], values[0]) {
		t.Errorf("got %q", values)
	}
	if values, err := redis.Get(t.Context(), "job_progress:1"); err != nil || values[0] != nil {
		t.Errorf("a log, read as a state, is %q, %v", values, err)
	}
	if err := redis.Set(t.Context(), "x:1", func() {}); err == nil {
		t.Error("what is no JSON was set")
	}
}

func TestRedisPrefix(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	redis, err := channels.Dial(server.URL(), "app:")
	if err != nil {
		t.Fatal(err)
	}
	defer redis.Close()
	if err := redis.Set(t.Context(), "state:1", 7); err != nil {
		t.Fatal(err)
	}
	if got := server.CLI(t, "GET", "app:state:1"); got != "7" {
		t.Errorf("app:state:1 holds %q", got)
	}
	values, err := redis.Get(t.Context(), "state:1")
	if err != nil || string(values[0]) != "7" {
		t.Errorf("got %q, %v", values, err)
	}
}

// TestDialSaysWhatIsWrong, and never what may be a password.
func TestDialSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for name, address := range map[string]string{
		"no scheme": "127.0.0.1:6379", "a bad port": "redis://:secret/word@127.0.0.1:6379", "a bad database": "redis://:secret@127.0.0.1:6379/x",
		"nobody there": "redis://:secret@127.0.0.1:1", "a stray percent": "redis://:secret%@127.0.0.1",
	} {
		redis, err := channels.Dial(address, "")
		if err == nil {
			redis.Close()
			t.Fatalf("%s: no error", name)
		}
		if strings.Contains(err.Error(), "secret") || !strings.HasPrefix(err.Error(), "redis: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRedisAway: a worker is told, soon, and goes on when Redis is back.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	redis := channelstest.Start(t)
	redis.Server.Kill()
	if err := redis.Publish(t.Context(), "x:1", 1); err == nil {
		t.Error("published without a Redis")
	}
	redis.Server.Restart(t)
	err := channels.Insist(t.Context(), channelstest.Patience, func(ctx context.Context) error { return redis.Append(ctx, "x:1", said{"again"}) })
	if err != nil || len(redis.Log("x:1")) == 0 {
		t.Errorf("after the restart: %v", err)
	}
}

func TestInsist(t *testing.T) {
	t.Parallel()
	failure := errors.New("not yet")
	tries := 0
	if err := channels.Insist(t.Context(), channelstest.Patience, func(context.Context) error {
		if tries++; tries < 3 {
			return failure
		}
		return nil
	}); err != nil || tries != 3 {
		t.Errorf("%d tries, %v", tries, err)
	}
	if err := channels.Insist(t.Context(), time.Millisecond, func(context.Context) error { return failure }); !errors.Is(err, failure) {
		t.Errorf("out of patience: %v", err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	tries = 0
	if err := channels.Insist(over, channelstest.Patience, func(context.Context) error { tries++; return failure }); !errors.Is(err, failure) || tries != 1 {
		t.Errorf("when all is over: %d tries, %v", tries, err)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]bool{
		"job_123": true, "a@b.c": true, strings.Repeat("x", 128): true,
		"": false, "a:b": false, "a b": false, "*": false, "index": false, "é": false, "a\n": false, strings.Repeat("x", 129): false,
	} {
		if got := channels.IsID(id); got != want {
			t.Errorf("%q: %v", id, got)
		}
	}
	at := time.Date(2026, 11, 2, 13, 0, 0, 5_000_000, time.FixedZone("", 3600))
	if got := channels.Timestamp(at); got != "2026-11-02T12:00:00.005Z" {
		t.Errorf("the timestamp is %s", got)
	}
}

func TestComplaintsAreFew(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	complaints := channels.NewComplaints(slog.New(slog.NewTextHandler(&log, nil)))
	over, cancel := context.WithCancel(t.Context())
	cancel()
	complaints.Add(over, "could not any more", errors.New("no"))
	for range 1000 {
		complaints.Add(t.Context(), "could not", errors.New("no"))
		complaints.Add(t.Context(), "could not", nil)
	}
	if lines := strings.Count(log.String(), "\n"); lines != 1 || strings.Contains(log.String(), "any more") {
		t.Errorf("it told\n%s", &log)
	}
}
