package netio

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"
)

// Defaults of [DeskOptions].
const (
	deskHeadBytesDefault        = 16 << 10
	deskHeadLinesDefault        = 100
	deskBodyBytesDefault        = 1 << 20
	deskInFlightDefault         = 1024
	deskHandshakeTimeoutDefault = 10 * time.Second
	deskIdleTimeoutDefault      = 60 * time.Second
	deskBodyTimeoutDefault      = 10 * time.Second
	deskWriteTimeoutDefault     = 10 * time.Second
)

// Bounds that are not settings: nobody gains from turning them.
const (
	// deskAnswerBytesMax is how much of an answer is held back to count its length. Beyond it
	// the answer is streamed.
	deskAnswerBytesMax = 64 << 10
	// deskBehindBytesMax is what a client may have sent behind the request that is being worked
	// on: pipelined requests, or frames behind a handshake. netpoll reads without end, so the
	// bound has to be watched (deskWatchEvery).
	deskBehindBytesMax = 256 << 10
	// deskWatchEvery is how often a request in flight is looked at for deskBehindBytesMax.
	deskWatchEvery = 20 * time.Millisecond
	// deskDrainBytesMax is how much of a body that its handler did not read is read and thrown
	// away so that the connection can be used again. Beyond it the connection is closed.
	deskDrainBytesMax = 64 << 10
	// deskLingerTime and deskLingerBytesMax bound how long a refused client is listened to after
	// its answer, since closing with unread bytes would reset the connection and destroy the
	// answer on its way.
	deskLingerTime     = 500 * time.Millisecond
	deskLingerBytesMax = 2 << 20
	// deskFreshGrace is how long, once the desk is shutting down, a new connection that has not
	// sent anything is given.
	deskFreshGrace = time.Second
	// deskAbortWait is how long Shutdown waits for handlers after it cancelled their contexts.
	deskAbortWait = time.Second
	// deskAcceptBurstMin is how many connections may come at once however low AcceptRate is: a page
	// opens several.
	deskAcceptBurstMin = 10
	// deskRetryAfterSeconds is what an overloaded desk tells clients to wait.
	deskRetryAfterSeconds = "1"
)

// DeskOptions says how a [Desk] behaves. Adopt and Handler are required; of all limits and times
// the zero value takes the default, and a negative one is an error unless it says otherwise.
type DeskOptions struct {
	// Handler serves the requests, each on a goroutine of its own. It is ordinary net/http code
	// and may call [Park].
	Handler http.Handler
	// Adopt takes a parked socket over, on the goroutine that served the request: it owns fd
	// from the moment it returns nil, and early, the bytes the client sent behind its request
	// (nil if none). fd is non-blocking, close-on-exec and in no epoll instance. On an error
	// the desk closes fd and calls Abandoned. It must not block.
	Adopt func(fd int, early []byte, guest any) error
	// Abandoned tells that a guest given to Park will never be adopted, so that what was
	// reserved for it can be given back. For every guest whose Park returned nil exactly one of
	// "Adopt returned nil" and "Abandoned was called" happens. Nil: nobody wants to know.
	Abandoned func(guest any)
	// Overloaded answers a request that came while MaxInFlight others were being worked on. It
	// must be cheap and must not block or park. Nil answers 503 "overloaded" with Retry-After.
	Overloaded http.Handler

	// MaxHeadBytes bounds a request line and its headers, in bytes with line ends. Default
	// 16 KiB. Beyond: 431, or 414 while still in the request line.
	MaxHeadBytes int
	// MaxHeadLines bounds the number of header lines. Default 100. Beyond: 431.
	MaxHeadLines int
	// MaxBodyBytes bounds a request's body, decoded. Default 1 MiB. A longer Content-Length is
	// answered 413; a chunked body fails with [http.MaxBytesError] when it passes the bound.
	MaxBodyBytes int64
	// MaxInFlight bounds the requests being worked on. Default 1024.
	MaxInFlight int
	// MaxConnections bounds the connections on the desk (parked ones have left it). Default a
	// quarter of the process's descriptor limit, at least 256; negative: no bound. Beyond: a new
	// connection is closed without an answer, as a network error makes an EventSource
	// try again where any status but 200 makes it give up for good.
	MaxConnections int
	// KeepDescriptors is how many of the process's descriptors connections of this desk never take,
	// so that they are left to others of the process. Beyond: as for MaxConnections. Default 0.
	KeepDescriptors int
	// Relays says of which addresses every connection begins with a header of the PROXY protocol,
	// version 1 or 2, that tells for whom it is relayed. Each request on it then has that address as
	// the last of X-Forwarded-For ("unknown" where the header does not say), as a proxy that speaks
	// HTTP would have written it; RemoteAddr stays the peer's. A connection without a header, and a
	// header from anywhere else, is answered 400. It runs for each new connection, where it must not
	// block. Nil: none does.
	Relays func(peer netip.Addr) bool

	// AcceptRate bounds new connections a second, with bursts of a tenth of a second's worth, or of
	// ten where that is more: in no second are there more than the two together. 0: off. Beyond: as
	// for MaxConnections; a refusal costs an accept and a close, and whoever is connected already
	// nothing.
	AcceptRate int

	// HandshakeTimeout is from accept to the end of the first request's head, whatever trickles
	// in; for later requests from their first byte. Default 10 s. Beyond: 408, or a plain close
	// if not a byte came.
	HandshakeTimeout time.Duration
	// IdleTimeout is how long a connection is kept between requests. Default 60 s.
	IdleTimeout time.Duration
	// BodyTimeout is how long a request's body may take in all, from the first read. Default 10 s.
	BodyTimeout time.Duration
	// WriteTimeout is how long a client may take for up to 64 KiB of an answer. Default 10 s.
	// Beyond: the connection is closed.
	WriteTimeout time.Duration

	// Logger takes panics and accept errors, at a bounded rate. Nil: slog.Default().
	Logger *slog.Logger
}

