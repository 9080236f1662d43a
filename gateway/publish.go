package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/gateway/access"
	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/proto"
)

const (
	publishEventsMax  = 1000            // events of one request
	publishTimeout    = 5 * time.Second // for the broker to take them
	publishQueueMax   = 4096            // publish commands waiting, all streams together
	publishBodyFactor = 8               // a request may be so many times as large as one event
)

// Event is something to publish: a JSON value on a channel.
type Event struct {
	Channel string
	Data    []byte // one JSON value in UTF-8; only read
}

// PublishResult says what became of published events.
type PublishResult struct {
	// IDs holds one entry an event: of a log the id of its entry, which a client can go on from; ""
	// for a state, which needs none, and for events, whose ids are only known when they come back
	// from Redis.
	IDs []string
	// Distributed is false if Redis could not be reached and the events went to the streams of
	// this process only. Logs and states are never published so: that is an error.
	Distributed bool
}

// publishBodyMax bounds the body of a publish request.
func publishBodyMax(maxEventBytes int) int64 {
	if maxEventBytes <= 0 {
		return 1 << 30
	}
	return int64(maxEventBytes)*publishBodyFactor + 64<<10
}

// publishAnswer is the answer to a request to publish.
type publishAnswer struct {
	Distributed bool      `json:"distributed"`
	IDs         []*string `json:"ids"`
	Published   int       `json:"published"`
}

// servePublish is POST /api/publish: one event or an array of up to 1000, all or nothing.
func (g *Gateway) servePublish(w http.ResponseWriter, r *http.Request) {
	if g.draining.Load() {
		g.answer(w, r, refuse(refuseDraining, "this gateway is going; nothing was published; try again"))
		return
	}
	who, _, err := g.identify(r, true)
	if err != nil {
		g.answer(w, r, refusalOf(err))
		return
	}
	if g.verifier != nil && who.Anonymous {
		g.answer(w, r, refuse(refuseUnauthorized, "publishing needs a token with the claim publish"))
		return
	}
	if !auth.IsJSON(r) {
		g.answer(w, r, refuse(refuseMediaType, "publishing needs Content-Type: application/json"))
		return
	}
	events, refused := g.readPublish(r, who)
	if refused != nil {
		g.answer(w, r, refused)
		return
	}
	result, err := g.publish(r.Context(), events)
	switch {
	case err != nil:
		g.answer(w, r, publishRefusal(err))
	default:
		answerJSON(w, http.StatusOK, publishAnswer{result.Distributed, idsOrNull(result.IDs), len(events)})
	}
}

// publishRefusal words why judged events were not published.
func publishRefusal(err error) *refusal {
	switch {
	case errors.Is(err, broker.ErrUnavailable):
		return refuse(refuseBroker, "Redis is away, or did not answer in time; nothing is known to be published; try again")
	case errors.Is(err, broker.ErrRefused):
		return refuse(refuseBroker, err.Error())
	default:
		return refusalOf(err)
	}
}

// idsOrNull has null for an id that is not known.
func idsOrNull(ids []string) []*string {
	all := make([]*string, len(ids))
	for i := range ids {
		if ids[i] != "" {
			all[i] = &ids[i]
		}
	}
	return all
}

// readPublish reads and judges the whole body; nothing is published unless all of it is good.
func (g *Gateway) readPublish(r *http.Request, who *auth.Identity) ([]Event, *refusal) {
	body, err := io.ReadAll(r.Body)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, refuse(refuseTooLarge, fmt.Sprintf("the body is larger than %d bytes; publish fewer events at a time", tooLarge.Limit))
	}
	if err != nil {
		return nil, refuse(refuseBadRequest, "the body did not arrive whole")
	}
	publications, err := proto.ParsePublications(body, publishEventsMax)
	switch {
	case errors.Is(err, proto.ErrBadChannel):
		return nil, refuse(refuseBadChannel, err.Error())
	case errors.Is(err, proto.ErrTooManyPublications):
		return nil, refuse(refuseTooLarge, err.Error())
	case err != nil:
		return nil, refuse(refuseBadRequest, err.Error())
	}
	events := make([]Event, 0, len(publications))
	for i, one := range publications {
		if refused := g.judge(one.Channel, one.Event); refused != nil {
			refused.message = fmt.Sprintf("event %d: %s", i, refused.message)
			return nil, refused
		}
		if decision := g.policy.DecidePublish(who, one.Channel); decision.Verdict != access.Allow {
			return nil, refuse(codeNamed(decision.Reason.Code()), fmt.Sprintf("event %d: channel %s is not yours to publish on", i, one.Channel.Name()))
		}
		events = append(events, Event{Channel: one.Channel.Name(), Data: one.Event})
	}
	return events, nil
}

