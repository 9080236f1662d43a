package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/proto"
	"github.com/millrace/millrace/proto/deflate"
)

// abuse is one thing that a hostile peer does. The cases themselves, and what each must come to, are
// the subject of the tests in hostile; here they go on for long.
type abuse struct {
	name string
	// ends says that the gateway must end the connection, by itself and soon.
	ends bool
	do   func(*abuser) error
}

// abuses are a selection: what costs memory, descriptors or goroutines if it is not undone.
var abuses = []abuse{
	{"random bytes", true, (*abuser).randomBytes},
	{"a TLS greeting", true, func(a *abuser) error {
		return a.say("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x00", 300))
	}},
	{"a head of 64 KiB", true, func(a *abuser) error {
		return a.say("GET /ws HTTP/1.1\r\nHost: " + a.address + "\r\nCookie: " + strings.Repeat("x", 64<<10) + "\r\n\r\n")
	}},
	{"a slow head", true, (*abuser).slowHead},
	{"a frame that says it is huge", true, func(a *abuser) error { return a.frame("\x81\xff\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00") }},
	{"a frame without a mask", true, func(a *abuser) error { return a.frame("\x81\x05hello") }},
	{"text that is not UTF-8", true, func(a *abuser) error { return a.message("\xff\xfe") }},
	{"a message in endless pieces", true, (*abuser).endlessMessage},
	{"a compressed bomb", true, (*abuser).bomb},
	{"commands that are none", false, (*abuser).badCommands},
	{"a flood of subscriptions", false, (*abuser).subscribeFlood},
	{"pings whose answers nobody reads", false, (*abuser).pingFlood},
	{"a reader that does not read", false, (*abuser).stall},
	{"requests behind an event stream", false, (*abuser).pipeline},
}

const (
	// abusePatience bounds the wait for the end that the gateway must make: the time for a request's
	// head and for an answer to a close, on a busy machine.
	abusePatience = time.Minute
	slowHeadPause = 500 * time.Millisecond
	stallTime     = 20 * time.Second
	floodTime     = 3 * time.Second
	floodCommands = 400
	floodPings    = 2000
	bombBytes     = 4 << 20
	pieceBytes    = 8 << 10
	pieceCount    = 32
	nesting       = 20_000
)

// abusers do each abuse again and again, from one goroutine for each kind.
type abusers struct {
	plan      plan
	addresses []string

	mutex  sync.Mutex // guards what follows
	counts []abuseCount
}

// abuseCount is what became of one kind of abuse.
type abuseCount struct {
	done, unended, failed int
	why                   string // of the last that failed
}

func newAbusers(p plan, addresses []string) *abusers {
	return &abusers{plan: p, addresses: addresses, counts: make([]abuseCount, len(abuses))}
}

// run abuses until ctx ends, and waits until the last has gone.
func (a *abusers) run(ctx context.Context) {
	var all sync.WaitGroup
	for index := range abuses {
		all.Go(func() {
			random := rand.New(rand.NewPCG(a.plan.seed, 1<<43+uint64(index)))
			for number := index; ctx.Err() == nil; number++ {
				a.note(index, a.once(ctx, &abuses[index], a.addresses[number%len(a.addresses)], random))
				sleep(ctx, a.plan.soak.abusePause)
			}
		})
	}
	all.Wait()
}

var (
	errNotEnded  = errors.New("the gateway did not end the connection")
	errNoUpgrade = errors.New("there is no WebSocket to abuse")
)

// once abuses one connection.
func (a *abusers) once(ctx context.Context, kind *abuse, address string, random *rand.Rand) error {
	connection, err := dial(ctx, address)
	if err != nil {
		return err
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(abusePatience))
	one := &abuser{ctx: ctx, address: address, TCPConn: connection, random: random}
	err = kind.do(one)
	if !kind.ends {
		_ = connection.SetLinger(0)
		return err
	}
	if errors.Is(err, errNoUpgrade) {
		return err
	}
	// Any other error says that the gateway takes no more of it, which is an end as good as any.
	if _, err := io.Copy(io.Discard, connection); isTimeout(err) {
		return errNotEnded
	}
	return nil
}

