package netio

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

const (
	eventsPerTurn  = 256             // sockets heard in one turn
	timersPerTurn  = 1024            // timers run in one turn
	mailPerTurn    = 512             // posts taken in one turn
	mailTimeMax    = 1_000_000       // nanoseconds of a turn after which no more post is taken
	mailClockEvery = 16              // posts between two looks at the clock
	readBufferSize = 64 << 10        // bytes heard from one socket in one turn
	endDeadline    = 5 * time.Second // for the peer of an ending stream to take the rest and close
	// sendBufferBytes is SO_SNDBUF of a stream: what the kernel may hide of a slow peer. It holds
	// one burst. The desk's sockets do without: on links with large segments so small a buffer
	// makes a long answer wait for delayed acknowledgements.
	sendBufferBytes = 32 << 10
	stallCheck      = Tick(10) // ticks between two looks for stalled streams
	readEvents      = uint32(unix.EPOLLIN | unix.EPOLLRDHUP)
)

// ErrLoopClosed is returned for what reaches a loop after its end.
var ErrLoopClosed = errors.New("netio: the loop is closed")

// Events is how a loop calls its owner. All functions run on the loop's goroutine and must not
// block; all but Work are set for the life of the loop, and every one but Encode is required.
type Events struct {
	// Adopted says that a parked connection is now the stream in slot. guest is what was given
	// to [Loop.Adopt]. The first thing sent here is the first thing the peer reads.
	Adopted func(slot Slot, guest any)
	// Received hands over bytes of the peer. They are valid, and may be overwritten, only during
	// the call.
	Received func(slot Slot, bytes []byte)
	// Timer is called when the time set by [Loop.SetTimer] has come.
	Timer func(slot Slot)
	// Drained is called when all that was queued for slot has been written, if that was asked for
	// with [Loop.WatchDrain].
	Drained func(slot Slot)
	// Closed is called once for every adopted stream, at its end; afterwards slot may be reused.
	Closed func(slot Slot, reason Reason)
	// Mail hands over what was given to [Loop.Post].
	Mail func(item any)
	// Work does a bounded piece of what the owner has pending and reports whether more is left;
	// it is called once a turn.
	Work func() (more bool)
	// Encode makes a piece of a spliced stream: see [Splice]. May be nil where none has a Source.
	Encode func(source any, after bool) []byte
	// Panicked is told of a panic in one of the above; the stream concerned, if there is one, has
	// been closed with [ReasonBug].
	Panicked func(value any, stack []byte)
}

// LoopOptions says how a loop treats its sockets. Zero values take the defaults.
type LoopOptions struct {
	Index int // of this loop among all, 0..255
	// FirstTick is what the loop's time begins at, where streams come from a loop with that time.
	// Default 1.
	FirstTick Tick
	// WithoutRing has each socket written to by a call of its own, even where the kernel could take
	// many by one (io_uring).
	WithoutRing bool
	StallLimit  time.Duration // a queue of which no whole frame left for so long ends the stream. Default 30 s; negative: none
}

// Counters is what a loop counts. They are written by the loop alone: read a copy, by [Loop.Stats].
type Counters struct {
	Open         int // streams now
	Adopted      uint64
	Ended        [256]uint64 // by [Reason]
	Turns        uint64
	Writes       uint64 // of all that one socket could take, by whatever system call
	ShortWrites  uint64
	Reads        uint64 // read calls
	BytesWritten uint64
	BytesRead    uint64
	Mail         uint64
	Refused      uint64 // arrivals that could not be watched
}

// Stats is a copy of what a loop knows of itself.
type Stats struct {
	Counters
	// Delivery holds microseconds from [Loop.NewFrame]'s born to the write, one entry a delivery.
	Delivery *hdrhistogram.Histogram
	// OutboxBytes is what all streams together have waiting.
	OutboxBytes int64
	// Ring says that many sockets are written to by one system call (io_uring).
	Ring bool
	// SlabBytes is the memory of slabs: streams, outboxes, chunks, trails.
	SlabBytes int
	// Lag is how long the loop took to come to this question: what an event waits before the loop
	// looks at it.
	Lag time.Duration
}

// Loop owns streams. Methods marked "any goroutine" may be called from anywhere; all others only
// on the loop's own goroutine, that is, from its callbacks.
type Loop struct {
	// Shared with posters.
	mailbox mailbox
	index   uint8
	done    chan struct{}

	// Owned by the loop's goroutine.
	sys      sys
	options  LoopOptions
	events   Events
	start    int64 // clock at tick 0
	now      int64 // clock, read at the start of the turn and while flushing
	tick     Tick
	stopping bool // Run ends with this turn
	deaf     bool // sockets are not heard for now, see SetDeaf

	streams       Slab[stream]
	freeStream    Slot
	highestStream Slot
	generation    uint32 // the least of a slot that is taken, see Revive
	closing       []Slot

	outboxes      Slab[outbox]
	freeOutbox    uint32
	highestOutbox uint32
	outboxesInUse int
	trails        Slab[trail]
	freeTrail     uint32
	highestTrail  uint32
	chunks        Slab[chunk]
	freeChunk     uint32
	highestChunk  uint32
	frames        []frame
	freeFrame     Frame
	sheet         []byte // where the bytes of the next fan-out's frame go
	encodedBytes  int    // of text that was given to Encode in this flush

	express, bulk lane
	batch         []transfer   // of the flush
	vectors       []unix.Iovec // of all in batch, never moved while it is being flushed
	wheel         wheel
	inbox         *letter // taken from the mailbox, not yet handled
	nextStall     Tick
	epollEvents   []unix.EpollEvent
	readBuffer    []byte
	counters      Counters
	delivery      *hdrhistogram.Histogram
}

