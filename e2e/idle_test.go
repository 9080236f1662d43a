package e2e

import (
	"testing"
	"time"
)

// TestIdle waits as long as an idle stream has to, to hear what keeps it alive: an SSE comment
// after 15 s, a WebSocket ping after 30 s, and the end of a peer that has not said a word, not
// even a pong, for 60 s. Each is jittered.
func TestIdle(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	base := "http://" + g.address
	began := time.Now()
	silent := upgrade(t, g.address) // reads, and answers nothing
	_ = silent.SetDeadline(began.Add(100 * time.Second))
	answering := open(t, npmWS, base, "", "job_progress:idle")
	stream := open(t, curl, base, "", "job_progress:idle")

	comment := stream.await(t, "a comment", func(h heard) bool { return h.Kind == "comment" })
	wantAbout(t, "the first comment", time.Since(began), 15*time.Second)
	if comment.Data != "keep-alive" {
		t.Errorf("the comment is %q, want keep-alive", comment.Data)
	}
	for {
		opcode, _, err := silent.frame()
		if err != nil {
			t.Fatalf("the silent socket ended before a ping: %v", err)
		}
		if opcode == 9 {
			break
		}
	}
	wantAbout(t, "the first ping", time.Since(began), 30*time.Second)
	for {
		opcode, _, err := silent.frame()
		if err != nil || opcode == 8 {
			break
		}
	}
	wantAbout(t, "the end of the silent socket", time.Since(began), 60*time.Second)

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
