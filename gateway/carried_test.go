package gateway

import (
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/netio/handoff"
	"github.com/millrace/millrace/proto"
)

// wholeStream has everything that a stream can have.
func wholeStream() *carriedStream {
	return &carriedStream{
		id: netio.ID(1<<56 | 7<<32 | 42), user: "456", grants: string((&auth.Identity{User: "456", Admin: true}).AppendGrants(nil, false)),
		address: "\x7f\x00\x00\x02", aged: true, expires: 90_000, minute: 17, unread: []byte{0x81, 0x85},
		unsent:   []carriedFrame{{number: 9, taken: 3}, {number: 10}},
		queueAge: 1500 * time.Millisecond, queueSilent: 200 * time.Millisecond,
		trail: carriedTrail{spliced: true, sum: 1 << 31, length: 77},
		heard: 80_000, pinged: 80_100, lastWrite: 80_200, pace: 2_000_000,
		hub: hub.Carried{
			Form: proto.FormEnvelope, HadLog: true, Base: 1 << 40,
			Subscriptions: []hub.CarriedSubscription{
				{Channel: "news:all", Confirmed: true},
				{Channel: "news:*", Kind: broker.Pattern, Confirmed: true, State: hub.CarriedDropping, After: broker.Position{Milliseconds: 77}},
				{Channel: "state:1", Kind: broker.State, Confirmed: true, State: hub.CarriedNewest},
				{
					Channel: "log:1:2", Kind: broker.Log, Confirmed: true, State: hub.CarriedReading,
					After: broker.Position{Milliseconds: 1, Sequence: 2}, Owed: true, Reason: proto.GapTrimmed,
					From:  hub.From{Kind: hub.FromEntry, Position: broker.Position{Milliseconds: 3, Sequence: 4}, Horizon: 5, Order: 6, Value: "v", Text: "t"},
					Count: 8, Unsure: true, Due: broker.Position{Milliseconds: 9, Sequence: 10},
				},
				{Channel: "asked:1", From: hub.From{Kind: hub.FromBeginning, Horizon: 1, Text: "0"}},
			},
		},
	}
}

