package hub

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http/httputil"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/sockettest"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// twins are two event streams to which the same happens: one plain, one in a gzip form. Whatever a
// plain one has read, the other must be able to say as soon.
type twins struct {
	plain, zipped *stream
	reader        *gzip.Reader
	marks         int
	unread        []byte // of the plain one
}

func (h *harness) joinTwins(loop int, form proto.Form) *twins {
	h.t.Helper()
	pair := &twins{plain: h.join(loop, proto.FormSSEPlain), zipped: h.join(loop, form)}
	deadline := time.Now().Add(30 * time.Second)
	pair.plain.client.SetReadDeadline(deadline)
	pair.zipped.client.SetReadDeadline(deadline)
	var source io.Reader = pair.zipped.client
	if form == proto.FormSSEGzip {
		source = httputil.NewChunkedReader(source)
	}
	var err error
	if pair.reader, err = gzip.NewReader(source); err != nil {
		h.t.Fatal(err)
	}
	pair.reader.Multistream(false)
	return pair
}

// both does something with each of the two in one go, while nothing is published.
func (p *twins) both(do func(s *Shard, slot netio.Slot, m *member)) {
	p.plain.h.t.Helper()
	p.plain.h.hub.publish.Lock()
	defer p.plain.h.hub.publish.Unlock()
	p.plain.h.on(p.plain.loop, func(s *Shard) {
		for _, slot := range []netio.Slot{p.plain.slot, p.zipped.slot} {
			do(s, slot, s.members.At(uint32(slot)))
		}
	})
}

// subscribe is for channels that are confirmed.
func (p *twins) subscribe(channel string, from From) {
	p.both(func(s *Shard, slot netio.Slot, _ *member) {
		name := parse(p.plain.h.t, channel)
		if s.Subscribe(slot, name, from) == Confirmed {
			s.Begin(slot, name)
		}
	})
}

func (p *twins) unsubscribe(channel string) {
	p.both(func(s *Shard, slot netio.Slot, _ *member) { s.Unsubscribe(slot, parse(p.plain.h.t, channel)) })
}

// compare sends a mark to both, reads the plain one up to it, and wants the same of the other one.
func (p *twins) compare() {
	t := p.plain.h.t
	t.Helper()
	p.marks++
	mark := fmt.Sprintf("mark %d", p.marks)
	p.both(func(s *Shard, slot netio.Slot, m *member) {
		s.sendOwn(slot, m, proto.AppendSSEComment(nil, m.form, mark))
	})
	end := proto.AppendSSEComment(nil, proto.FormSSEPlain, mark)
	for room := make([]byte, 32<<10); !bytes.Contains(p.unread, end); {
		n, err := p.plain.client.Read(room)
		if err != nil {
			t.Fatalf("the plain stream: %v", err)
		}
		p.unread = append(p.unread, room[:n]...)
	}
	before, behind, _ := bytes.Cut(p.unread, end)
	want := append(before, end...)
	p.unread = bytes.Clone(behind) // a batch, whose time came
	got := make([]byte, len(want))
	if n, err := io.ReadFull(p.reader, got); err != nil || !bytes.Equal(got, want) {
		at := 0
		for at < n && got[at] == want[at] {
			at++
		}
		from := max(0, at-200)
		t.Fatalf("of %d bytes the gzip stream has said %d (%v), and another one at %d:\n%.600q\nwant\n%.600q", len(want), n, err, at, got[from:n], want[from:])
	}
}

// end ends the gzip stream in order: its checksum must be right.
func (p *twins) end() {
	t := p.plain.h.t
	t.Helper()
	p.zipped.h.on(p.zipped.loop, func(s *Shard) {
		sum, length := s.loop.TextSum(p.zipped.slot)
		s.loop.SendBytes(p.zipped.slot, proto.AppendGzipEnd(nil, p.zipped.form, sum, length))
		s.loop.End(p.zipped.slot, netio.FirstOwnReason)
	})
	if rest, err := io.ReadAll(p.reader); err != nil || len(rest) > 0 {
		t.Errorf("the end of the gzip stream: %q, %v", rest, err)
	}
}

