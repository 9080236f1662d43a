package ads

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/millrace/millrace/examples/workers/channels/channelstest"
	"github.com/millrace/millrace/internal/polltest"
)

const header = "time,campaign,impressions,clicks,conversions,spend,revenue\n"

// TestBuiltin: the file that is built in is whole.
func TestBuiltin(t *testing.T) {
	t.Parallel()
	file := Builtin()
	if len(file.Rows) != 360 || file.Bad != 0 {
		t.Errorf("%d rows, %d bad ones: %v", len(file.Rows), file.Bad, file.Problems)
	}
	if got := fmt.Sprint(campaignsOf(file.Rows)); got != "[camp_123 camp_456 camp_789]" {
		t.Errorf("the campaigns are %s", got)
	}
}

func TestReadRow(t *testing.T) {
	t.Parallel()
	file, err := Read("x.csv", strings.NewReader(header+"2026-11-02T13:00:00+01:00,camp_1,1000,20,3,12.50,99\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := Row{
		Time: time.Date(2026, 11, 2, 12, 0, 0, 0, time.UTC), Campaign: "camp_1",
		Impressions: 1000, Clicks: 20, Conversions: 3, Spend: 12.5, Revenue: 99,
	}
	got := file.Rows[0]
	if !got.Time.Equal(want.Time) {
		t.Errorf("the time is %v", got.Time)
	}
	if got.Time = want.Time; got != want {
		t.Errorf("the row is %+v", got)
	}
}

// TestBadRows: each bad line is passed over and told with its place; the good ones around it stay.
func TestBadRows(t *testing.T) {
	t.Parallel()
	const good = "2026-11-02T13:00:00Z,camp_1,1000,20,3,12.50,99\n"
	for _, test := range []struct{ name, line, want string }{
		{"no time", "yesterday,camp_1,1,1,1,1,1", `x.csv:3:1: time: "yesterday" is not like 2026-11-02T13:00:00Z`},
		{"a time that goes back", "2026-11-02T12:00:00Z,camp_1,1,1,1,1,1", "x.csv:3:1: time: goes back; rows must be in the order of their times"},
		{"no campaign", "2026-11-02T13:00:00Z,,1,1,1,1,1", `x.csv:3:22: campaign: "" can't be in a channel's name`},
		{"a campaign of two parts", "2026-11-02T13:00:00Z,a:b,1,1,1,1,1", `x.csv:3:22: campaign: "a:b" can't be in a channel's name`},
		{"the index's id", "2026-11-02T13:00:00Z,index,1,1,1,1,1", `x.csv:3:22: campaign: "index" can't be in a channel's name`},
		{"no number", "2026-11-02T13:00:00Z,camp_1,12a,1,1,1,1", `x.csv:3:29: impressions: "12a" is not a whole number from 0 on`},
		{"half a click", "2026-11-02T13:00:00Z,camp_1,12,1.5,1,1,1", `x.csv:3:32: clicks: "1.5" is not a whole number from 0 on`},
		{"less than none", "2026-11-02T13:00:00Z,camp_1,12,1,-1,1,1", `x.csv:3:34: conversions: "-1" is not a whole number from 0 on`},
		{"more clicks than were shown", "2026-11-02T13:00:00Z,camp_1,12,13,1,1,1", "x.csv:3:32: clicks: 13 are more than the 12 impressions"},
		{"more bought than clicked", "2026-11-02T13:00:00Z,camp_1,12,1,2,1,1", "x.csv:3:34: conversions: 2 are more than the 1 clicks"},
		{"no amount", "2026-11-02T13:00:00Z,camp_1,12,1,1,NaN,1", `x.csv:3:36: spend: "NaN" is not an amount from 0 on`},
		{"an endless amount", "2026-11-02T13:00:00Z,camp_1,12,1,1,1,+Inf", `x.csv:3:38: revenue: "+Inf" is not an amount from 0 on`},
		{"a field too few", "2026-11-02T13:00:00Z,camp_1,12,1,1,1", "x.csv:3:1: has 6 fields instead of 7"},
		{"a field too many", "2026-11-02T13:00:00Z,camp_1,12,1,1,1,1,1", "x.csv:3:1: has 8 fields instead of 7"},
		{"a quote inside a field", `2026-11-02T13:00:00Z,camp"1,12,1,1,1,1`, `x.csv:3:26: bare " in non-quoted-field`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			file, err := Read("x.csv", strings.NewReader(header+good+test.line+"\n"+good))
			if err != nil {
				t.Fatal(err)
			}
			if len(file.Rows) != 2 || file.Bad != 1 || len(file.Problems) != 1 || file.Problems[0].String() != test.want {
				t.Errorf("%d rows, %d bad: %v\nwant %s", len(file.Rows), file.Bad, file.Problems, test.want)
			}
		})
	}
}

