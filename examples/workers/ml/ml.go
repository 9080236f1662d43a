// Package ml watches what campaigns stand at and alerts people when a metric leaves its band: the
// seed's ML service.
//
// It reads campaign_metrics:index and the states that it lists, a few times a second by one MGET,
// and gives each campaign's metrics to a [Detector] of their own. An alert is published on
// alerts:USER for each user, which every stream of that user hears without asking.
//
// # Why it polls
//
// Redis can tell when a key has changed: by keyspace notifications, which are off in most servers
// and are lost while a client reconnects, or by client tracking, which the gateway itself uses.
// Tracking is worth its machinery where thousands of keys change seldom and somebody waits for
// each change. Here a handful of keys change all the time, a detector wants even steps rather than
// speed, and one MGET an interval has no state to lose: after an outage the next one is as good as
// any. A value that was replaced between two looks is missed, as the mode state promises no more.
package ml

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/millrace/millrace/examples/workers/channels"
)

const (
	// IntervalDefault is the time between two looks.
	IntervalDefault = 500 * time.Millisecond
	// campaignsMax is how many campaigns of the index are watched.
	campaignsMax = 100
	// alertPatience is for how long an alert is tried to be published.
	alertPatience = 30 * time.Second
	// criticalShare is by which share of itself a metric must have changed to be critical.
	criticalShare = 0.5
)

// metric is one that is watched.
type metric struct {
	key   string // in the state
	name  string // in words
	badUp bool   // more of it is bad
	write func(value float64) string
}

var watched = []metric{
	{key: "ctr", name: "Click rate", write: func(value float64) string { return fmt.Sprintf("%.2f %%", 100*value) }},
	{key: "cpc", name: "Cost of a click", badUp: true, write: func(value float64) string { return fmt.Sprintf("%.2f", value) }},
	{key: "roas", name: "Return on ad spend", write: func(value float64) string { return fmt.Sprintf("%.2f", value) }},
}

// Options says who is watched for whom.
type Options struct {
	Broker channels.Broker
	// Users are the ids of those who are alerted.
	Users []string
	// Interval is the time between two looks. 0 means [IntervalDefault].
	Interval time.Duration
	// Band is when a metric is outside. Zero means [BandDefault].
	Band Band
	// Logger takes the worker's log lines. Nil: slog.Default().
	Logger *slog.Logger
}

// alert is an event of alerts:USER.
type alert struct {
	Type       string  `json:"type"`
	ID         string  `json:"id"`       // the same for every user
	Severity   string  `json:"severity"` // info, warning, critical
	Title      string  `json:"title"`
	Message    string  `json:"message"`
	CampaignID string  `json:"campaignId"`
	Metric     string  `json:"metric"`
	Value      float64 `json:"value"`
	Expected   float64 `json:"expected"`
	Timestamp  string  `json:"timestamp"`
}

// watch is what is known of one campaign.
type watch struct {
	timestamp string // of the value that was judged last
	detectors []*Detector
}

// service watches all campaigns.
type service struct {
	options    Options
	logger     *slog.Logger
	complaints *channels.Complaints
	campaigns  map[string]*watch
}

// Run watches until ctx is done. It returns an error only for options that are wrong; while
// states can't be read, it goes on trying.
func Run(ctx context.Context, options Options) error {
	for _, user := range options.Users {
		if !channels.IsID(user) {
			return fmt.Errorf("ml: %.40q can't be a user's id", user)
		}
	}
	if options.Interval < 0 {
		return fmt.Errorf("ml: an interval of %v is not possible", options.Interval)
	}
	logger := cmp.Or(options.Logger, slog.Default())
	s := &service{
		options: options, logger: logger, complaints: channels.NewComplaints(logger), campaigns: make(map[string]*watch),
	}
	logger.Info("ml watches", "users", options.Users)
	tick := time.NewTicker(cmp.Or(options.Interval, IntervalDefault))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		s.complaints.Add(ctx, "the metrics of campaigns could not be read", s.look(ctx))
	}
}

