package hostile

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/redistest"
)

// feedChannel is where the bystanders listen. Its type is readable for every user by default.
const feedChannel = "job_progress:bystander"

// feedPace is the time from one event of the feed to the next.
const feedPace = 25 * time.Millisecond

// feed publishes a numbered sequence until the test ends: through Redis where there is one, else
// through the gateway.
type feed struct {
	send func(number int) error

	mutex sync.Mutex
	at    []time.Time // when number index+1 was published
	taken int         // the highest number that was taken
}

// An answer must come within limit: a number whose answer does not is given up.
func startFeed(w *world, limit time.Duration) *feed {
	f := &feed{}
	var connection net.Conn
	var reader *bufio.Reader
	f.send = func(number int) error {
		address, request := w.gateway.address, httpPublish(w.token, feedChannel, fmt.Sprintf(`{"n":%d}`, number))
		if w.redis != nil {
			address, request = w.redis.Addr, redistest.Encode("PUBLISH", feedChannel, fmt.Sprintf(`{"n":%d}`, number))
		}
		if connection == nil {
			err := w.redisHost.inside(func() (err error) {
				connection, err = net.DialTimeout("tcp", address, time.Second)
				return err
			})
			if err != nil {
				connection = nil
				return err
			}
			reader = bufio.NewReader(connection)
		}
		_ = connection.SetDeadline(time.Now().Add(limit))
		err := once(connection, reader, request, w.redis != nil)
		if err != nil {
			connection.Close()
			connection = nil
		}
		return err
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		f.run(stop)
		if connection != nil {
			connection.Close()
		}
	}()
	w.Cleanup(func() {
		close(stop)
		<-done
	})
	return f
}

// once sends one publication and reads its answer.
func once(connection net.Conn, reader *bufio.Reader, request []byte, redis bool) error {
	if _, err := connection.Write(request); err != nil {
		return err
	}
	if redis {
		line, err := reader.ReadString('\n')
		if err == nil && line[0] != ':' {
			err = errors.New(strings.TrimSpace(line))
		}
		return err
	}
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

func (f *feed) run(stop chan struct{}) {
	ticker := time.NewTicker(feedPace)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		f.mutex.Lock()
		f.at = append(f.at, time.Now())
		number := len(f.at)
		f.mutex.Unlock()
		// Whether what failed was passed on is not known: no number is published twice.
		if f.send(number) == nil {
			f.mutex.Lock()
			f.taken = number
			f.mutex.Unlock()
		}
	}
}

// last is the highest number that was taken.
func (f *feed) last() int {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.taken
}

func (f *feed) delay(number int) time.Duration {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return time.Since(f.at[number-1])
}

// httpPublish is a request to publish one event.
func httpPublish(token, channel, event string) []byte {
	body := fmt.Sprintf(`{"channel":%q,"event":%s}`, channel, event)
	authorization := ""
	if token != "" {
		authorization = "Authorization: Bearer " + token + "\r\n"
	}
	return fmt.Appendf(nil, "POST /api/publish HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s",
		authorization, len(body), body)
}

// bystander listens to the feed, and holds it to the promise: in order, none twice, and a missing
// number only beside a declared gap.
type bystander struct {
	wire  string
	feed  *feed
	ended chan struct{} // closed when its stream has ended

	mutex   sync.Mutex
	last    int
	gap     bool // heard since the last event
	gaps    int
	wrong   []string      // breaches of the promise
	longest time.Duration // from publication to arrival
	recent  time.Duration // of the last event
	failure error         // with which the stream ended
}

// listen starts a bystander on one wire. It is live when listen returns, and ends with the test.
func listen(w *world, wire, token string) *bystander {
	w.Helper()
	b := &bystander{wire: wire, feed: w.feed, ended: make(chan struct{})}
	var next func() (string, error)
	var closer io.Closer
	if wire == "sse" {
		s := w.stream("/api/stream?channel="+feedChannel, bearer(token)...)
		s.await("connected", func(e sseEvent) bool { return e.name == "connected" })
		_ = s.SetDeadline(time.Time{})
		closer, next = s, func() (string, error) {
			e, err := s.next()
			return e.data, err
		}
	} else {
		s := w.websocket("/ws?channel="+feedChannel, bearer(token)...)
		s.await("subscribed")
		_ = s.SetDeadline(time.Time{})
		closer, next = s, s.text
	}
	go func() {
		defer close(b.ended)
		for {
			text, err := next()
			if err != nil {
				b.mutex.Lock()
				b.failure = err
				b.mutex.Unlock()
				return
			}
			b.hear(text)
		}
	}()
	w.Cleanup(func() {
		closer.Close()
		<-b.ended
	})
	return b
}

func bearer(token string) []string {
	if token == "" {
		return nil
	}
	return []string{"Authorization: Bearer " + token}
}

// hear takes one message.
func (b *bystander) hear(text string) {
	var said struct {
		Type   string `json:"type"`
		Number int    `json:"n"`
	}
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if err := json.Unmarshal([]byte(text), &said); err != nil {
		b.wrong = append(b.wrong, fmt.Sprintf("heard %q, which is not JSON", text))
		return
	}
	if said.Type == "gap" {
		b.gap = true
		b.gaps++
	}
	if said.Number == 0 {
		return
	}
	b.recent = b.feed.delay(said.Number)
	b.longest = max(b.longest, b.recent)
	switch {
	case b.last == 0 || said.Number == b.last+1:
	case said.Number <= b.last:
		b.wrong = append(b.wrong, fmt.Sprintf("%d came after %d: twice, or out of order", said.Number, b.last))
	case !b.gap:
		b.wrong = append(b.wrong, fmt.Sprintf("%d came after %d and no gap was told: a silent loss", said.Number, b.last))
	}
	b.last, b.gap = said.Number, false
}

// heard is the last number, and how long it took.
func (b *bystander) heard() (number int, took time.Duration) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.last, b.recent
}
