package hub

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/names"
	"github.com/millrace/millrace/proto"
)

// heard is what a listener was told, and when.
type heard struct {
	mutex sync.Mutex
	all   []string
	begun time.Time
}

func (h *heard) call(n Notice) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	h.all = append(h.all, fmt.Sprintf("%dms %s", time.Since(h.begun).Milliseconds(), n.Data))
}

// pacedHub is a hub without loops whose events a listener hears, in a bubble of its own time.
func pacedHub(t *testing.T, rules Rules, test func(hub *Hub, h *heard)) {
	synctest.Test(t, func(t *testing.T) {
		hub, err := New(Options{
			Loops: 1, Epoch: "life", Source: Source{Subscribe: func(broker.Subscription, names.Place) {}, Unsubscribe: func(broker.Subscription) {}},
			RulesOf: func(string) *Rules { return &rules },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer hub.Close()
		h := &heard{begun: time.Now()}
		defer hub.Listen(parse(t, "job:1"), h.call)()
		test(hub, h)
	})
}

func (h *heard) check(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if !slices.Equal(h.all, want) {
		t.Errorf("\n got %q\nwant %q", h.all, want)
	}
}

func TestThrottle(t *testing.T) {
	pacedHub(t, Rules{Throttle: 100 * time.Millisecond}, func(hub *Hub, h *heard) {
		publish := func(payload string) {
			if _, err := hub.Event("job:1", []byte(payload), time.Now()); err != nil {
				t.Error(err)
			}
		}
		for n := range 25 { // every 11 ms from 0 to 264 ms
			publish(fmt.Sprint(n))
			<-time.After(11 * time.Millisecond)
		}
		<-time.After(time.Second)
		publish("100")
		publish("101")
		if _, err := hub.Event("job:1", []byte("{"), time.Now()); err == nil {
			t.Error("bad JSON was taken")
		}
		<-time.After(time.Second)
		h.check(t, "0ms 0", "100ms 9", "200ms 18", "300ms 24", "1275ms 100", "1375ms 101")
		if n := hub.Stats().Throttled; n != 21 {
			t.Errorf("%d were replaced", n)
		}
		if len(hub.pacer.paced) != 0 {
			t.Error("a channel that fell silent is still paced")
		}
	})
}

func TestThrottledState(t *testing.T) {
	pacedHub(t, Rules{Kind: broker.State, Throttle: 100 * time.Millisecond}, func(hub *Hub, h *heard) {
		value := func(payload []byte) {
			if err := hub.Value("job:1", payload, time.Now()); err != nil {
				t.Error(err)
			}
		}
		value([]byte("1")) // the first: at once, and begins no interval
		value([]byte("2"))
		value([]byte("3"))
		value([]byte("4"))
		<-time.After(250 * time.Millisecond)
		value([]byte("5"))
		value([]byte("6"))
		value(nil)
		<-time.After(200 * time.Millisecond)
		h.check(t, "0ms 1", "0ms 2", "100ms 4", "250ms 5", `350ms {"type":"deleted","channel":"job:1"}`)
	})
}

func TestBatch(t *testing.T) {
	pacedHub(t, Rules{Batch: 100 * time.Millisecond}, func(hub *Hub, h *heard) {
		publish := func(payload string) {
			if _, err := hub.Event("job:1", []byte(payload), time.Now()); err != nil {
				t.Error(err)
			}
		}
		publish("1")
		<-time.After(60 * time.Millisecond)
		publish("2")
		<-time.After(60 * time.Millisecond)
		publish("3")
		<-time.After(time.Second)
		batch := `{"type":"batch","channel":"job:1","events":[%s]}`
		h.check(t, "100ms "+fmt.Sprintf(batch, "1,2"), "220ms "+fmt.Sprintf(batch, "3"))
		if len(hub.pacer.paced) != 0 {
			t.Error("a channel that fell silent is still paced")
		}
	})
}

func TestBatchIsBounded(t *testing.T) {
	pacedHub(t, Rules{Batch: time.Hour}, func(hub *Hub, h *heard) {
		for range batchEventsMax + 1 {
			if _, err := hub.Event("job:1", []byte("1"), time.Now()); err != nil {
				t.Error(err)
			}
		}
		large := []byte(`"` + strings.Repeat("x", batchBytesMax/2) + `"`)
		for range 2 {
			if _, err := hub.Event("job:1", large, time.Now()); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		if len(h.all) != 2 || strings.Count(h.all[0], "1,") != batchEventsMax-1 {
			t.Errorf("%d batches", len(h.all))
		}
		// Nested as deeply as may be, and one deeper in a batch: dropped, not fatal.
		deep := []byte(strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000))
		if _, err := hub.Event("job:1", deep, time.Now()); err != nil {
			t.Error(err)
		}
		<-time.After(time.Hour)
		<-time.After(time.Hour)
		if n := hub.Stats().Dropped[DropNotJSON]; n != 1 {
			t.Errorf("%d are dropped", n)
		}
	})
}

func TestBatchOnTheWire(t *testing.T) {
	h := newHarness(t, 1, nil)
	h.rules["job"] = &Rules{Batch: 20 * time.Millisecond}
	text, sse := h.join(0, proto.FormText), h.join(0, proto.FormSSEPlain)
	text.subscribe("job:1")
	sse.subscribe("job:1")
	h.confirm("job:1")
	h.publish("job:1", "1")
	h.publish("job:1", "2")
	want := `{"type":"batch","channel":"job:1","events":[1,2]}`
	equal(t, "text", text.read(1), []string{want})
	if got := sse.readSSE(); got.Event != "batch" || got.ID != "job:1/life.1" || string(got.Data) != want {
		t.Errorf("sse: %+v", got)
	}
}

func TestScheduleRunsInOrderAndStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSchedule()
		var order []int
		for _, n := range []int{30, 10, 20, 5} {
			s.after(time.Duration(n)*time.Millisecond, func() { order = append(order, n) })
		}
		s.after(time.Hour, func() { t.Error("a closed schedule called something") })
		<-time.After(25 * time.Millisecond)
		s.after(0, func() { order = append(order, 25) })
		<-time.After(25 * time.Millisecond)
		s.close()
		s.close()
		s.after(0, func() { t.Error("a closed schedule took something") })
		<-time.After(2 * time.Hour)
		if !slices.Equal(order, []int{5, 10, 20, 25, 30}) {
			t.Errorf("order %v", order)
		}
	})
}
