package bench

import (
	"fmt"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// The orchestrator speaks to a crowd in lines of JSON: one command a line on its standard input,
// one reply a line on its standard output, strictly in turn. A crowd ends when its input does.

// crowdCommand is one line to a crowd.
type crowdCommand struct {
	Op      string       `json:"op"` // connect, status, report, reset, drop, forgive, reconnect
	Connect *connectPlan `json:"connect,omitempty"`
}

// connectPlan says how a crowd gets its streams.
type connectPlan struct {
	Address string `json:"address"` // HOST:PORT of the server
	// Others are further addresses of the same service, over all of which the streams are spread.
	Others []string `json:"others,omitempty"`
	// Return has a stream that the server ended, or did not take, come back a little later to the
	// next address, as clients behind a balancer do.
	Return bool   `json:"return,omitempty"`
	Wire   Wire   `json:"wire"`
	Steps  []step `json:"steps"`
	// Count is how many streams to open, in addition to those that are there.
	Count int `json:"count"`
	// Channel is the format of a channel's name; Own gives each stream a channel of its own,
	// numbered from First, else all share the one numbered First.
	Channel string `json:"channel"`
	Own     bool   `json:"own,omitempty"`
	First   int    `json:"first"`
	// Each is how many channels a stream has, of its own and one after the other from First, where
	// it is more than one. The numbers of messages then tell nothing of what is lost.
	Each int `json:"each,omitempty"`
	// Secret signs a token for each stream, where it is given.
	Secret string `json:"secret,omitempty"`
	// Window is how many handshakes may be under way at once.
	Window int `json:"window"`
	// Sources is how many loopback addresses the streams come from, from 127.0.0.1 + SourceFirst.
	Sources     int `json:"sources"`
	SourceFirst int `json:"sourceFirst"`
}

// crowdReply is one line from a crowd.
type crowdReply struct {
	Error string `json:"error,omitempty"` // of the command itself

	Live    int `json:"live"`    // streams whose handshake is complete
	Wanted  int `json:"wanted"`  // streams asked for so far
	Failed  int `json:"failed"`  // of them, those whose connection or handshake failed
	Dropped int `json:"dropped"` // live streams that the server ended
	// SentAway and Refused count, with a plan's Return, live streams that the server ended and
	// handshakes that came to nothing.
	SentAway int `json:"sentAway,omitempty"`
	Refused  int `json:"refused,omitempty"`
	// Failure is the first thing that went wrong.
	Failure string `json:"failure,omitempty"`
	// DialNanos and LiveNanos are the monotonic times at which the last connect began and at
	// which the last stream became live.
	DialNanos int64 `json:"dialNanos"`
	LiveNanos int64 `json:"liveNanos"`

	// What follows counts since the last reset.
	Deliveries uint64 `json:"deliveries"`
	Lost       uint64 `json:"lost"`
	Repeated   uint64 `json:"repeated"`
	FirstNanos int64  `json:"firstNanos"`
	LastNanos  int64  `json:"lastNanos"`
	Bytes      uint64 `json:"bytes"` // of live streams, whatever is in them
	Pings      uint64 `json:"pings"` // WebSocket pings answered
	// Histogram is the latency of all deliveries in nanoseconds, as HDR V2; only on report.
	Histogram []byte `json:"histogram,omitempty"`
}

const (
	latencyMin    = 1_000          // nanoseconds: the finest that is told apart is a thousandth of it
	latencyMax    = 60_000_000_000 // nanoseconds
	latencyDigits = 3
)

func newLatency() *hdrhistogram.Histogram {
	return hdrhistogram.New(latencyMin, latencyMax, latencyDigits)
}

// recordLatency puts one latency into h; what is outside of its bounds goes to the bound.
func recordLatency(h *hdrhistogram.Histogram, nanoseconds int64) {
	_ = h.RecordValue(min(max(nanoseconds, latencyMin), latencyMax))
}

// latency decodes the histogram of a report.
func (r *crowdReply) latency() (*hdrhistogram.Histogram, error) {
	if len(r.Histogram) == 0 {
		return newLatency(), nil
	}
	h, err := hdrhistogram.Decode(r.Histogram)
	if err != nil {
		return nil, fmt.Errorf("a crowd's histogram cannot be read: %w", err)
	}
	return h, nil
}