// complete checks o and fills in the defaults.
func (o *DeskOptions) complete() error {
	if o.Handler == nil {
		return errors.New("netio: DeskOptions.Handler is nil: the desk needs an http.Handler to serve requests")
	}
	if o.Adopt == nil {
		return errors.New("netio: DeskOptions.Adopt is nil: the desk needs to know who takes parked sockets")
	}
	if o.Abandoned == nil {
		o.Abandoned = func(any) {}
	}
	if o.Overloaded == nil {
		o.Overloaded = http.HandlerFunc(answerOverloaded)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = max(descriptorLimit()/4, 256)
	}
	if o.KeepDescriptors < 0 {
		return fmt.Errorf("netio: DeskOptions.KeepDescriptors is %d: use 0 to keep none", o.KeepDescriptors)
	}
	if o.AcceptRate < 0 {
		return fmt.Errorf("netio: DeskOptions.AcceptRate is %d: use 0 for no limit", o.AcceptRate)
	}
	bodyBytesMax := int(min(o.MaxBodyBytes, 1<<62))
	err := errors.Join(
		deskDefault("MaxHeadBytes", &o.MaxHeadBytes, deskHeadBytesDefault),
		deskDefault("MaxHeadLines", &o.MaxHeadLines, deskHeadLinesDefault),
		deskDefault("MaxBodyBytes", &bodyBytesMax, deskBodyBytesDefault),
		deskDefault("MaxInFlight", &o.MaxInFlight, deskInFlightDefault),
		deskDefault("HandshakeTimeout", &o.HandshakeTimeout, deskHandshakeTimeoutDefault),
		deskDefault("IdleTimeout", &o.IdleTimeout, deskIdleTimeoutDefault),
		deskDefault("BodyTimeout", &o.BodyTimeout, deskBodyTimeoutDefault),
		deskDefault("WriteTimeout", &o.WriteTimeout, deskWriteTimeoutDefault),
	)
	o.MaxBodyBytes = int64(bodyBytesMax)
	return err
}

// deskDefault fills in one setting, and refuses one below zero.
func deskDefault[T int | time.Duration](name string, setting *T, fallback T) error {
	if *setting < 0 {
		return fmt.Errorf("netio: DeskOptions.%s is %v: it must not be negative", name, *setting)
	}
	if *setting == 0 {
		*setting = fallback
	}
	return nil
}

// descriptorLimit is the soft limit of open descriptors of this process.
func descriptorLimit() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 1024
	}
	return int(min(limit.Cur, 1<<30))
}