// spliceChannels are of every kind that bears on how text is compressed, but for logs: of what twins read
// of their past by themselves, the one may hear something else in between than the other.
var spliceChannels = []string{"job:1", "job:2", "kept:1", "secret:1", "batch:1", "state:1", "newest:1", "job:*"}

// keepConfirmed has a stream on each loop that hears all channels, and waits until they are confirmed.
func (h *harness) keepConfirmed(channels []string) {
	h.t.Helper()
	for loop := range h.loops {
		one := h.join(loop, proto.FormText)
		go func() { _, _ = io.Copy(io.Discard, one.client) }()
		for _, channel := range channels {
			one.subscribe(channel)
		}
	}
	for _, channel := range channels {
		subscriptions := plain(channel)
		if rules := h.rules[typeOf(channel)]; rules != nil && rules.Kind == broker.State {
			subscriptions[0].Kind = broker.State
		}
		h.hub.Confirmed(subscriptions, false)
	}
	sockettest.Eventually(h.t, "all channels are confirmed", func() bool {
		h.mutex.Lock()
		defer h.mutex.Unlock()
		count := 0
		for _, times := range h.subscribed {
			count += times
		}
		return count == len(channels)*len(h.loops)
	})
}

// burst publishes so much in one turn of a loop that nothing of it but the first fits into a queue.
func (h *harness) burst(loop int, publish func()) {
	h.t.Helper()
	var budget netio.Budget
	held, over := make(chan struct{}), make(chan struct{})
	done := make(chan error)
	go func() {
		done <- h.loops[loop].Do(h.t.Context(), func() {
			s := h.hub.Shard(loop)
			budget, s.budget = s.budget, netio.Budget{Bytes: 1}
			close(held)
			<-over
		})
	}()
	<-held
	publish()
	close(over)
	if err := <-done; err != nil {
		h.t.Fatal(err)
	}
	h.on(loop, func(s *Shard) { s.budget = budget })
	for range 2 { // turns, in which those who missed something are told what there is now
		h.on(loop, func(*Shard) {})
	}
}

// publishSpliced publishes something much like the last time.
func (h *harness) publishSpliced(channel string, n int, fill string) {
	h.t.Helper()
	payload := fmt.Sprintf(`{"type":"progress","percent":%d,"stage":%q,"channel":%q}`, n, fill, channel)
	switch channel {
	case "job:*":
		h.publish("job:3", payload)
	case "state:1":
		if err := h.hub.Value(channel, []byte(payload), time.Now()); err != nil {
			h.t.Fatal(err)
		}
	default:
		h.publish(channel, payload)
	}
}

