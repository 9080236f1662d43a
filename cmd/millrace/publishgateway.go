package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/millrace/millrace/proto"
)

// requestTimeout bounds one publish request, the gateway's own wait for Redis included.
const requestTimeout = 30 * time.Second

// gatewayPublisher publishes by a gateway's POST /api/publish.
type gatewayPublisher struct {
	target  *target
	client  *http.Client
	stderr  io.Writer
	warned  bool // of events that did not reach Redis
	address string
}

func newGatewayPublisher(chosen *target, stderr io.Writer) *gatewayPublisher {
	return &gatewayPublisher{
		target: chosen, stderr: stderr, address: chosen.gateway.String() + "/api/publish",
		client: &http.Client{
			Timeout:       requestTimeout,
			Transport:     newTransport(),
			CheckRedirect: noRedirect,
		},
	}
}

// newTransport makes a transport of a command's own, closed with it.
func newTransport() *http.Transport {
	return &http.Transport{Proxy: http.ProxyFromEnvironment, DisableCompression: true}
}

// noRedirect gives a redirect to the caller as it is: a token must not follow it elsewhere.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// publish sends one request and gives its answer, one line of JSON.
func (p *gatewayPublisher) publish(ctx context.Context, channel proto.Channel, events [][]byte) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.address, bytes.NewReader(publishBody(channel, events)))
	if err != nil {
		return "", fmt.Errorf("publish: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	p.target.authorize(request)
	response, err := p.client.Do(request)
	if err != nil {
		return "", p.target.errGatewayUnreachable(err)
	}
	defer response.Body.Close()
	if response.StatusCode/100 != 2 {
		return "", fmt.Errorf("publish %s at %s: %w", channel.Name(), p.target.gateway, readRefusal(response))
	}
	return p.readAnswer(response.Body, len(events))
}

// publishBody writes one event as an object and several as an array. A channel's name needs no
// escape in JSON, and the events are JSON.
func publishBody(channel proto.Channel, events [][]byte) []byte {
	var body []byte
	for index, event := range events {
		if index > 0 {
			body = append(body, ',')
		}
		body = fmt.Appendf(body, `{"channel":"%s","event":`, channel.Name())
		body = append(append(body, event...), '}')
	}
	if len(events) > 1 {
		body = append(append([]byte{'['}, body...), ']')
	}
	return body
}

// readAnswer makes sure that the gateway took everything.
func (p *gatewayPublisher) readAnswer(body io.Reader, sent int) (string, error) {
	text, err := io.ReadAll(io.LimitReader(body, answerBytesMax))
	if err != nil {
		return "", fmt.Errorf("read the answer of %s: %w; the events may have been published", p.target.gateway, err)
	}
	var answer struct {
		Published   *int
		Distributed *bool
	}
	if json.Unmarshal(text, &answer) != nil || answer.Published == nil {
		return "", fmt.Errorf("what %s answers is not a gateway's answer; is this the address of a Millrace gateway?", p.target.gateway)
	}
	if *answer.Published != sent {
		return "", fmt.Errorf("%s published %d of %d events", p.target.gateway, *answer.Published, sent)
	}
	if answer.Distributed != nil && !*answer.Distributed && !p.warned {
		p.warned = true
		fmt.Fprintf(p.stderr, "millrace: warning: Redis is away: only listeners of this gateway were reached\n")
	}
	var line bytes.Buffer
	if err := json.Compact(&line, text); err != nil {
		return "", fmt.Errorf("read the answer of %s: %w", p.target.gateway, err)
	}
	return line.String(), nil
}

func (p *gatewayPublisher) close() error {
	p.client.CloseIdleConnections()
	return nil
}