// note counts what became of an abuse.
func (a *abusers) note(index int, err error) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	one := &a.counts[index]
	switch {
	case errors.Is(err, errNotEnded):
		one.unended++
	case err != nil:
		one.failed++
		one.why = plainWords(err)
	}
	one.done++
}

// String says how often there was abuse so far.
func (a *abusers) String() string {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	total := 0
	for _, one := range a.counts {
		total += one.done
	}
	return fmt.Sprintf("%d abuses of %d kinds", total, len(abuses))
}

// broken says which abuses did not end as they must.
func (a *abusers) broken() []string {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	var words []string
	for index, one := range a.counts {
		if one.unended > 0 {
			words = append(words, fmt.Sprintf("abuse: %s was not ended %d of %d times", abuses[index].name, one.unended, one.done))
		}
		if one.failed > 0 {
			words = append(words, fmt.Sprintf("abuse: %s could not be done %d of %d times: %s", abuses[index].name, one.failed, one.done, one.why))
		}
	}
	return words
}

// abuser is one connection of one who means no good.
type abuser struct {
	*net.TCPConn
	ctx     context.Context // of the soak: who only waits goes when it ends
	address string
	random  *rand.Rand
}

func (a *abuser) say(text string) error {
	_, err := io.WriteString(a.TCPConn, text)
	return err
}

// frame says text on a WebSocket.
func (a *abuser) frame(text string) error {
	if err := a.upgrade(); err != nil {
		return err
	}
	return a.say(text)
}

// message says a whole text on a WebSocket.
func (a *abuser) message(text string) error {
	return a.frame(string(proto.AppendMaskedFrame(nil, proto.OpText, []byte(text), mask)))
}

// upgrade asks for a WebSocket and reads the head of the answer, and no byte behind it.
func (a *abuser) upgrade(headers ...string) error {
	head := "GET /ws HTTP/1.1\r\nHost: " + a.address + "\r\n" + strings.Join(append(headers, webSocketHeaders...), "\r\n") + "\r\n\r\n"
	if err := a.say(head); err != nil {
		return err
	}
	var answer []byte
	for one := make([]byte, 1); !bytes.HasSuffix(answer, []byte("\r\n\r\n")); {
		if _, err := io.ReadFull(a.TCPConn, one); err != nil {
			return fmt.Errorf("%w: %w", errNoUpgrade, err)
		}
		answer = append(answer, one...)
	}
	if want := fmt.Sprintf("HTTP/1.1 %d ", http.StatusSwitchingProtocols); !bytes.HasPrefix(answer, []byte(want)) {
		line, _, _ := bytes.Cut(answer, []byte("\r\n"))
		return fmt.Errorf("%w: the answer is %q", errNoUpgrade, line)
	}
	return nil
}

func (a *abuser) randomBytes() error {
	text := make([]byte, 0, 512)
	for len(text) < cap(text) {
		text = binary.LittleEndian.AppendUint64(text, a.random.Uint64())
	}
	return a.say(string(text) + "\r\n\r\n")
}

// slowHead sends a head byte by byte, until the gateway has had enough of it.
func (a *abuser) slowHead() error {
	for _, one := range "GET /api/stream?channel=events:0 HTTP/1.1\r\nX: " + strings.Repeat("x", 1000) {
		if a.ctx.Err() != nil || a.say(string(one)) != nil {
			return nil
		}
		sleep(a.ctx, slowHeadPause)
	}
	return nil
}

// endlessMessage sends piece after piece of a message that never ends.
func (a *abuser) endlessMessage() error {
	if err := a.upgrade(); err != nil {
		return err
	}
	piece := proto.AppendMaskedFrame(nil, proto.OpText, bytes.Repeat([]byte("x"), pieceBytes), mask)
	piece[0] &^= 0x80 // not the last one
	for range pieceCount {
		if a.say(string(piece)) != nil {
			return nil
		}
		piece[0] = 0 // goes on
	}
	return nil
}