// Refusal says why the desk turned a request or a connection away, or closed one before its time.
type Refusal uint8

// The refusals. Each has one counter in [DeskStats].
const (
	RefusedBadRequest    Refusal = iota // the head is not HTTP/1.x, or ambiguous: 400
	RefusedRelay                        // a PROXY header that is missing, wrong, or not to be believed: 400
	RefusedURITooLong                   // 414
	RefusedHeadTooLarge                 // 431
	RefusedBodyTooLarge                 // Content-Length beyond MaxBodyBytes: 413
	RefusedVersion                      // 505
	RefusedExpectation                  // an Expect other than 100-continue: 417
	RefusedHandshakeSlow                // HandshakeTimeout passed: 408 or close
	RefusedBodySlow                     // BodyTimeout passed
	RefusedSlowReader                   // WriteTimeout passed
	RefusedFlood                        // sent too much behind a request in flight
	RefusedOverloaded                   // MaxInFlight reached
	RefusedConnections                  // MaxConnections reached: closed at accept
	RefusedAcceptRate                   // AcceptRate passed: closed at accept
	RefusedDescriptors                  // no descriptor left: closed at accept, or left waiting
	RefusedPanic                        // the handler panicked: 500 if nothing was sent yet
	RefusedAdoption                     // a loop did not take a parked socket
	RefusedBug                          // an impossible state of ours; tests hold it at zero
	refusalCount                        // number of refusals, not one of them
)

var refusalNames = [refusalCount]string{
	"bad_request", "proxy_header", "uri_too_long", "head_too_large", "body_too_large", "version",
	"expectation", "handshake_slow", "body_slow", "slow_reader", "flood",
	"overloaded", "connections", "accept_rate", "descriptors", "panic", "adoption", "bug",
}

// String gives the refusal's name as it stands in metrics, for instance "head_too_large".
func (r Refusal) String() string {
	if r >= refusalCount {
		return "unknown"
	}
	return refusalNames[r]
}

// DeskStats is a snapshot of what a desk has done since its start and is doing now. Its numbers
// are read one after the other, so sums may be off by what happened meanwhile.
type DeskStats struct {
	Accepted  uint64 // connections taken on
	AtOnce    uint64 // of these: whose first request had come whole already
	Requests  uint64 // heads handed to a handler
	Parked    uint64 // guests whose Park succeeded
	Adopted   uint64 // of these: taken by Adopt
	Abandoned uint64 // of these: given back
	Early     uint64 // parked sockets that had sent bytes behind their request
	Waited    uint64 // parked sockets that had to wait for the poller to let go
	Refused   [refusalCount]uint64

	Connections int // on the desk now, not counting parked ones
	InFlight    int // requests being worked on now
}

// Refusals calls f with the name and number of every refusal, zeros included, always in the same
// order.
func (s DeskStats) Refusals(f func(name string, count uint64)) {
	for refusal, count := range s.Refused {
		f(Refusal(refusal).String(), count)
	}
}

// deskCounts are the counters behind DeskStats. Any goroutine may add.
type deskCounts struct {
	accepted, atOnce, requests, parked, adopted, abandoned, early, waited atomic.Uint64

	refused     [refusalCount]atomic.Uint64
	connections atomic.Int64
	inFlight    atomic.Int64
}

func (c *deskCounts) refuse(reason Refusal) { c.refused[reason].Add(1) }

// Stats returns a snapshot of the desk's counters. Safe for use by many goroutines.
func (d *Desk) Stats() DeskStats {
	stats := DeskStats{
		Accepted:    d.counts.accepted.Load(),
		AtOnce:      d.counts.atOnce.Load(),
		Requests:    d.counts.requests.Load(),
		Parked:      d.counts.parked.Load(),
		Adopted:     d.counts.adopted.Load(),
		Abandoned:   d.counts.abandoned.Load(),
		Early:       d.counts.early.Load(),
		Waited:      d.counts.waited.Load(),
		Connections: int(d.counts.connections.Load()),
		InFlight:    int(d.counts.inFlight.Load()),
	}
	for reason := range d.counts.refused {
		stats.Refused[reason] = d.counts.refused[reason].Load()
	}
	return stats
}
