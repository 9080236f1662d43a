package ml

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/examples/workers/channels/channelstest"
	"github.com/millrace/millrace/internal/polltest"
)

// watching runs the worker on a Redis until the test ends.
func watching(t *testing.T, redis *channelstest.Redis, log *bytes.Buffer, users ...string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		err := Run(ctx, Options{Broker: redis, Users: users, Interval: 2 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(log, nil))})
		if err != nil {
			t.Error(err)
		}
	})
	stop = func() { cancel(); running.Wait() }
	t.Cleanup(stop)
	return stop
}

// looked waits until the worker has looked at all states once more: a look is two MGETs, of which
// the first may be under way.
func looked(t *testing.T, redis *channelstest.Redis) {
	t.Helper()
	before := redis.Calls("mget")
	polltest.Eventually(t, "a look", func() bool { return redis.Calls("mget") >= before+4 })
}

// campaign is a state that a test writes step by step.
type campaign struct {
	redis *channelstest.Redis
	id    string
	step  int
}

// show sets the next value, which trembles a little, and waits until it was looked at.
func (c *campaign) show(t *testing.T, ctr, cpc, roas float64) {
	t.Helper()
	c.step++
	tremble := 1 + 0.01*float64(c.step%5-2)
	c.redis.SetState("campaign_metrics:"+c.id, fmt.Sprintf(
		`{"type":"campaign_metrics","campaignId":%q,"timestamp":"step %d","ctr":%v,"cpc":%v,"roas":%v}`,
		c.id, c.step, ctr*tremble, cpc*tremble, roas*tremble))
	looked(t, c.redis)
}

// TestAlerts: who is alerted of what, once, in which words.
func TestAlerts(t *testing.T) {
	t.Parallel()
	redis := channelstest.Start(t)
	heard := redis.Hear("alerts:*")
	redis.SetState("campaign_metrics:index", `{"type":"index","ids":["camp_1","camp_none","bad:id"]}`)
	watching(t, redis, &bytes.Buffer{}, "ada", "bob")
	camp := campaign{redis: redis, id: "camp_1"}
	for range BandDefault.Warmup + 2 {
		camp.show(t, 0.034, 0.5, 2)
	}
	if alerts := heard.Events(); len(alerts) > 0 {
		t.Fatalf("alerted of nothing: %v", alerts)
	}
	for range 6 {
		camp.show(t, 0.013, 0.7, 3)
	}
	polltest.Eventually(t, "three alerts for two users", func() bool { return len(heard.Events()) >= 6 })
	camp.show(t, 0.013, 0.7, 3)
	alerts := heard.Events()
	if len(alerts) != 6 {
		t.Fatalf("%d alerts: %v", len(alerts), alerts)
	}
	var got []string
	for _, alert := range alerts {
		got = append(got, fmt.Sprint(alert.Channel, " ", alert.Text("metric"), " ", alert.Text("severity"), ": ", alert.Text("title")))
		if alert.Text("type") != "alert" || alert.Text("campaignId") != "camp_1" || alert.Text("timestamp") == "" || alert.Text("message") == "" {
			t.Errorf("the alert is %v", alert.Data)
		}
	}
	slices.Sort(got)
	want := []string{
		"alerts:ada cpc warning: Cost of a click of camp_1 rose", "alerts:ada ctr critical: Click rate of camp_1 fell",
		"alerts:ada roas info: Return on ad spend of camp_1 rose", "alerts:bob cpc warning: Cost of a click of camp_1 rose",
		"alerts:bob ctr critical: Click rate of camp_1 fell", "alerts:bob roas info: Return on ad spend of camp_1 rose",
	}
	if !slices.Equal(got, want) {
		t.Errorf("alerted\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	ids := make(map[string]int)
	for _, alert := range alerts {
		ids[alert.Text("id")]++
		if alert.Text("metric") == "ctr" && (alert.Number("expected") < 0.033 || alert.Number("expected") > 0.035 || alert.Number("value") > 0.014) {
			t.Errorf("the alert is %v", alert.Data)
		}
	}
	if len(ids) != 3 {
		t.Errorf("the ids are %v, want one for each of three alerts", ids)
	}
}

// TestValueIsJudgedOnce: a state that stays as it is says nothing new, however often it is read.
func TestValueIsJudgedOnce(t *testing.T) {
	t.Parallel()
	redis := channelstest.Start(t)
	heard := redis.Hear("alerts:*")
	redis.SetState("campaign_metrics:index", `{"type":"index","ids":["camp_1"]}`)
	watching(t, redis, &bytes.Buffer{}, "ada")
	camp := campaign{redis: redis, id: "camp_1"}
	for range BandDefault.Warmup + 2 {
		camp.show(t, 0.034, 0.5, 2)
	}
	camp.show(t, 0.001, 0.5, 2) // one wild sample, which is looked at again and again
	for range 3 {
		looked(t, redis)
	}
	if alerts := heard.Events(); len(alerts) > 0 {
		t.Errorf("alerted: %v", alerts)
	}
}

// TestStrangeStates: what is not understood is told and stops nothing.
func TestStrangeStates(t *testing.T) {
	t.Parallel()
	redis := channelstest.Start(t)
	heard := redis.Hear("alerts:*")
	var log bytes.Buffer
	stop := watching(t, redis, &log, "ada")
	for _, index := range []string{"nonsense", `{"type":"index"}`, `[]`, `{"type":"index","ids":["camp_1"]}`} {
		redis.SetState("campaign_metrics:index", index)
		looked := redis.Calls("mget")
		polltest.Eventually(t, "a look", func() bool { return redis.Calls("mget") > looked })
	}
	camp := campaign{redis: redis, id: "camp_1"}
	for _, value := range []string{"nonsense", "[]", "{}", `{"timestamp":1,"ctr":"high","cpc":null,"roas":{}}`} {
		redis.SetState("campaign_metrics:camp_1", value)
		looked(t, redis)
	}
	for range BandDefault.Warmup + 1 {
		camp.show(t, 0.034, 0.5, 2)
	}
	for range 3 {
		camp.show(t, 0.034, 5, 2)
	}
	polltest.Eventually(t, "an alert", func() bool { return len(heard.Events()) == 1 })
	stop()
	if !strings.Contains(log.String(), "invalid character") {
		t.Errorf("the log says nothing of it:\n%s", &log)
	}
}

func TestWrongOptions(t *testing.T) {
	t.Parallel()
	for _, options := range []Options{{Users: []string{"a:b"}}, {Users: []string{""}}, {Interval: -1}} {
		if err := Run(t.Context(), options); err == nil {
			t.Errorf("%+v is no error", options)
		}
	}
}

func TestRound(t *testing.T) {
	t.Parallel()
	for value, want := range map[float64]float64{0: 0, 0.0123456: 0.01235, 12345.6: 12350, -0.5: -0.5} {
		if got := round(value); fmt.Sprintf("%.9f", got) != fmt.Sprintf("%.9f", want) {
			t.Errorf("%v becomes %v, want %v", value, got, want)
		}
	}
}
