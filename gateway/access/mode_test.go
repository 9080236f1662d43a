package access

import (
	"strings"
	"testing"
	"time"
)

// TestModeSettings: what belongs to another mode is refused by its name, with what to do.
func TestModeSettings(t *testing.T) {
	long := strings.Repeat("x", fieldBytesMax+1)
	for name, test := range map[string]struct {
		namespace Namespace
		want      []string // beginnings, behind "namespaces.a."
	}{
		"events with everything": {Namespace{
			Replay: Replay{Size: new(ReplaySizeMax), TTL: ReplayTTLMax}, IDField: "uuid", Throttle: PaceMin, Conflate: true,
			ConflateBy: "jobId", Wildcard: true, LocalFirst: true,
		}, nil},
		"batch":                {Namespace{Mode: Events, Batch: PaceMax, Sharded: true}, nil},
		"log":                  {Namespace{Mode: Log, MaxLen: new(0)}, nil},
		"state":                {Namespace{Mode: State, Throttle: 100 * time.Millisecond}, nil},
		"log, throttle":        {Namespace{Mode: Log, Throttle: time.Second}, []string{"throttle: not with mode log"}},
		"log, batch":           {Namespace{Mode: Log, Batch: time.Second}, []string{"batch: only with mode events"}},
		"log, conflate":        {Namespace{Mode: Log, Conflate: true, ConflateBy: "x"}, []string{"conflate: only with mode events", "conflate_by: only with mode events"}},
		"log, replay":          {Namespace{Mode: Log, Replay: Replay{TTL: time.Second}}, []string{"replay: only with mode events"}},
		"state, no replay":     {Namespace{Mode: State, Replay: Replay{Size: new(0)}}, []string{"replay: only with mode events"}},
		"state, id":            {Namespace{Mode: State, IDField: "x"}, []string{"id_field: only with mode events"}},
		"state, wildcard":      {Namespace{Mode: State, Wildcard: true}, []string{"wildcard: not with mode state"}},
		"state, sharded":       {Namespace{Mode: State, Sharded: true}, []string{"sharded: not with mode state"}},
		"log, local first":     {Namespace{Mode: Log, LocalFirst: true}, []string{"local_first: not with mode log"}},
		"events, maxlen":       {Namespace{MaxLen: new(1)}, []string{"maxlen: only with mode log"}},
		"state, maxlen":        {Namespace{Mode: State, MaxLen: new(1)}, []string{"maxlen: only with mode log"}},
		"maxlen, negative":     {Namespace{Mode: Log, MaxLen: new(-1)}, []string{"maxlen: -1 is not possible"}},
		"maxlen, enormous":     {Namespace{Mode: Log, MaxLen: new(MaxLenMax + 1)}, []string{"maxlen: 1000000001 is not possible"}},
		"replay, out of range": {Namespace{Replay: Replay{Size: new(ReplaySizeMax + 1), TTL: ReplayTTLMax + 1}}, []string{"replay.size: 4097 is not possible", "replay.ttl: 1h0m0.000000001s is not possible"}},
		"replay, negative":     {Namespace{Replay: Replay{Size: new(-1), TTL: -1}}, []string{"replay.size: -1 is not possible", "replay.ttl: -1ns is not possible"}},
		"throttle, negative":   {Namespace{Throttle: -1}, []string{"throttle: -1ns is not possible"}},
		"throttle, no unit":    {Namespace{Throttle: 100}, []string{"throttle: 100ns is not possible; use 1ms to 1m0s"}},
		"batch, an hour":       {Namespace{Batch: time.Hour}, []string{"batch: 1h0m0s is not possible"}},
		"throttle and batch":   {Namespace{Throttle: time.Second, Batch: time.Second}, []string{"batch: not with throttle"}},
		"compression":          {Namespace{Mode: Log, Compress: new(true), CompressOver: new(0)}, nil},
		"over less than none":  {Namespace{CompressOver: new(-1)}, []string{"compress_over: -1 is not possible"}},
		"over the bound":       {Namespace{CompressOver: new(CompressOverMax + 1)}, []string{"compress_over: 67108865 is not possible"}},
		"conflate_by alone":    {Namespace{ConflateBy: "jobId"}, []string{"conflate_by: has no effect without conflate"}},
		"names too long":       {Namespace{IDField: long, Conflate: true, ConflateBy: long}, []string{"id_field: has 129 bytes", "conflate_by: has 129 bytes"}},
		"no mode":              {Namespace{Mode: "queue", MaxLen: new(1), Wildcard: true}, []string{`mode: "queue" is not known; use one of events, log, state`}},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.namespace.Validate("a")
			if test.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			for i := range test.want {
				test.want[i] = "namespaces.a." + test.want[i]
			}
			wantSettings(t, err, test.want...)
		})
	}
}

// TestModeDefaults: a policy's namespaces say all that was left out, and share nothing with what
// was configured.
func TestModeDefaults(t *testing.T) {
	size := 7
	policy := newPolicy(t, Options{Namespaces: map[string]Namespace{
		"log": {Mode: Log}, "unbounded": {Mode: Log, MaxLen: new(0)}, "state": {Mode: State}, "off": {Replay: Replay{Size: new(0)}},
		"some": {Replay: Replay{Size: &size, TTL: time.Minute}}, DefaultType: {},
	}})
	size = 8
	for name, want := range map[string]struct {
		mode         Mode
		replay, most int // -1: none
		ttl          time.Duration
	}{
		"log": {Log, -1, MaxLenDefault, 0}, "unbounded": {Log, -1, 0, 0}, "state": {State, -1, -1, 0},
		"off": {Events, 0, -1, ReplayTTLDefault}, "some": {Events, 7, -1, time.Minute}, "any other": {Events, ReplaySizeDefault, -1, ReplayTTLDefault},
	} {
		t.Run(name, func(t *testing.T) {
			got := policy.Namespace(name)
			if got.Mode != want.mode || orNone(got.Replay.Size) != want.replay || orNone(got.MaxLen) != want.most || got.Replay.TTL != want.ttl {
				t.Fatalf("mode %s, replay %d for %v, maxlen %d; want %+v", got.Mode, orNone(got.Replay.Size), got.Replay.TTL, orNone(got.MaxLen), want)
			}
		})
	}
}

func orNone(number *int) int {
	if number == nil {
		return -1
	}
	return *number
}

func TestDemoHasEveryMode(t *testing.T) {
	for demo, want := range map[bool][4]Mode{false: {Events, Events, Events, Events}, true: {State, Log, Events, State}} {
		policy := newPolicy(t, Options{Demo: demo})
		got := [4]Mode{
			policy.Namespace("campaign_metrics").Mode, policy.Namespace("job_progress").Mode, policy.Namespace("alerts").Mode, policy.Namespace("jobs").Mode,
		}
		if got != want || len(policy.PersonalChannels("ada")) != 1 {
			t.Errorf("demo %v: modes %v, want %v", demo, got, want)
		}
	}
	configured := newPolicy(t, Options{Demo: true, Namespaces: map[string]Namespace{"job_progress": {}}})
	if got := configured.Namespace("job_progress").Mode; got != Events {
		t.Errorf("what is configured became %s", got)
	}
}