// bombText is megabytes in a few kilobytes, as permessage-deflate has it.
var bombText = sync.OnceValue(func() []byte {
	return bytes.TrimSuffix(deflate.AppendBlock(nil, bytes.Repeat([]byte(" "), bombBytes), nil), []byte("\x00\x00\xff\xff"))
})

func (a *abuser) bomb() error {
	if err := a.upgrade("Sec-WebSocket-Extensions: permessage-deflate"); err != nil {
		return err
	}
	frame := proto.AppendMaskedFrame(nil, proto.OpText, bombText(), mask)
	frame[0] |= 0x40 // compressed
	_, err := a.Write(frame)
	return err
}

// commands sends many at once. A gateway that has had enough closes, which is well.
func (a *abuser) commands(all ...string) error {
	if err := a.upgrade(); err != nil {
		return err
	}
	var text []byte
	for _, one := range all {
		text = proto.AppendMaskedFrame(text, proto.OpText, []byte(one), mask)
	}
	if _, err := a.Write(text); err != nil {
		return nil
	}
	a.drain()
	return nil
}

// drain reads for a while.
func (a *abuser) drain() {
	_ = a.SetReadDeadline(time.Now().Add(floodTime))
	_, _ = io.Copy(io.Discard, a.TCPConn) // whatever comes, and however it ends
}

func (a *abuser) badCommands() error {
	return a.commands(
		strings.Repeat("[", nesting), `{"type":"subscribe","channel":"events:0"`, `{"type":1e400}`, "null", strings.Repeat("\n", nesting),
		`{"type":"subscribe","channel":"events:*"}`, `{"type":"subscribe","channel":"__millrace:x"}`,
		`{"type":"subscribe","channel":"`+strings.Repeat("x", nesting)+`"}`, `{"type":"unsubscribe","channel":"events:never"}`,
		`{"type":"publish","channel":"log:0"}`, `{"type":"refresh","token":"x.y.z"}`, `{"type":"\ud800"}`,
	)
}

// subscribeFlood subscribes to channels that nobody knows and leaves them again.
func (a *abuser) subscribeFlood() error {
	all := make([]string, 0, floodCommands)
	for range floodCommands / 2 {
		channel := fmt.Sprintf("%s:flood-%d", mode(a.random.IntN(int(modeCount))), a.random.Uint32())
		all = append(all, `{"type":"subscribe","channel":"`+channel+`"}`, `{"type":"unsubscribe","channel":"`+channel+`"}`)
	}
	return a.commands(all...)
}

// pingFlood reads none of the pongs.
func (a *abuser) pingFlood() error {
	if err := a.upgrade(); err != nil {
		return err
	}
	ping := proto.AppendMaskedFrame(nil, proto.OpPing, bytes.Repeat([]byte("x"), 125), mask)
	_ = a.SetWriteDeadline(time.Now().Add(floodTime))
	_, _ = a.Write(bytes.Repeat(ping, floodPings)) // the gateway need not take them all
	sleep(a.ctx, floodTime)
	return nil
}

// stall asks for all of a loud log and reads nothing of it.
func (a *abuser) stall() error {
	if err := a.SetReadBuffer(stallingReceiveBytes); err != nil {
		return err
	}
	if err := a.message(`{"type":"subscribe","channels":["log:0","log:1","events:0","events:1"],"since":"0"}`); err != nil {
		return err
	}
	sleep(a.ctx, stallTime)
	return nil
}

// pipeline sends request after request behind one that is answered with a stream.
func (a *abuser) pipeline() error {
	if err := a.say("GET /api/stream?channel=events:0 HTTP/1.1\r\nHost: " + a.address + "\r\n\r\n"); err != nil {
		return err
	}
	_, _ = a.Write(bytes.Repeat([]byte("GET /healthz HTTP/1.1\r\nHost: "+a.address+"\r\n\r\n"), floodCommands)) // none is answered
	a.drain()
	return nil
}