func TestBadFiles(t *testing.T) {
	t.Parallel()
	broken := errors.New("the disk is broken")
	for _, test := range []struct {
		name string
		file io.Reader
		want string
	}{
		{"empty", strings.NewReader(""), "x.csv:1:1: the file is empty"},
		{"another header", strings.NewReader("a,b\n"), "x.csv:1:1: the first line must be time,campaign,"},
		{"only a header", strings.NewReader(header), "x.csv: has no good row (0 bad ones)"},
		{"only bad rows", strings.NewReader(header + "a\nb\n"), "x.csv: has no good row (2 bad ones); the first: x.csv:2:1: has 1 fields"},
		{"too long", io.MultiReader(strings.NewReader(header), strings.NewReader(strings.Repeat("2026-11-02T13:00:00Z,c,1,1,1,1,1\n", rowsMax+1))), "x.csv: has more than 100000 rows"},
		{"unreadable", io.MultiReader(strings.NewReader(header), iotest.ErrReader(broken)), "x.csv: the disk is broken"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if _, err := Read("x.csv", test.file); err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// TestProblemsAreBounded: of many bad lines all are counted and some are told.
func TestProblemsAreBounded(t *testing.T) {
	t.Parallel()
	file, err := Read("x.csv", strings.NewReader(header+"2026-11-02T13:00:00Z,c,1,1,1,1,1\n"+strings.Repeat("bad\n", 1000)))
	if err != nil || file.Bad != 1000 || len(file.Problems) != problemsMax {
		t.Errorf("%d bad, %d told, %v", file.Bad, len(file.Problems), err)
	}
}

// FuzzRead: no file breaks the reader, and what it takes can be replayed.
func FuzzRead(f *testing.F) {
	f.Add(header + "2026-11-02T13:00:00Z,camp_1,1000,20,3,12.50,99\n")
	f.Add(header + "\"\n,,,\n")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := Read("x.csv", strings.NewReader(text))
		if err != nil {
			return
		}
		for _, row := range file.Rows {
			state := metricsOf(row, time.Now())
			if row.Clicks > row.Impressions || state.CTR != nil && !(*state.CTR >= 0 && *state.CTR <= 1) {
				t.Fatalf("impossible: %+v", row)
			}
		}
	})
}

// TestMetrics: what is computed, and what can't be.
func TestMetrics(t *testing.T) {
	t.Parallel()
	state := metricsOf(Row{Campaign: "c", Impressions: 3000, Clicks: 100, Conversions: 4, Spend: 40, Revenue: 100}, time.Now())
	if *state.CTR != 0.03333 || *state.CPC != 0.4 || *state.ROAS != 2.5 {
		t.Errorf("ctr %v, cpc %v, roas %v", *state.CTR, *state.CPC, *state.ROAS)
	}
	state = metricsOf(Row{Campaign: "c"}, time.Now())
	if state.CTR != nil || state.CPC != nil || state.ROAS != nil {
		t.Errorf("of nothing: %+v", state)
	}
	state = metricsOf(Row{Campaign: "c", Spend: 5e-324, Revenue: 1e300}, time.Now())
	if state.ROAS != nil {
		t.Errorf("an endless return: %v", *state.ROAS)
	}
}

// TestReplay: states and their index, at the speed that was asked for, as often as was asked for.
func TestReplay(t *testing.T) {
	t.Parallel()
	redis := channelstest.Start(t)
	file, err := Read("x.csv", strings.NewReader(header+
		"2026-11-02T13:00:00Z,camp_2,1000,20,3,12.50,99\n2026-11-02T13:00:00Z,camp_1,1000,20,3,12.50,99\nbad\n"+
		"2026-11-02T14:00:00Z,camp_2,2000,30,3,12.50,99\n2026-11-02T15:00:00Z,camp_2,3000,0,0,0,0\n"))
	if err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	err = Run(t.Context(), Options{Publisher: redis, File: file, Speed: 36_000, Loops: 2, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	// Two hours at ten a second, and the step to the next loop, twice.
	if took := time.Since(started); took < 600*time.Millisecond {
		t.Errorf("it took %v", took)
	}
	if index, _ := redis.State("campaign_metrics:index"); fmt.Sprint(index.Data) != "map[ids:[camp_1 camp_2] type:index]" {
		t.Errorf("the index is %v", index.Data)
	}
	first, _ := redis.State("campaign_metrics:camp_1")
	for field, want := range map[string]any{
		"type": "campaign_metrics", "campaignId": "camp_1", "period": "2026-11-02T13:00:00Z", "impressions": 1000.0, "clicks": 20.0,
		"conversions": 3.0, "spend": 12.5, "revenue": 99.0, "ctr": 0.02, "cpc": 0.625, "roas": 7.92,
	} {
		if first.Data[field] != want {
			t.Errorf("%s is %v, want %v", field, first.Data[field], want)
		}
	}
	if at, err := time.Parse(time.RFC3339, first.Text("timestamp")); err != nil || time.Since(at) > time.Hour {
		t.Errorf("the timestamp is %v, %v", at, err)
	}
	last, _ := redis.State("campaign_metrics:camp_2")
	if _, found := last.Data["ctr"]; last.Number("impressions") != 3000 || last.Data["ctr"] != 0.0 || !found {
		t.Errorf("the newest state is %v", last.Data)
	}
	if _, found := last.Data["cpc"]; found {
		t.Errorf("a click that nobody made has a price: %v", last.Data)
	}
}

// TestReplayEnds with its context, also in a pause of centuries; and says what can't be.
func TestReplayEnds(t *testing.T) {
	t.Parallel()
	redis := channelstest.Start(t)
	file, err := Read("x.csv", strings.NewReader(header+"0001-01-01T00:00:00Z,c,1,1,1,1,1\n9999-01-01T00:00:00Z,c,1,1,1,1,1\n"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, Options{Publisher: redis, File: file, Speed: 1e-9}) }()
	polltest.Eventually(t, "the first state", func() bool { _, found := redis.State("campaign_metrics:c"); return found })
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(channelstest.Patience):
		t.Fatal("it did not end")
	}
	if err := Run(t.Context(), Options{Publisher: redis, File: file, Speed: -1}); err == nil {
		t.Error("a speed of -1 is no error")
	}
}
