package bench

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A feed is how a subject is told to publish: the same bytes that one of its ordinary publishers
// would send. Requests are pipelined, answers are read between two of them and judged, so that
// publishing costs the harness's core as little as it can and wakes nobody.
type feed struct {
	fd       int
	dialect  dialect
	request  []byte // under construction
	answers  []byte // read and not yet judged
	expected int    // answers that are still to come
}

// dialect is the language of a feed.
type dialect interface {
	// appendPublish appends the request that publishes payload on channel.
	appendPublish(dst []byte, channel string, payload []byte) []byte
	// judge takes whole answers from the front of b and gives what is left and how many they
	// were. An error is a refusal.
	judge(b []byte) (rest []byte, answers int, err error)
	// answers says whether there is one for each request.
	answers() bool
}

// openFeed connects to address (HOST:PORT).
func openFeed(address string, d dialect) (*feed, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("feed: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("feed: open a socket: %w", err)
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("feed: connect to %s: %w", address, err)
	}
	return &feed{fd: fd, dialect: d, answers: make([]byte, 0, 64<<10)}, nil
}

func (f *feed) close() { unix.Close(f.fd) }

// add puts one message into the request under construction.
func (f *feed) add(channel string, payload []byte) {
	f.request = f.dialect.appendPublish(f.request, channel, payload)
	if f.dialect.answers() {
		f.expected++
	}
}

// send sends what was added, in as few pieces as the kernel takes, after a look at the answers to
// what was sent before.
func (f *feed) send() error {
	if err := f.hear(unix.MSG_DONTWAIT); err != nil {
		return err
	}
	for rest := f.request; len(rest) > 0; {
		n, err := unix.Write(f.fd, rest)
		if err == unix.EINTR { //nolint:errorlint // x/sys returns bare errnos
			continue
		}
		if err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		rest = rest[n:]
	}
	f.request = f.request[:0]
	return nil
}