// playSplice lets happen what a script says to streams on two loops.
func playSplice(t testing.TB, script []byte) {
	h := newHarness(t, 2, nil)
	h.rules["job"] = &Rules{Compress: true}
	h.rules["kept"] = &Rules{Compress: true, Replay: Replay{Size: 4, TTL: time.Minute}}
	h.rules["batch"] = &Rules{Compress: true, Batch: time.Millisecond}
	h.rules["state"] = &Rules{Compress: true, Kind: broker.State}
	h.rules["newest"] = &Rules{Compress: true, Conflate: true}
	h.keepConfirmed(spliceChannels)
	pairs := []*twins{
		h.joinTwins(0, proto.FormSSEPlainGzip), h.joinTwins(1, proto.FormSSEPlainGzip),
		h.joinTwins(0, proto.FormSSEGzip), h.joinTwins(1, proto.FormSSEGzip),
	}
	for n, step := range script {
		pair := pairs[int(step>>3)%len(pairs)]
		channel := spliceChannels[int(step>>3)%len(spliceChannels)]
		switch step % 8 {
		case 0, 1:
			if step < 248 {
				h.publishSpliced(channel, n, "encode")
				break
			}
			h.publishSpliced(channel, n, strings.Repeat("a frame of the film; ", 2000))
			for _, pair := range pairs {
				pair.compare() // a plain stream whose socket is full is not treated as its twin
			}
		case 2:
			h.burst(pair.plain.loop, func() {
				for part := range 3 {
					h.publishSpliced(channel, n, fmt.Sprint("burst ", part))
				}
			})
		case 3, 4:
			from := beginnings[n%len(beginnings)]
			if isWildcard(channel) {
				from = From{} // it has no past
			}
			pair.subscribe(channel, from)
		case 5:
			pair.unsubscribe(channel)
		case 6:
			pair.both(func(s *Shard, slot netio.Slot, m *member) {
				s.sendOwn(slot, m, proto.AppendSSEComment(nil, m.form, "keep-alive"))
			})
		case 7:
			pair.compare()
		}
	}
	for _, pair := range pairs {
		for _, channel := range spliceChannels {
			pair.unsubscribe(channel) // so that no batch comes behind the mark
		}
		pair.compare()
		pair.end()
	}
}

// beginnings are where twins begin with a channel.
var beginnings = [...]From{{}, {Kind: FromBeginning, Text: "0"}, {Kind: FromUnknown, Text: "x"}}

// TestSplicedTextIsThePlainText plays random scripts.
func TestSplicedTextIsThePlainText(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 3))
			script := make([]byte, 400)
			for i := range script {
				script[i] = byte(random.Uint32())
				if i < 24 {
					script[i] = script[i]&^7 | 3 // they subscribe first
				}
			}
			playSplice(t, script)
		})
	}
}

func FuzzSplice(f *testing.F) {
	f.Add([]byte{3, 11, 19, 0, 1, 2, 8, 7, 15})
	f.Add([]byte{3, 27, 51, 0, 24, 48, 7, 5, 0, 3, 0, 6, 0, 0, 7, 251})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) <= 300 {
			playSplice(t, script)
		}
	})
}

// zippedBytes are what publishing does to the bytes on the wire of a stream that hears channels.
func (h *harness) zippedBytes(form proto.Form, channels []string, publish func(*harness)) int {
	h.t.Helper()
	one := h.join(0, form)
	for _, channel := range channels {
		if one.subscribe(channel) == Asked {
			h.confirm(channel)
		}
	}
	h.on(0, func(*Shard) {})
	written := func() (n uint64) {
		s, err := h.loops[0].Stats(h.t.Context())
		if err != nil {
			h.t.Fatal(err)
		}
		return s.BytesWritten
	}
	before := written()
	publish(h)
	h.on(0, func(*Shard) {}) // what was published is queued,
	h.on(0, func(*Shard) {}) // and written
	return int(written() - before)
}

// TestWhatFollowsIsShort holds what the compression is for, and where it must not be.
func TestWhatFollowsIsShort(t *testing.T) {
	progress := func(channel string, from, to int) func(*harness) {
		return func(h *harness) {
			for n := from; n < to; n++ {
				h.publish(channel, fmt.Sprintf(`{"type":"progress","jobId":"job_123","percent":%d,"stage":"encode","detail":"a frame of the film"}`, n))
				h.on(0, func(*Shard) {})
			}
		}
	}
	alternating := func(h *harness) {
		for n := range 50 {
			progress("job:1", n, n+1)(h)
			progress("job:2", n, n+1)(h)
		}
	}
	for _, c := range []struct {
		name     string
		channels []string
		publish  func(*harness)
		ratio    [2]float64 // plain bytes to those of gzip, at least and at most
	}{
		{"one channel", []string{"job:1"}, progress("job:1", 0, 100), [2]float64{3, 10}},
		{"two channels in turn: the one tells nothing of the other", []string{"job:1", "job:2"}, alternating, [2]float64{1, 1.6}},
		{"what must not be compressed", []string{"secret:1"}, progress("secret:1", 0, 100), [2]float64{0.8, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var sizes [2]int
			for i, form := range []proto.Form{proto.FormSSE, proto.FormSSEGzip} {
				h := newHarness(t, 1, nil)
				h.rules["job"] = &Rules{Compress: true}
				sizes[i] = h.zippedBytes(form, c.channels, c.publish)
			}
			if ratio := float64(sizes[0]) / float64(sizes[1]); ratio < c.ratio[0] || ratio > c.ratio[1] {
				t.Errorf("%d bytes become %d: %.2f times fewer", sizes[0], sizes[1], ratio)
			}
		})
	}
}