// judge checks one event before it goes anywhere.
func (g *Gateway) judge(channel proto.Channel, data []byte) *refusal {
	if access.IsInternal(channel.Type()) {
		return refuse(refuseAccessDenied, "channels of this type are the gateway's own")
	}
	if channel.Wildcard() {
		return refuse(refuseBadChannel, "a wildcard cannot be published on; name one channel")
	}
	if limit := g.options.Limits.MaxEventBytes; limit > 0 && len(data) > limit {
		return refuse(refuseTooLarge, fmt.Sprintf("%d bytes are more than max-event-bytes (%d)", len(data), limit))
	}
	if _, err := proto.NewEvent(channel, "", data); err != nil {
		return refuse(refuseBadRequest, "the event is not one JSON value in UTF-8: "+err.Error())
	}
	return nil
}

// publish hands judged events to the broker, all or none, each as its namespace's mode says. While
// Redis is away events reach the streams of this process at least; but where one of them belongs
// to a log or a state, which live in Redis, none does.
func (g *Gateway) publish(ctx context.Context, events []Event) (PublishResult, error) {
	if g.lifetime.Err() != nil {
		return PublishResult{}, ErrClosed
	}
	g.publishing.RLock() // waits while streams are being handed over
	defer g.publishing.RUnlock()
	messages, keyed := g.messagesOf(events)
	if !keyed {
		for _, event := range events {
			if !g.policy.Namespace(channelType(event.Channel)).LocalFirst {
				continue
			}
			if err := g.hub.EventLocalFirst(event.Channel, event.Data); err != nil {
				return PublishResult{}, err
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	positions, err := g.broker.Publish(ctx, messages)
	switch {
	case err == nil:
		return PublishResult{IDs: g.idsOf(messages, positions), Distributed: true}, nil
	case keyed || !errors.Is(err, broker.ErrUnavailable):
		return PublishResult{}, err
	}
	for _, event := range events {
		if g.policy.Namespace(channelType(event.Channel)).LocalFirst {
			continue // was delivered already
		}
		// It may still reach Redis, if only the answer was lost: the copy must not come twice.
		if err := g.hub.EventLocalFirst(event.Channel, event.Data); err != nil {
			return PublishResult{}, err
		}
	}
	return PublishResult{IDs: make([]string, len(events))}, nil
}

// messagesOf says how each event is published; keyed, that one of them is written to a key.
func (g *Gateway) messagesOf(events []Event) (messages []broker.Message, keyed bool) {
	messages = make([]broker.Message, len(events))
	for i, event := range events {
		typ := channelType(event.Channel)
		message := broker.Message{Channel: event.Channel, Payload: event.Data, Kind: g.rules.of(typ).Kind}
		if message.Kind == broker.Log {
			message.MaxLen = *g.policy.Namespace(typ).MaxLen
		}
		keyed = keyed || isKeyed(message.Kind)
		messages[i] = message
	}
	return messages, keyed
}

// idsOf gives the ids of the entries that were added to logs, which a client can go on from; what
// else was published has none yet.
func (g *Gateway) idsOf(messages []broker.Message, positions []broker.Position) []string {
	ids := make([]string, len(messages))
	if positions == nil {
		return ids
	}
	horizon := g.broker.Stats().Horizon
	for i := range messages {
		if messages[i].Kind == broker.Log {
			ids[i] = string(proto.AppendLogID(nil, messages[i].Channel, positions[i].Milliseconds, positions[i].Sequence, horizon))
		}
	}
	return ids
}

func channelType(channel string) string {
	for i := range len(channel) {
		if channel[i] == ':' {
			return channel[:i]
		}
	}
	return channel
}

// publishJob is the publish command of one stream.
type publishJob struct {
	channel proto.Channel
	data    []byte
	done    func(PublishResult, error)
}

// publisher publishes what streams command, one after the other, so that their order is kept.
type publisher struct {
	gateway *Gateway
	jobs    chan publishJob
}

func newPublisher(g *Gateway) *publisher {
	p := &publisher{gateway: g, jobs: make(chan publishJob, publishQueueMax)}
	g.spawned.Add(1)
	go func() {
		defer g.spawned.Done()
		p.run(g.lifetime)
	}()
	return p
}

// offer queues a job; false if too many wait. Safe on a loop.
func (p *publisher) offer(job publishJob) bool {
	select {
	case p.jobs <- job:
		return true
	default:
		return false
	}
}

func (p *publisher) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case job := <-p.jobs:
			job.done(p.publish(ctx, job))
		}
	}
}

func (p *publisher) publish(ctx context.Context, job publishJob) (PublishResult, error) {
	if refused := p.gateway.judge(job.channel, job.data); refused != nil {
		return PublishResult{}, refused
	}
	return p.gateway.publish(ctx, []Event{{Channel: job.channel.Name(), Data: job.data}})
}
