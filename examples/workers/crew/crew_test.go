package crew

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/examples/workers/channels/channelstest"
	"github.com/millrace/millrace/examples/workers/titancore"
	"github.com/millrace/millrace/internal/polltest"
)

// TestAll: the three workers on one Redis: a render ends, campaigns have their states, and the
// incidents of the file that is built in alert the users, each once.
func TestAll(t *testing.T) {
	t.Parallel()
	redis := channelstest.Start(t)
	heard := redis.Hear("alerts:*")
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		// A loop of the file takes 6 s.
		err := Run(ctx, Options{
			Broker: redis, Users: []string{"ada", "bob"}, Speed: 72_000, Renderer: &titancore.Sketch{}, Period: time.Hour,
			Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Error(err)
		}
	})
	defer running.Wait()
	defer cancel()
	polltest.Eventually(t, "a finished job", func() bool {
		log := redis.Log("job_progress:job_123")
		return len(log) > 0 && log[len(log)-1].Text("status") == "complete"
	})
	polltest.Eventually(t, "the campaigns' index", func() bool { _, found := redis.State("campaign_metrics:index"); return found })
	for _, state := range []string{"campaign_metrics:camp_123", "campaign_metrics:camp_456", "campaign_metrics:camp_789", "jobs:index"} {
		polltest.Eventually(t, state, func() bool { _, found := redis.State(state); return found })
	}
	for _, incident := range []string{"camp_456 ctr", "camp_123 cpc", "camp_789 ctr", "camp_456 roas"} {
		polltest.Eventually(t, "an alert about "+incident, func() bool {
			users := make(map[string]bool)
			for _, alert := range heard.Events() {
				if alert.Text("campaignId")+" "+alert.Text("metric") == incident {
					users[alert.Channel] = true
				}
			}
			return users["alerts:ada"] && users["alerts:bob"] && len(users) == 2
		})
	}
}

func TestUnknownWorker(t *testing.T) {
	t.Parallel()
	err := Run(t.Context(), Options{Workers: []string{"ads", "vhs"}})
	if err == nil || !strings.Contains(err.Error(), `"vhs"`) || !strings.Contains(err.Error(), "titancore, ads, ml") {
		t.Errorf("the error is %v", err)
	}
}

// TestOneThatCannotGoOn stops the others, and says why.
func TestOneThatCannotGoOn(t *testing.T) {
	t.Parallel()
	redis := channelstest.Start(t)
	err := Run(t.Context(), Options{Broker: redis, Users: []string{"not:one"}, Renderer: &titancore.Sketch{}, Logger: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "not:one") {
		t.Errorf("the error is %v", err)
	}
}

func TestInterval(t *testing.T) {
	t.Parallel()
	for speed, want := range map[float64]time.Duration{
		0: 500 * time.Millisecond, 3600: 500 * time.Millisecond, 36_000: 50 * time.Millisecond, 1: 500 * time.Millisecond, 1e12: 5 * time.Millisecond,
	} {
		if got := (&Options{Speed: speed}).interval(); got != want {
			t.Errorf("at speed %v: %v, want %v", speed, got, want)
		}
	}
}