// TestLastTexts: what is kept is bounded, and goes with its channel.
func TestLastTexts(t *testing.T) {
	const form, withoutID = proto.FormSSEGzip, proto.FormSSEGzipWithoutID
	var last lastTexts
	text := func(number, size int) proto.Text {
		return proto.Text{Number: uint64(number), Bytes: make([]byte, size)}
	}
	last.keep(1, form, text(10, 100))
	last.keep(1, withoutID, text(11, 100))
	last.keep(1, form, text(12, 200))
	last.keep(2, form, text(0, 100)) // must not be followed on
	last.keep(0, form, text(13, 100))
	for channel, want := range map[uint32]uint64{0: 0, 1: 12, 2: 0} {
		if got := last.of(channel, form).Number; got != want {
			t.Errorf("on channel %d text %d was last, not %d", channel, got, want)
		}
	}
	if got := last.of(1, proto.FormSSEPlainGzip).Number; got != 12 {
		t.Errorf("without chunks text %d was last", got)
	}
	if got := last.of(1, proto.FormText).Number; got != 0 {
		t.Errorf("a plain form follows on text %d", got)
	}
	if got := last.of(1, withoutID).Number; got != 11 {
		t.Errorf("without ids text %d was last", got)
	}
	if want := 2*lastOverhead + 300; last.bytes != want {
		t.Errorf("%d bytes are counted, not %d", last.bytes, want)
	}
	last.forget(1)
	last.forget(1)
	if last.bytes != 0 || last.order.Len() != 0 || last.of(1, form).Number != 0 {
		t.Errorf("%d bytes are left of a channel that was let go of", last.bytes)
	}
	const size = 10_000
	last.keep(1, form, text(1, 1<<20))
	if last.bytes > 20_000 {
		t.Errorf("of a large text %d bytes are kept", last.bytes)
	}
	for channel := uint32(2); channel < 2000; channel++ {
		last.keep(channel, form, text(int(channel), size))
		last.keep(1, form, text(1, size)) // is always the newest but one
		if last.bytes > lastBytesMax {
			t.Fatalf("%d bytes are kept", last.bytes)
		}
	}
	if last.of(1, form).Number == 0 || last.of(2, form).Number != 0 || last.of(1999, form).Number == 0 {
		t.Error("not the oldest were pushed out")
	}
}

// TestLastTextGoesWithItsChannel: the next channel in its place must not follow on it.
func TestLastTextGoesWithItsChannel(t *testing.T) {
	h := newHarness(t, 1, nil)
	h.rules["job"] = &Rules{Compress: true}
	one := h.join(0, proto.FormSSEGzip)
	one.subscribe("job:1")
	h.confirm("job:1")
	h.publish("job:1", `{"n":1}`)
	texts := func() (n int) {
		h.on(0, func(s *Shard) { n = s.last.order.Len() })
		return n
	}
	sockettest.Eventually(t, "the text is kept", func() bool { return texts() == 1 })
	one.unsubscribe("job:1")
	if n := texts(); n != 0 {
		t.Errorf("%d texts are kept of a channel that nobody hears", n)
	}
}