// TestStreamsComeBack also notices a field that somebody added and forgot to write: whatever is zero in
// wholeStream could be lost.
func TestStreamsComeBack(t *testing.T) {
	for name, stream := range map[string]*carriedStream{
		"all there can be": wholeStream(),
		"an anonymous one": {id: 1 << 32, hub: hub.Carried{Form: proto.FormSSE}},
	} {
		back, err := parseStream(stream.appendMoving(stream.appendLasting(nil)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(stream, back, cmp.AllowUnexported(carriedStream{}, carriedFrame{}, carriedTrail{})); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	whole := reflect.ValueOf(*wholeStream())
	for i := range whole.NumField() {
		if whole.Field(i).IsZero() {
			t.Errorf("the test does not set %s", whole.Type().Field(i).Name)
		}
	}
}

// TestWhatMovesIsNoChange: a stream that merely is alive is not told again.
func TestWhatMovesIsNoChange(t *testing.T) {
	one, other := wholeStream(), wholeStream()
	other.heard, other.pinged, other.lastWrite, other.pace = 1, 2, 3, 4
	if string(one.appendLasting(nil)) != string(other.appendLasting(nil)) {
		t.Error("it would be told again")
	}
	other.hub.Subscriptions[0].Confirmed = false
	if string(one.appendLasting(nil)) == string(other.appendLasting(nil)) {
		t.Error("a subscription that is no longer confirmed would not be told")
	}
}

// TestNumbersThatAreTold holds what other versions know these by.
func TestNumbersThatAreTold(t *testing.T) {
	for name, number := range map[string][2]int{
		"FormSSE": {int(proto.FormSSE), 0}, "FormSSEPlain": {int(proto.FormSSEPlain), 1}, "FormText": {int(proto.FormText), 2}, "FormEnvelope": {int(proto.FormEnvelope), 3},
		"FormSSEGzip": {int(proto.FormSSEGzip), 6}, "FormSSEPlainGzip": {int(proto.FormSSEPlainGzip), 7},
		"FormTextDeflate": {int(proto.FormTextDeflate), 10}, "FormEnvelopeDeflate": {int(proto.FormEnvelopeDeflate), 11},
		"FormSSEPacked": {int(proto.FormSSEPacked), 12}, "FormSSEPlainPacked": {int(proto.FormSSEPlainPacked), 13},
		"FormTextPacked": {int(proto.FormTextPacked), 16}, "FormEnvelopePacked": {int(proto.FormEnvelopePacked), 17},
		"Plain": {int(broker.Plain), 0}, "Sharded": {int(broker.Sharded), 1}, "Pattern": {int(broker.Pattern), 2}, "State": {int(broker.State), 3}, "Log": {int(broker.Log), 4},
		"GapSlow": {int(proto.GapSlow), 0}, "GapBroker": {int(proto.GapBroker), 1}, "GapTrimmed": {int(proto.GapTrimmed), 2},
		"GapRewound": {int(proto.GapRewound), 3}, "GapUnknownPosition": {int(proto.GapUnknownPosition), 4},
		"FromNow": {int(hub.FromNow), 0}, "FromBeginning": {int(hub.FromBeginning), 1}, "FromEntry": {int(hub.FromEntry), 2}, "FromHorizon": {int(hub.FromHorizon), 3},
		"FromOrder": {int(hub.FromOrder), 4}, "FromValue": {int(hub.FromValue), 5}, "FromUnknown": {int(hub.FromUnknown), 6},
		"CarriedLive": {int(hub.CarriedLive), 0}, "CarriedAhead": {int(hub.CarriedAhead), 1}, "CarriedDropping": {int(hub.CarriedDropping), 2},
		"CarriedNewest": {int(hub.CarriedNewest), 3}, "CarriedReading": {int(hub.CarriedReading), 4},
	} {
		if number[0] != number[1] {
			t.Errorf("%s is %d; versions that are out know it as %d: write a table where it is told", name, number[0], number[1])
		}
	}
}

func TestStreamsThatCannotBe(t *testing.T) {
	good := slices.Clip(wholeStream().appendLasting(nil))
	for name, body := range map[string][]byte{
		"no form":       handoff.AppendNumber(good, handoff.Must(streamForm), uint64(proto.FormCount)),
		"a bad channel": handoff.AppendFields(good, handoff.Must(streamSubscription), func(to []byte) []byte { return handoff.Append(to, handoff.Must(subscriptionChannel), "no channel") }),
		"no channel":    handoff.AppendFields(good, handoff.Must(streamSubscription), func(to []byte) []byte { return handoff.AppendNumber(to, handoff.Must(subscriptionKind), 1) }),
		"no state": handoff.AppendFields(good, handoff.Must(streamSubscription), func(to []byte) []byte {
			return handoff.AppendNumber(handoff.Append(to, handoff.Must(subscriptionChannel), "a:1"), handoff.Must(subscriptionState), 99)
		}),
		"no grants":             handoff.Append(good, handoff.Must(streamGrants), "\xff\x80"),
		"an endless name":       handoff.Append(good, handoff.Must(streamUser), strings.Repeat("u", auth.UserBytesMax+1)),
		"an unknown field":      handoff.Append(good, handoff.Must(streamPace+1), "x"),
		"a field cut short":     good[:len(good)-1],
		"an unknown field deep": handoff.AppendFields(good, handoff.Must(streamSubscription), func(to []byte) []byte { return handoff.Append(to, handoff.Must(99), "x") }),
	} {
		if _, err := parseStream(body); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
	if _, err := parseStream(handoff.Append(good, handoff.Must(1000), "x")); !errors.Is(err, handoff.ErrMandatory) {
		t.Errorf("an unknown field that must be understood: %v, want ErrMandatory", err)
	}
	if _, err := parseStream(handoff.Append(good, handoff.May(1000), "x")); err != nil {
		t.Errorf("an unknown field that may be missed: %v", err)
	}
}

// FuzzCarriedStream: whatever comes is refused or is a stream that can be written and read again.
func FuzzCarriedStream(f *testing.F) {
	whole := wholeStream()
	f.Add(whole.appendMoving(whole.appendLasting(nil)))
	f.Add((&carriedStream{id: 1 << 32}).appendLasting(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		stream, err := parseStream(body)
		if err != nil {
			return
		}
		if stream.grants != "" {
			_ = auth.Recall(stream.user, stream.grants) // must not panic
		}
		back, err := parseStream(stream.appendMoving(stream.appendLasting(nil)))
		if err != nil {
			t.Fatalf("written again it is refused: %v", err)
		}
		if diff := cmp.Diff(stream, back, cmp.AllowUnexported(carriedStream{}, carriedFrame{}, carriedTrail{}), cmp.Comparer(func(a, b []byte) bool { return string(a) == string(b) })); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestLegacyComesBack(t *testing.T) {
	told := legacy{hub: hub.Legacy{Order: 1 << 50, Channels: map[string]hub.LegacyChannel{
		"log:1":      {Position: broker.Position{Milliseconds: 5, Sequence: 6}},
		"state:1":    {Value: [32]byte{1, 2, 3}},
		"state:none": {},
		"events:1":   {Since: 12, Dropped: 11},
	}}, generations: []uint32{0, 7}, kept: []hub.Kept{
		{Channel: "events:1", ID: "events:1/abc.12", Payload: []byte(`{}`), Order: 12, Left: 1500 * time.Millisecond},
		{Channel: "events:1", Payload: []byte(`[1]`), Order: 13},
	}, held: []string{"events:2"}}
	var back legacy
	for _, body := range append(told.messages(), keptBodies(told.kept, told.held)...) {
		if err := back.take(body); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(told, back, cmp.AllowUnexported(legacy{})); diff != "" {
		t.Error(diff)
	}
}

// TestTimeGoesOn: the clocks of the new loops are where those of the old ones are, however long the new
// process took to start: on them stand the ends of tokens.
func TestTimeGoesOn(t *testing.T) {
	for name, test := range map[string]struct {
		clock       time.Duration
		least, most netio.Tick
	}{
		"at once":                 {machineTime(), 101, 200},
		"after some seconds":      {machineTime() - 5*time.Second, 151, 250},
		"it is not known when":    {0, 101, 101},
		"after longer than it is": {machineTime() - time.Hour, 101 + ticks(startTimeout), 101 + ticks(startTimeout)},
		"before it began":         {machineTime() + time.Hour, 101, 101},
	} {
		from := heritage{ticks: []netio.Tick{100}, clock: test.clock}
		if tick := from.firstTick(0); tick < test.least || tick > test.most {
			t.Errorf("%s: the loop begins at %d, want %d to %d", name, tick, test.least, test.most)
		}
	}
}

func TestLastOf(t *testing.T) {
	for _, test := range []struct{ once, now, want netio.Tick }{
		{100, 100, 100}, {90, 100, 90}, {71, 100, 71}, {70, 100, 100}, {5, 100, 95}, {120, 100, 100},
	} {
		if last := lastOf(test.once, test.now, 30); last != test.want {
			t.Errorf("once at %d, and each 30: at %d it was last at %d, want %d", test.once, test.now, last, test.want)
		}
	}
}

// TestPanicIsAFailure: whoever cannot tell of a stream must not cost the process anything.
func TestPanicIsAFailure(t *testing.T) {
	log := newLoopLog(slog.New(slog.DiscardHandler))
	defer log.close()
	p := &part{}
	func() {
		defer p.guard(log)
		panic("a defect")
	}()
	if p.failure == nil || !strings.Contains(p.failure.Error(), "a defect") {
		t.Errorf("it failed with %v", p.failure)
	}
}

func TestHelloComesBack(t *testing.T) {
	told := hello{software: "v1", epoch: "abc", ticks: []netio.Tick{1, 2}, clock: time.Hour, admin: true, plain: "127.0.0.1:7000"}
	back, err := parseHello(told.append(nil))
	if diff := cmp.Diff(told, back, cmp.AllowUnexported(hello{})); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for name, body := range map[string][]byte{
		"another format": handoff.AppendNumber(told.append(nil), handoff.Must(helloFormat), heritageFormat+1),
		"no loops":       (&hello{epoch: "abc"}).append(nil),
		"no epoch":       (&hello{ticks: []netio.Tick{1}}).append(nil),
		"more to know":   handoff.Append(told.append(nil), handoff.Must(99), "x"),
	} {
		if _, err := parseHello(body); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
}
