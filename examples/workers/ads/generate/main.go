// Command generate writes campaigns.csv, the metrics of three invented campaigns over five days,
// an hour a row. People come and go with the hour of the day; how many of them click and buy, and
// what a click costs, only trembles, but for a few incidents, which the worker ml is to find. The
// numbers are the same on each run: they come from one seed.
//
// Run it by `go generate ./examples/workers/ads`.
package main

import (
	"fmt"
	"log"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"time"
)

const hours = 5 * 24

// campaign is how one campaign does on an average day.
type campaign struct {
	id          string
	impressions float64 // an hour, on the average
	ctr         float64 // clicks of an impression
	rate        float64 // conversions of a click
	cpc         float64 // what a click costs
	basket      float64 // what a conversion brings
	incidents   []incident
}

// incident is a time at which a campaign does otherwise.
type incident struct {
	from, hours            int
	ctr, rate, cpc, basket float64 // factors, 0 is 1
}

var all = []campaign{
	{id: "camp_123", impressions: 42_000, ctr: 0.021, rate: 0.050, cpc: 0.62, basket: 48, incidents: []incident{
		{from: 16, hours: 9, cpc: 2.2}, // a competitor outbids us
	}},
	{id: "camp_456", impressions: 65_000, ctr: 0.034, rate: 0.038, cpc: 0.41, basket: 39, incidents: []incident{
		{from: 48, hours: 8, ctr: 0.45}, // the picture does not load
		{from: 92, hours: 6, rate: 0.3}, // the shop's checkout fails
	}},
	{id: "camp_789", impressions: 30_000, ctr: 0.016, rate: 0.062, cpc: 0.95, basket: 71, incidents: []incident{
		{from: 76, hours: 7, ctr: 1.8}, // somebody famous speaks of it
	}},
}

func main() {
	if err := os.WriteFile("campaigns.csv", []byte(generate()), 0o644); err != nil {
		log.Fatal(err)
	}
}

// generate gives the whole file.
func generate() string {
	random := rand.New(rand.NewPCG(20_261_102, 7))
	start := time.Date(2026, time.November, 2, 0, 0, 0, 0, time.UTC)
	var file strings.Builder
	file.WriteString("time,campaign,impressions,clicks,conversions,spend,revenue\n")
	for hour := range hours {
		for _, c := range all {
			file.WriteString(c.row(random, start, hour))
		}
	}
	return file.String()
}

// row gives one line.
func (c *campaign) row(random *rand.Rand, start time.Time, hour int) string {
	// The night has under half of the day's people.
	tide := 1 - 0.45*math.Cos(2*math.Pi*float64(hour-3)/24)
	tremble := func(share float64) float64 { return 1 + share*max(-2.5, min(2.5, random.NormFloat64())) }
	ctr, rate, cpc, basket := c.ctr*tremble(0.04), c.rate*tremble(0.05), c.cpc*tremble(0.04), c.basket*tremble(0.04)
	for _, incident := range c.incidents {
		if hour >= incident.from && hour < incident.from+incident.hours {
			ctr *= factor(incident.ctr)
			rate *= factor(incident.rate)
			cpc *= factor(incident.cpc)
			basket *= factor(incident.basket)
		}
	}
	impressions := math.Round(c.impressions * tide * tremble(0.03))
	clicks := math.Round(impressions * ctr)
	conversions := math.Round(clicks * rate)
	return fmt.Sprintf("%s,%s,%.0f,%.0f,%.0f,%.2f,%.2f\n", start.Add(time.Duration(hour)*time.Hour).Format(time.RFC3339),
		c.id, impressions, clicks, conversions, clicks*cpc, conversions*basket)
}

// factor is 1 where none is given.
func factor(given float64) float64 {
	if given == 0 {
		return 1
	}
	return given
}
