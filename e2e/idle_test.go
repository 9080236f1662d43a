package e2e

import (
	"sync"
	"testing"
	"time"
)

// idleLimit is longer than anything here takes.
const idleLimit = 100 * time.Second

// TestIdle waits as long as an idle stream has to, to hear what keeps it alive: an SSE comment
// after 15 s, a WebSocket ping after 30 s, and the end of a peer that has not said a word, not
// even a pong, for 60 s. Each is jittered. All of it begins before the tests that run side by side, among
// which a minute of waiting would take a place.
func TestIdle(t *testing.T) {
	g := startGateway(t)
	base := "http://" + g.address
	began := time.Now()
	silent := upgrade(t, g.address) // reads, and answers nothing
	_ = silent.SetDeadline(began.Add(idleLimit))
	answering := open(t, npmWS, base, "", "job_progress:idle")
	stream := open(t, curl, base, "", "job_progress:idle")

	var comment heard
	var commented, pinged, ended time.Duration
	var watchers sync.WaitGroup
	watchers.Go(func() {
		for more := true; more && comment.Kind != "comment"; {
			comment, more = stream.next(idleLimit)
		}
		commented = time.Since(began)
	})
	watchers.Go(func() {
		for {
			opcode, _, err := silent.frame()
			if err != nil || opcode == 8 {
				break
			}
			if opcode == 9 && pinged == 0 {
				pinged = time.Since(began)
			}
		}
		ended = time.Since(began)
	})
	t.Parallel()
	watchers.Wait()
	if comment.Kind != "comment" || comment.Data != "keep-alive" {
		t.Errorf("the event stream heard %+v, want a comment keep-alive", comment)
	}
	wantAbout(t, "the first comment", commented, 15*time.Second)
	wantAbout(t, "the first ping", pinged, 30*time.Second)
	wantAbout(t, "the end of the silent socket", ended, 60*time.Second)

	// Who answers pings, as every library does by itself, stays.
	g.publish(t, "", "job_progress:idle", `{"still":"here"}`)
	answering.event(t, `{"still":"here"}`)
	stream.event(t, `{"still":"here"}`)
}

// wantAbout allows a third to either side for jitter, and some time for a busy machine.
func wantAbout(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	if got < want*2/3 || got > want*4/3+5*time.Second {
		t.Errorf("%s came after %v, want about %v", what, got.Round(time.Second), want)
	}
}