// NewLoop makes a loop; [Loop.Run] turns it. Any number may exist.
func NewLoop(options LoopOptions, events Events) (*Loop, error) {
	k, err := newKernel(!options.WithoutRing)
	if err != nil {
		return nil, fmt.Errorf("netio: %w", err)
	}
	l, err := newLoop(options, events, k)
	if err != nil {
		k.end()
		return nil, err
	}
	return l, nil
}

func newLoop(options LoopOptions, events Events, k sys) (*Loop, error) {
	if options.Index < 0 || options.Index > 255 {
		return nil, fmt.Errorf("netio: loop index %d is not in 0..255", options.Index)
	}
	if options.StallLimit == 0 {
		options.StallLimit = 30 * time.Second
	}
	l := &Loop{
		index: uint8(options.Index), done: make(chan struct{}),
		sys: k, options: options, events: events,
		frames:      make([]frame, 1),
		batch:       make([]transfer, 0, flushBatchMax),
		vectors:     make([]unix.Iovec, 0, flushVectors),
		epollEvents: make([]unix.EpollEvent, eventsPerTurn),
		readBuffer:  make([]byte, readBufferSize),
		delivery:    hdrhistogram.New(1, int64(time.Minute/time.Microsecond), 2),
	}
	l.now = k.now()
	l.tick = max(options.FirstTick, 1)
	l.start = l.now - int64(l.tick)*int64(TickLength)
	l.wheel.hand = l.tick
	l.streams.Grow(0)
	l.outboxes.Grow(0)
	l.chunks.Grow(0)
	return l, nil
}

// arrival, stop and question are the posts that netio itself understands.
type arrival struct {
	fd    int
	early []byte
	guest any
}
type (
	stop     struct{}
	question func()
)

// Adopt gives fd, a connected non-blocking TCP socket of which the caller keeps no copy, to the
// loop. TCP_USER_TIMEOUT is the caller's to set; [Listen]'s sockets have it. early are bytes already read from it; guest is handed to [Events.Adopted]. On an error
// fd is still the caller's. Any goroutine.
func (l *Loop) Adopt(fd int, early []byte, guest any) error {
	return l.post(&arrival{fd: fd, early: early, guest: guest}, true)
}

// Post hands item to [Events.Mail]. It fails, and the item is dropped, if the mailbox is full
// ([MailMax]) or the loop closed. Any goroutine.
func (l *Loop) Post(item any) error { return l.post(item, false) }

// PostAlways is Post without the bound, for what its poster bounds in another way. It fails only
// if the loop is closed. Any goroutine.
func (l *Loop) PostAlways(item any) error { return l.post(item, true) }

// ErrMailboxFull says that a loop is too far behind to be told more.
var ErrMailboxFull = errors.New("netio: the mailbox of the loop is full")

func (l *Loop) post(item any, urgent bool) error {
	ok, ring := l.mailbox.push(item, urgent)
	if ring {
		l.sys.wake()
	}
	if ok {
		return nil
	}
	if l.mailbox.top.Load() == closedBox {
		return ErrLoopClosed
	}
	return ErrMailboxFull
}

// Do runs ask on the loop and waits for it. Any goroutine but the loop's.
func (l *Loop) Do(ctx context.Context, ask func()) error {
	ran := make(chan struct{})
	if err := l.post(question(func() { defer close(ran); ask() }), true); err != nil {
		return err
	}
	select {
	case <-ran:
		return nil
	case <-l.done:
		return ErrLoopClosed
	case <-ctx.Done():
		return fmt.Errorf("netio: the loop did not answer: %w", context.Cause(ctx))
	}
}

// Stats asks the loop for a copy of its counters. That it answers shows that it turns. Any
// goroutine but the loop's.
func (l *Loop) Stats(ctx context.Context) (Stats, error) {
	answer := make(chan Stats, 1)
	asked := Clock()
	err := l.Do(ctx, func() {
		lag := time.Duration(Clock() - asked)
		s := Stats{Counters: l.counters, Delivery: hdrhistogram.Import(l.delivery.Export()), Lag: lag, Ring: l.sys.canSendMany()}
		for index := uint32(1); index <= l.highestOutbox; index++ {
			s.OutboxBytes += int64(l.outboxes.At(index).queued)
		}
		s.SlabBytes = l.streams.Len()*streamSize + l.outboxes.Len()*outboxSize + l.chunks.Len()*chunkSize + l.trails.Len()*trailSize
		answer <- s
	})
	if err != nil {
		return Stats{}, err
	}
	return <-answer, nil
}

// Stop makes [Loop.Run] return after closing every stream that is left with
// [ReasonLoopClosed], and waits for it. Any goroutine but the loop's.
func (l *Loop) Stop() {
	if l.post(stop{}, true) == nil {
		<-l.done
	}
}

// Tick is the loop's time in ticks, as of the start of this turn.
func (l *Loop) Tick() Tick { return l.tick }

// Now is the [Clock] as of the start of this turn, or of the last look during its flush.
func (l *Loop) Now() int64 { return l.now }

// Index is the loop's index among all. Any goroutine.
func (l *Loop) Index() int { return int(l.index) }

func (l *Loop) delivered(born int64) {
	_ = l.delivery.RecordValue(max((l.now-born)/int64(time.Microsecond), 1)) // beyond a minute: not a delivery time
}
