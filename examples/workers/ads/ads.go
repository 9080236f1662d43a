// Package ads replays what advertising campaigns did, from a CSV file, as if it happened now: the
// seed's Google Ads service.
//
// What a campaign stands at is a state: campaign_metrics:CAMPAIGN is SET to the numbers of its
// newest period. Who opens a page has them at once, and nobody has to hear each of them.
// campaign_metrics:index is the state that lists the campaigns.
//
// The file is campaigns.csv, built into the program, or one of the user's own with the same
// columns:
//
//	time         start of the period, such as 2026-11-02T13:00:00Z, rising
//	campaign     the campaign's id, a part of a channel's name
//	impressions  how often it was shown in that period
//	clicks       how often it was clicked, at most impressions
//	conversions  how many of those who clicked bought, at most clicks
//	spend        what it cost
//	revenue      what it brought
//
// A line that is wrong is passed over, counted and told with its line and column.
package ads

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/millrace/millrace/examples/workers/channels"
)

//go:generate go run ./generate

//go:embed campaigns.csv
var campaigns []byte

// SpeedDefault makes an hour of the file a second.
const SpeedDefault = 3600

// indexPatience is for how long the index is tried to be written.
const indexPatience = 30 * time.Second

// Builtin reads the file that is built into the program.
func Builtin() *File {
	file, err := Read("campaigns.csv", bytes.NewReader(campaigns))
	if err != nil {
		panic(err) // the file is ours, and a test reads it
	}
	return file
}

// Options says how a file is replayed.
type Options struct {
	Publisher channels.Publisher
	// File is what is replayed. Nil: [Builtin].
	File *File
	// Speed is how many times as fast as it happened, more than 0. 0 means [SpeedDefault].
	Speed float64
	// Loops is how many times; 0 is until ctx is done.
	Loops int
	// Logger takes the worker's log lines. Nil: slog.Default().
	Logger *slog.Logger
}

// metrics is the value of campaign_metrics:CAMPAIGN. What can't be computed is left out: there is
// no price of a click where nobody clicked.
type metrics struct {
	Type        string   `json:"type"`
	CampaignID  string   `json:"campaignId"`
	Timestamp   string   `json:"timestamp"` // now
	Period      string   `json:"period"`    // the time in the file
	Impressions int      `json:"impressions"`
	Clicks      int      `json:"clicks"`
	Conversions int      `json:"conversions"`
	Spend       float64  `json:"spend"`
	Revenue     float64  `json:"revenue"`
	CTR         *float64 `json:"ctr,omitempty"`  // clicks of an impression
	CPC         *float64 `json:"cpc,omitempty"`  // spend of a click
	ROAS        *float64 `json:"roas,omitempty"` // revenue of what was spent
}

// metricsOf computes a campaign's state.
func metricsOf(row Row, now time.Time) metrics {
	return metrics{
		Type: "campaign_metrics", CampaignID: row.Campaign, Timestamp: channels.Timestamp(now),
		Period: row.Time.UTC().Format(time.RFC3339), Impressions: row.Impressions, Clicks: row.Clicks,
		Conversions: row.Conversions, Spend: row.Spend, Revenue: row.Revenue,
		CTR:  ratio(float64(row.Clicks), float64(row.Impressions), 5),
		CPC:  ratio(row.Spend, float64(row.Clicks), 4),
		ROAS: ratio(row.Revenue, row.Spend, 3),
	}
}

// ratio divides and rounds to a number of decimals; nil where that is not possible.
func ratio(above, below float64, decimals int) *float64 {
	if below == 0 {
		return nil
	}
	scale := math.Pow10(decimals)
	value := math.Round(above/below*scale) / scale
	if math.IsInf(value, 0) || math.IsNaN(value) {
		return nil
	}
	return &value
}

// Run replays the file until it was replayed Loops times or ctx is done. It returns an error only
// for options that are wrong: where a value does not arrive, the next one replaces it.
func Run(ctx context.Context, options Options) error {
	file := cmp.Or(options.File, Builtin())
	speed := cmp.Or(options.Speed, SpeedDefault)
	if !(speed > 0) || math.IsInf(speed, 0) {
		return fmt.Errorf("ads: a speed of %v is not possible: it must be more than 0", speed)
	}
	logger := cmp.Or(options.Logger, slog.Default())
	for _, problem := range file.Problems {
		logger.Warn("a row was passed over", "at", problem.String())
	}
	known := campaignsOf(file.Rows)
	logger.Info("ads replays", "campaigns", len(known), "rows", len(file.Rows), "bad", file.Bad, "speed", speed)
	replay := replay{publisher: options.Publisher, complaints: channels.NewComplaints(logger), rows: file.Rows, speed: speed}
	for loop := 0; options.Loops == 0 || loop < options.Loops; loop++ {
		replay.complaints.Add(ctx, "the index of campaigns could not be written", channels.Insist(ctx, indexPatience, func(ctx context.Context) error {
			return options.Publisher.Set(ctx, "campaign_metrics:"+channels.IndexID, channels.NewIndex(known))
		}))
		if replay.once(ctx); ctx.Err() != nil {
			return nil
		}
	}
	return nil
}

// campaignsOf lists the campaigns by name.
func campaignsOf(rows []Row) []string {
	var known []string
	for _, row := range rows {
		if place, found := slices.BinarySearch(known, row.Campaign); !found {
			known = slices.Insert(known, place, row.Campaign)
		}
	}
	return known
}

// replay is one file on its way.
type replay struct {
	publisher  channels.Publisher
	complaints *channels.Complaints
	rows       []Row
	speed      float64
}

// stepMin is the least time between two periods, also between the last of a loop and the first of
// the next: a file of one period does not spin.
const stepMin = 10 * time.Millisecond

// once replays all rows.
func (r *replay) once(ctx context.Context) {
	pause := stepMin
	for place, row := range r.rows {
		if place > 0 && row.Time.After(r.rows[place-1].Time) {
			// A pause that is too long for a Duration (centuries) ends with ctx.
			wanted := row.Time.Sub(r.rows[place-1].Time).Seconds() / r.speed
			pause = max(stepMin, time.Duration(min(wanted, 1e9)*float64(time.Second)))
			if !wait(ctx, pause) {
				return
			}
		}
		err := r.publisher.Set(ctx, "campaign_metrics:"+row.Campaign, metricsOf(row, time.Now()))
		r.complaints.Add(ctx, "the metrics of a campaign could not be written", err)
	}
	wait(ctx, pause)
}

// wait waits; false says that ctx is done.
func wait(ctx context.Context, pause time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(pause):
		return true
	}
}