// settle waits for the answers that are still to come.
func (f *feed) settle() error {
	limit := unix.NsecToTimeval(int64(startTimeout))
	if err := unix.SetsockoptTimeval(f.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	for f.expected > 0 {
		if err := f.hear(0); err != nil {
			return err
		}
	}
	return nil
}

// hear reads what answers there are and judges them.
func (f *feed) hear(flags int) error {
	for {
		var buffer [32 << 10]byte
		n, _, err := unix.Recvfrom(f.fd, buffer[:], flags)
		switch {
		case err == unix.EINTR: //nolint:errorlint // x/sys returns bare errnos
			continue
		case err == unix.EAGAIN && flags&unix.MSG_DONTWAIT != 0: //nolint:errorlint // as above
			return nil
		case err != nil:
			return fmt.Errorf("publish: no answer: %w", err)
		case n == 0:
			return fmt.Errorf("publish: the server closed its feed; %d answers are missing", f.expected)
		}
		f.answers = append(f.answers, buffer[:n]...)
		rest, count, err := f.dialect.judge(f.answers)
		if err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		f.answers = f.answers[:copy(f.answers, rest)]
		f.expected -= count
		if flags&unix.MSG_DONTWAIT == 0 || n < len(buffer) {
			return nil
		}
	}
}

// lineDialect is "CHANNEL PAYLOAD\n", without an answer: what the floor and the plain servers take.
type lineDialect struct{}

func (lineDialect) appendPublish(dst []byte, channel string, payload []byte) []byte {
	dst = append(dst, channel...)
	dst = append(dst, ' ')
	dst = append(dst, payload...)
	return append(dst, '\n')
}

func (lineDialect) judge(b []byte) ([]byte, int, error) { return b[len(b):], 0, nil }
func (lineDialect) answers() bool                       { return false }

// redisDialect is a command that publishes, in the protocol of Redis.
type redisDialect struct {
	// command is PUBLISH where it is empty; it names the channel, then what stands between, then
	// the payload.
	command string
	between []string
	// prefix stands before the channel in Redis.
	prefix string
	// wrap appends the payload as the subject carries it; nil takes it as it is.
	wrap func(dst, payload []byte) []byte
}

func (r redisDialect) appendPublish(dst []byte, channel string, payload []byte) []byte {
	if r.wrap != nil {
		payload = r.wrap(nil, payload)
	}
	dst = append(dst, '*')
	dst = strconv.AppendInt(dst, int64(3+len(r.between)), 10)
	dst = append(dst, "\r\n"...)
	dst = appendBulk(dst, cmp.Or(r.command, "PUBLISH"))
	dst = append(dst, '$')
	dst = strconv.AppendInt(dst, int64(len(r.prefix)+len(channel)), 10)
	dst = append(dst, "\r\n"...)
	dst = append(dst, r.prefix...)
	dst = append(dst, channel...)
	dst = append(dst, "\r\n"...)
	for _, word := range r.between {
		dst = appendBulk(dst, word)
	}
	return appendBulk(dst, payload)
}

// appendBulk appends a bulk string of the protocol of Redis.
func appendBulk[text string | []byte](dst []byte, s text) []byte {
	dst = append(dst, '$')
	dst = strconv.AppendInt(dst, int64(len(s)), 10)
	dst = append(dst, "\r\n"...)
	dst = append(dst, s...)
	return append(dst, "\r\n"...)
}

func (redisDialect) judge(b []byte) ([]byte, int, error) {
	answers := 0
	for {
		end := bytes.Index(b, []byte("\r\n"))
		if end < 0 {
			return b, answers, nil
		}
		if b[0] == '-' {
			return b, answers, fmt.Errorf("redis says %q", b[1:end])
		}
		end += len("\r\n")
		if b[0] == '$' { // a bulk string, as XADD answers with
			length, err := strconv.Atoi(string(b[1 : end-len("\r\n")]))
			if err != nil || length < 0 {
				return b, answers, fmt.Errorf("redis answers %q", b[:end])
			}
			if end += length + len("\r\n"); end > len(b) {
				return b, answers, nil
			}
		}
		b = b[end:]
		answers++
	}
}

func (redisDialect) answers() bool { return true }

// httpDialect is a POST a message on one kept connection.
type httpDialect struct {
	// target is the request's target; "{channel}" in it stands for the channel.
	target string
	// headers are whole lines, without line ends.
	headers []string
	// body wraps a payload; nil sends it as it is.
	body func(dst []byte, channel string, payload []byte) []byte
}

func (h *httpDialect) appendPublish(dst []byte, channel string, payload []byte) []byte {
	body := payload
	if h.body != nil {
		body = h.body(nil, channel, payload)
	}
	dst = append(dst, "POST "...)
	dst = append(dst, strings.ReplaceAll(h.target, "{channel}", channel)...)
	dst = append(dst, " HTTP/1.1\r\nHost: 127.0.0.1\r\n"...)
	for _, header := range h.headers {
		dst = append(dst, header...)
		dst = append(dst, "\r\n"...)
	}
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(body)), 10)
	dst = append(dst, "\r\n\r\n"...)
	return append(dst, body...)
}

func (h *httpDialect) judge(b []byte) ([]byte, int, error) {
	answers := 0
	for {
		end := bytes.Index(b, headEnd)
		if end < 0 {
			return b, answers, nil
		}
		head := string(b[:end])
		status, _, _ := strings.Cut(head, "\r\n")
		if _, code, _ := strings.Cut(status, " "); !strings.HasPrefix(code, "2") {
			return b, answers, fmt.Errorf("the server answers %q", status)
		}
		whole, ok := bodyEnd(head, b, end+len(headEnd))
		if !ok {
			return b, answers, nil
		}
		b = b[whole:]
		answers++
	}
}

// bodyEnd is where the body ends that begins at from, if it is there as a whole.
func bodyEnd(head string, b []byte, from int) (end int, whole bool) {
	for line := range strings.Lines(strings.ToLower(head)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch {
		case name == "content-length":
			length, err := strconv.Atoi(value)
			return from + length, err == nil && from+length <= len(b)
		case name == "transfer-encoding" && value == "chunked":
			// The answers of a publisher are short: their last chunk is the first that is empty.
			last := bytes.Index(b[from:], []byte("0\r\n\r\n"))
			return from + last + 5, last >= 0
		}
	}
	return from, true
}

func (h *httpDialect) answers() bool { return true }
