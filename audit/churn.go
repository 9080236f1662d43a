package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/proto"
)

// leaving is how a visitor of the churn goes.
type leaving uint8

const (
	leavesInOrder  leaving = iota // a close frame, or the end of what an event stream's client sends
	leavesByReset                 // a reset, while the gateway may be writing
	leavesUnheard                 // a reset right behind the whole request
	leavesMidHead                 // the end, in the middle of a request's head
	leavesMidReset                // the same by a reset
	leavesWordless                // the end, before any byte
	leavingCount
)

func (l leaving) String() string {
	return [...]string{"in order", "by a reset", "before the answer", "within the head", "within the head by a reset", "without a word"}[l]
}

// answers reports whether who leaves so waits for an answer before.
func (l leaving) answers() bool { return l == leavesInOrder || l == leavesByReset }

const (
	// visitsMax bounds the visitors at one time, where a machine is too slow for all of them.
	visitsMax = 2000
	// visitTick is how often visitors set out.
	visitTick = 20 * time.Millisecond
	// visitStay is the longest that one stays who is heard.
	visitStay = 2 * time.Second
	// visitPatience bounds a whole visit. Redis may be away for a while, and no channel is confirmed
	// then, but the gateway answers.
	visitPatience = time.Minute
	// visitFailures bounds the different ways to fail that are told apart.
	visitFailures = 20
	// freshOneIn says how many visitors share one channel that nobody has heard of before; all
	// others listen to what others listen to.
	freshOneIn = 2
)

// churn comes and goes, on both wires and in all ways. Whoever sends a whole request and waits must be
// answered.
type churn struct {
	plan      plan
	addresses []string
	random    *rand.Rand // of the one who sends visitors out

	mutex    sync.Mutex // guards what follows
	out      int        // visitors at the moment
	visits   [leavingCount]int
	skipped  int // visits that were due while too many were out
	heard    int
	failures map[string]int
}

func newChurn(p plan, addresses []string) *churn {
	return &churn{
		plan: p, addresses: addresses, random: rand.New(rand.NewPCG(p.seed, 1<<42)), failures: make(map[string]int),
	}
}

// visit is one visitor.
type visit struct {
	address   string
	webSocket bool
	channel   string
	leaving   leaving
	stay      time.Duration
}

// run sends visitors out until ctx ends, and waits until all are back.
func (c *churn) run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	ticker := time.NewTicker(visitTick)
	defer ticker.Stop()
	began, sent := time.Now(), 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for due := int(time.Since(began).Seconds() * float64(c.plan.soak.visits)); sent < due; sent++ {
			one := c.next(sent)
			if !c.begin(one) {
				continue
			}
			all.Go(func() { c.end(one, one.do(ctx)) })
		}
	}
}

// next chooses a visitor.
func (c *churn) next(number int) visit {
	m := mode(c.random.IntN(int(modeCount)))
	one := visit{
		address: c.addresses[c.random.IntN(len(c.addresses))], webSocket: c.random.IntN(2) == 0,
		leaving: leaving(c.random.IntN(int(leavingCount))), stay: between(c.random, 0, visitStay),
		channel: m.String() + ":" + strconv.Itoa(c.random.IntN(c.plan.channels)),
	}
	if c.random.IntN(freshOneIn) == 0 {
		one.channel = m.String() + ":churn-" + strconv.Itoa(number)
	}
	return one
}

// begin notes a visitor; false means that too many are out.
func (c *churn) begin(one visit) bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.out >= visitsMax {
		c.skipped++
		return false
	}
	c.out++
	c.visits[one.leaving]++
	return true
}

// end notes how a visit went.
func (c *churn) end(one visit, err error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.out--
	switch {
	case err == nil && one.leaving.answers():
		c.heard++
	case err != nil:
		words := "leaving " + one.leaving.String() + ": " + plainWords(err)
		if _, known := c.failures[words]; !known && len(c.failures) == visitFailures {
			words = "another way"
		}
		c.failures[words]++
	}
}

// do visits the gateway. Only who waits for an answer can fail: others may find that the gateway
// was faster in closing.
func (v visit) do(ctx context.Context) error {
	connection, err := dial(ctx, v.address)
	if err != nil {
		return err
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(visitPatience))
	request := v.request()
	switch v.leaving {
	case leavesWordless:
		return nil
	case leavesMidHead, leavesMidReset:
		request = request[:len(request)/2]
	}
	if _, err := connection.Write([]byte(request)); err != nil {
		return err
	}
	if v.leaving.answers() {
		if err := v.listen(ctx, connection); err != nil {
			return err
		}
	}
	if v.leaving == leavesByReset || v.leaving == leavesUnheard || v.leaving == leavesMidReset {
		_ = connection.SetLinger(0)
	}
	return nil
}

// dial connects. A gateway takes everybody who comes.
func dial(ctx context.Context, address string) (*net.TCPConn, error) {
	dialer := net.Dialer{Timeout: dialTimeout}
	// That the soak ends is no reason to break off: only the dialer's own time is.
	connection, err := dialer.DialContext(context.WithoutCancel(ctx), "tcp", address)
	if err != nil {
		return nil, err
	}
	return connection.(*net.TCPConn), nil
}

// request is the head that asks for a stream.
func (v visit) request() string {
	if v.webSocket {
		return "GET /ws HTTP/1.1\r\nHost: " + v.address + "\r\n" + strings.Join(webSocketHeaders, "\r\n") + "\r\n\r\n"
	}
	return "GET /api/stream?channel=" + v.channel + " HTTP/1.1\r\nHost: " + v.address + "\r\n\r\n"
}

// listen waits for the answer, stays for a while, and leaves in order, if it does.
func (v visit) listen(ctx context.Context, connection *net.TCPConn) error {
	reader := bufio.NewReader(connection)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return fmt.Errorf("read the answer's head: %w", err)
	}
	want := http.StatusOK
	if v.webSocket {
		want = http.StatusSwitchingProtocols
	}
	if response.StatusCode != want {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	if v.webSocket {
		command := fmt.Appendf(nil, `{"type":"subscribe","channel":%q}`, v.channel)
		if _, err := connection.Write(proto.AppendMaskedFrame(nil, proto.OpText, command, mask)); err != nil {
			return err
		}
	}
	sleep(ctx, v.stay)
	if v.leaving != leavesInOrder {
		return nil
	}
	if v.webSocket {
		_, err = connection.Write(proto.AppendMaskedFrame(nil, proto.OpClose, nil, mask))
	} else {
		err = connection.CloseWrite()
	}
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, reader); isTimeout(err) {
		return errors.New("the gateway did not end the stream that its client had left")
	}
	return nil
}

func isTimeout(err error) bool {
	var late net.Error
	return errors.As(err, &late) && late.Timeout()
}

// String says what was done so far.
func (c *churn) String() string {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	words := make([]string, 0, leavingCount)
	total := 0
	for l, count := range c.visits {
		total += count
		words = append(words, fmt.Sprintf("%d %s", count, leaving(l)))
	}
	text := fmt.Sprintf("%d visits, %d of them answered; left %s", total, c.heard, strings.Join(words, ", "))
	if c.skipped > 0 {
		text += fmt.Sprintf("; %d were left out, the machine being too slow", c.skipped)
	}
	return text
}

// broken says which visitors were not answered, though they were promised to be.
func (c *churn) broken() []string {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	words := make([]string, 0, len(c.failures))
	for _, one := range slices.Sorted(maps.Keys(c.failures)) {
		words = append(words, fmt.Sprintf("churn: %d visitors failed, %s", c.failures[one], one))
	}
	return words
}