// look reads all campaigns once.
func (s *service) look(ctx context.Context) error {
	ids, err := s.list(ctx)
	if err != nil || len(ids) == 0 {
		return err
	}
	states := make([]string, len(ids))
	for place, id := range ids {
		states[place] = "campaign_metrics:" + id
	}
	values, err := s.options.Broker.Get(ctx, states...)
	if err != nil {
		return err
	}
	for id := range s.campaigns {
		if !slices.Contains(ids, id) {
			delete(s.campaigns, id)
		}
	}
	for place, id := range ids {
		if values[place] == nil {
			continue
		}
		if err := s.judge(ctx, id, values[place]); err != nil {
			s.complaints.Add(ctx, "the metrics of a campaign are not understood", fmt.Errorf("%s: %w", id, err))
		}
	}
	return nil
}

// list reads which campaigns there are.
func (s *service) list(ctx context.Context) ([]string, error) {
	values, err := s.options.Broker.Get(ctx, "campaign_metrics:"+channels.IndexID)
	if err != nil || values[0] == nil {
		return nil, err
	}
	var index channels.Index
	if err := json.Unmarshal(values[0], &index); err != nil {
		return nil, fmt.Errorf("campaign_metrics:index: %w", err)
	}
	ids := slices.DeleteFunc(index.IDs, func(id string) bool { return !channels.IsID(id) })
	return ids[:min(len(ids), campaignsMax)], nil
}

// judge looks at a campaign's state, and alerts where a metric has left its band.
func (s *service) judge(ctx context.Context, id string, value []byte) error {
	var state map[string]any
	if err := json.Unmarshal(value, &state); err != nil {
		return err
	}
	timestamp, _ := state["timestamp"].(string)
	known := s.campaigns[id]
	if known == nil {
		known = &watch{}
		for range watched {
			known.detectors = append(known.detectors, NewDetector(s.options.Band))
		}
		s.campaigns[id] = known
	}
	if timestamp == known.timestamp {
		return nil // has been judged
	}
	known.timestamp = timestamp
	for place, metric := range watched {
		number, found := state[metric.key].(float64)
		if !found {
			continue
		}
		if excursion, outside := known.detectors[place].Add(number); outside {
			s.alert(ctx, alertOf(id, metric, excursion, time.Now()))
		}
	}
	return nil
}

// alertOf words an alert.
func alertOf(campaign string, metric metric, seen Excursion, now time.Time) alert {
	verb, up := "fell", seen.Value > seen.Expected
	if up {
		verb = "rose"
	}
	severity := "info" // it is outside, on the good side
	if up == metric.badUp {
		severity = "warning"
		if math.Abs(seen.Value-seen.Expected) >= criticalShare*math.Abs(seen.Expected) {
			severity = "critical"
		}
	}
	return alert{
		Type: "alert", ID: fmt.Sprintf("%s-%s-%d", campaign, metric.key, now.UnixMilli()), Severity: severity,
		Title: fmt.Sprintf("%s of %s %s", metric.name, campaign, verb),
		Message: fmt.Sprintf("%s is %s, expected about %s (%s to %s).", metric.name, metric.write(seen.Value),
			metric.write(seen.Expected), metric.write(max(0, seen.Low)), metric.write(seen.High)),
		CampaignID: campaign, Metric: metric.key, Value: seen.Value, Expected: round(seen.Expected), Timestamp: channels.Timestamp(now),
	}
}

// round gives four digits, as many as anybody reads.
func round(value float64) float64 {
	if value == 0 {
		return 0
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(value))))
	return math.Round(value*scale) / scale
}

// alert publishes to every user.
func (s *service) alert(ctx context.Context, alert alert) {
	s.logger.Debug("a metric left its band", "campaign", alert.CampaignID, "metric", alert.Metric, "severity", alert.Severity)
	for _, user := range s.options.Users {
		s.complaints.Add(ctx, "an alert could not be published", channels.Insist(ctx, alertPatience, func(ctx context.Context) error {
			return s.options.Broker.Publish(ctx, "alerts:"+user, alert)
		}))
	}
}
