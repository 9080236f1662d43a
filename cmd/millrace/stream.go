package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/millrace/millrace/proto"
)

// Times of a stream.
const (
	// retryDefault is how long a lost stream waits until the gateway has said otherwise.
	retryDefault = 3 * time.Second
	// retryMax bounds the wait, which doubles with each failure in a row.
	retryMax = 30 * time.Second
	// retryAskedMax bounds what a gateway may ask for.
	retryAskedMax = 10 * time.Minute
	// silenceMax is how long a stream may be silent. The gateway sends a comment every 15 s, so
	// more than this means that the connection is dead though nobody said so.
	silenceMax = 60 * time.Second
	// answerTimeout bounds the wait for the answer's head.
	answerTimeout = 20 * time.Second
)

// streamReadBytes is how much of a stream is read at a time.
const streamReadBytes = 32 << 10

// errComplete says that the gateway has nothing more to send on this stream, now or later.
var errComplete = errors.New("the stream is complete")

// stream reads a gateway's Server-Sent Events the way a browser's EventSource does (WHATWG HTML,
// 9.2): it comes back after every loss with the id of the last event, waits as long as retry says,
// and ends for good on 204, on an answer that is no stream, and on the event complete. Beyond
// that it backs off while it fails, and notices a dead connection by its silence.
type stream struct {
	target  *target
	output  *printer
	address string
	only    string // the channel, if there is one only
	client  *http.Client

	connected bool // at least once
	failures  int  // in a row
	retry     time.Duration
	lastID    string
	seen      *recentIDs
}

func newStream(chosen *target, channels []proto.Channel, output *printer) *stream {
	query := url.Values{}
	for _, channel := range channels {
		query.Add("channel", channel.Name())
	}
	transport := newTransport()
	transport.ResponseHeaderTimeout = answerTimeout
	made := &stream{
		target: chosen, output: output, retry: retryDefault, seen: newRecentIDs(),
		address: chosen.gateway.String() + "/api/stream?" + query.Encode(),
		client:  &http.Client{Transport: transport, CheckRedirect: noRedirect},
	}
	if len(channels) == 1 && !channels[0].Wildcard() {
		made.only = channels[0].Name()
	}
	return made
}

// run reads until the stream is complete, ctx ends, or coming back makes no sense.
func (s *stream) run(ctx context.Context) error {
	defer s.client.CloseIdleConnections()
	for {
		err := s.once(ctx)
		switch {
		case errors.Is(err, errComplete):
			s.output.note("the stream is complete")
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case s.final(err):
			return err
		}
		wait := s.wait(err)
		s.output.note("%v; again in %s", err, wait.Round(100*time.Millisecond))
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// final says whether coming back makes no sense. What fails before it ever worked is told at
// once: the address or the token is wrong, and waiting would hide it.
func (s *stream) final(err error) bool {
	var refused *refusal
	var failed *outputError
	switch {
	case errors.As(err, &failed), errors.Is(err, errNoStream):
		return true
	case errors.As(err, &refused):
		return !s.connected || !refused.passing()
	default:
		return !s.connected
	}
}

// wait gives the time until the next try: what the gateway asked for, doubled with each failure in
// a row, and up to a fifth more so that many do not come at once.
func (s *stream) wait(err error) time.Duration {
	base := s.retry
	for range min(s.failures, 10) {
		base = min(2*base, max(retryMax, s.retry))
	}
	var refused *refusal
	if errors.As(err, &refused) {
		base = max(base, refused.retryAfter)
	}
	s.failures++
	return base + rand.N(base/5+1)
}

// errNoStream says that somebody answered who is no gateway.
var errNoStream = errors.New("the answer is no event stream; is this the address of a Millrace gateway?")

// outputError is a failure to print, after which reading on is pointless.
type outputError struct{ error }

// once makes one connection and reads it to its end. It never returns nil.
func (s *stream) once(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.address, nil)
	if err != nil {
		return fmt.Errorf("stream: %w", err)
	}
	request.Header.Set("Accept", "text/event-stream")
	if s.lastID != "" {
		request.Header.Set("Last-Event-ID", s.lastID)
	}
	s.target.authorize(request)
	response, err := s.client.Do(request)
	if err != nil {
		return s.target.errGatewayUnreachable(err)
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusNoContent {
		return errComplete
	}
	if response.StatusCode != http.StatusOK {
		return readRefusal(response)
	}
	kind, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if err != nil || kind != "text/event-stream" {
		return errNoStream
	}
	s.seen.resume(s.connected)
	s.connected = true
	return s.read(ctx, cancel, response.Body)
}

// read hands what arrives to the decoder until the connection ends.
func (s *stream) read(ctx context.Context, cancel context.CancelCauseFunc, body io.Reader) error {
	errSilent := fmt.Errorf("the stream was silent for %s", silenceMax)
	watch := time.AfterFunc(silenceMax, func() { cancel(errSilent) })
	defer watch.Stop()
	var decoder proto.SSEDecoder
	buffer := make([]byte, streamReadBytes)
	for {
		count, err := body.Read(buffer)
		watch.Reset(silenceMax)
		decoder.Feed(buffer[:count])
		for {
			event, ok := decoder.Next()
			if !ok {
				break
			}
			if err := s.take(event); err != nil {
				return err
			}
		}
		s.note(&decoder)
		switch {
		case errors.Is(err, io.EOF):
			return errors.New("the gateway ended the stream")
		case err != nil && errors.Is(context.Cause(ctx), errSilent):
			return errSilent
		case err != nil:
			return fmt.Errorf("the stream broke: %w", err)
		}
	}
}

// note keeps what outlives the connection: where to resume, and when.
func (s *stream) note(decoder *proto.SSEDecoder) {
	if decoder.LastID != "" {
		s.lastID = decoder.LastID
	}
	if decoder.HasRetry {
		s.retry = min(decoder.Retry, retryAskedMax)
	}
}

// take acts on one event.
func (s *stream) take(event proto.SSEEvent) error {
	if !event.HasID {
		event.ID = "" // an earlier event's
	}
	s.failures = 0
	switch event.Event {
	case "connected":
		s.output.note("connected to %s%s", s.target.gateway, describe(event.Data))
		return nil
	case "replayed":
		s.seen.replayed()
		return nil
	}
	if s.seen.repeated(event.ID) {
		return nil
	}
	shown := printed{channel: s.channelOf(event), id: event.ID, event: event.Event, data: []byte(event.Data)}
	if err := s.output.print(shown); err != nil {
		return &outputError{fmt.Errorf("print: %w", err)}
	}
	if event.Event == "complete" {
		return errComplete
	}
	return nil
}

// channelOf finds the channel of an event: its id begins with it, notices name it in their data,
// and with one subscription there is no question.
func (s *stream) channelOf(event proto.SSEEvent) string {
	if name, _, found := strings.Cut(event.ID, "/"); found {
		return name
	}
	var notice struct{ Channel string }
	if json.Unmarshal([]byte(event.Data), &notice) == nil {
		if _, err := proto.ParseChannel(notice.Channel); err == nil {
			return notice.Channel
		}
	}
	return s.only
}

// describe says as whom and to what one is connected.
func describe(data string) string {
	var welcome struct {
		UserID   string
		Channels []string
	}
	if json.Unmarshal([]byte(data), &welcome) != nil {
		return ""
	}
	text := ""
	if welcome.UserID != "" {
		text = " as " + printable(welcome.UserID)
	}
	if len(welcome.Channels) > 0 {
		text += ": " + printable(strings.Join(welcome.Channels, ", "))
	}
	return text
}
