package hub

import (
	"testing"

	"github.com/millrace/millrace/proto"
)

// TestLocalEventsAreNoEchoesOfEachOther: while Redis is away no copy comes back, and who says the same
// twice is heard twice.
func TestLocalEventsAreNoEchoesOfEachOther(t *testing.T) {
	h := newHarness(t, 1, nil)
	one := h.join(0, proto.FormText)
	one.subscribe("job:1")
	h.confirm("job:1")
	for range 3 {
		if err := h.hub.EventLocalFirst("job:1", []byte("1")); err != nil {
			t.Fatal(err)
		}
	}
	equal(t, "local events", one.read(3), []string{"1", "1", "1"})
	for range 3 {
		h.publish("job:1", "1") // the echoes
	}
	one.silent()
}

// TestNoEchoIsExpectedOfWhatIsNotHeard: the copy of what was published while nobody listened does not come,
// so the next event with the same text is no copy.
func TestNoEchoIsExpectedOfWhatIsNotHeard(t *testing.T) {
	for name, before := range map[string]func(*stream){
		"nobody listens":       func(*stream) {},
		"the broker was asked": func(one *stream) { one.subscribe("job:1") },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, 1, nil)
			one := h.join(0, proto.FormText)
			before(one)
			if err := h.hub.EventLocalFirst("job:1", []byte("1")); err != nil {
				t.Fatal(err)
			}
			one.subscribe("job:1")
			h.confirm("job:1")
			h.publish("job:1", "1") // somebody else's
			h.publish("job:1", "2")
			equal(t, "events", one.read(2), []string{"1", "2"})
		})
	}
}
