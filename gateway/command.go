package gateway

import (
	"context"
	"slices"

	"github.com/millrace/millrace/gateway/access"
	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// ask is a subscribe command whose answer has to wait: for the broker's confirmation, or for a
// webhook's verdict before that.
type ask struct {
	channel proto.Channel
	ref     []byte
	from    hub.From
	late    bool // asked for again with a position, while it was asked for without one
	since   netio.Tick
	verdict bool // waits for a webhook
}

// command carries out one command of a client.
func (s *sessions) command(slot netio.Slot, one *session, text []byte) {
	command, failure := proto.ParseCommand(text, s.channelsMax())
	if failure != nil {
		s.refuse(slot, failure.Code, failure.Message, failure.Channel, failure.Ref)
		return
	}
	switch command.Kind {
	case proto.Subscribe:
		for i, channel := range command.Channels {
			wish := ask{channel: channel, ref: command.Ref}
			if command.Since != nil {
				wish.from = s.gateway.from(channel, command.Since[i])
			}
			if !s.subscribe(slot, one, wish) {
				return
			}
		}
		s.arm(slot, one)
	case proto.Unsubscribe:
		for _, channel := range command.Channels {
			s.dropAsks(slot, channel)
			s.shard.Unsubscribe(slot, channel)
			if s.gateway.debugs() {
				s.debug(slot, "unsubscribed", "channel", channel.Name())
			}
			s.say(slot, "unsubscribed", proto.AppendUnsubscribed(nil, channel.Name(), command.Ref))
		}
		s.greetIfNothingWaits(slot, one)
	case proto.Ping:
		s.say(slot, "pong", proto.AppendPong(nil, command.Ref))
	case proto.Refresh:
		s.refresh(slot, one, command)
	case proto.Publish:
		s.publish(slot, one, command)
	}
}

// channelsMax bounds the channels of one command, and the commands of one stream that wait.
func (s *sessions) channelsMax() int {
	if limit := s.gateway.options.Limits.MaxSubscriptions; limit > 0 {
		return limit
	}
	return 1000
}

// subscribe handles one channel of a subscribe command; false means that the stream is ending.
func (s *sessions) subscribe(slot netio.Slot, one *session, wish ask) bool {
	switch decision := s.gateway.policy.Decide(s.who(one), wish.channel); decision.Verdict {
	case access.Allow:
		s.subscribeNow(slot, wish)
		return true
	case access.Ask:
		s.askWebhook(slot, one, wish)
		return true
	default:
		return s.deny(slot, wish.channel, decision.Reason, wish.ref)
	}
}

// deny refuses a channel, and with it the stream, unless the namespace says otherwise or nobody
// could have such a channel.
func (s *sessions) deny(slot netio.Slot, channel proto.Channel, reason access.Reason, ref []byte) bool {
	s.refuse(slot, reason.Code(), denial(reason, channel), channel.Name(), ref)
	switch {
	case reason.Code() == proto.CodeBadChannel || !s.gateway.policy.Namespace(channel.Type()).ClosesOnDenied():
		return true
	case reason == access.NeedsToken:
		s.closeWebSocket(slot, endUnauthorized, "Unauthorized")
	default:
		s.closeWebSocket(slot, endAccessDenied, "Access denied")
	}
	return false
}

// ask remembers that a subscription is to be answered. At most channelsMax wait per stream.
func (s *sessions) ask(slot netio.Slot, wish ask) {
	if len(s.asks[slot]) >= s.channelsMax() {
		s.refuse(slot, proto.CodeRateLimited, "too many commands wait for an answer; slow down", wish.channel.Name(), wish.ref)
		return
	}
	wish.since = s.loop.Tick()
	s.asks[slot] = append(s.asks[slot], wish)
}

// answerAsk answers the commands that waited for the channel.
func (s *sessions) answerAsk(slot netio.Slot, channel proto.Channel) {
	if len(s.asks[slot]) == 0 {
		return
	}
	s.asks[slot] = slices.DeleteFunc(s.asks[slot], func(waiting ask) bool {
		if waiting.channel != channel || waiting.verdict {
			return false
		}
		s.saySubscribed(slot, waiting)
		return true
	})
	s.tidyAsks(slot)
}

// saySubscribed answers a subscribe command, and begins with what the subscription begins with.
func (s *sessions) saySubscribed(slot netio.Slot, wish ask) {
	s.say(slot, "subscribed", proto.AppendSubscribed(nil, wish.channel.Name(), wish.ref))
	s.shard.Begin(slot, wish.channel)
	if wish.late {
		s.say(slot, "gap", proto.AppendGap(nil, wish.channel.Name(), wish.from.Text, proto.GapUnknownPosition))
	}
}

// dropAsks forgets what waits for the channel, which the client no longer wants or may have, and reports
// whether anything did.
func (s *sessions) dropAsks(slot netio.Slot, channel proto.Channel) (waited bool) {
	before := len(s.asks[slot])
	s.asks[slot] = slices.DeleteFunc(s.asks[slot], func(waiting ask) bool { return waiting.channel == channel })
	waited = len(s.asks[slot]) < before
	s.tidyAsks(slot)
	return waited
}

func (s *sessions) tidyAsks(slot netio.Slot) {
	if len(s.asks[slot]) == 0 {
		delete(s.asks, slot)
	}
}

// giveUpAsks answers those that have waited too long, and takes their subscription back.
func (s *sessions) giveUpAsks(slot netio.Slot, now netio.Tick) {
	for _, waiting := range s.asks[slot] {
		if now >= waiting.since+ticks(s.gateway.timings.confirm) {
			s.dropAsks(slot, waiting.channel)
			s.shard.Unsubscribe(slot, waiting.channel)
			s.refuse(slot, proto.CodeBrokerUnavailable, "the subscription could not be confirmed in time; try again", waiting.channel.Name(), waiting.ref)
			s.giveUpAsks(slot, now) // the list has changed
			return
		}
	}
}

// verdict is a webhook's answer on its way back to the loop.
type verdict struct {
	id       netio.ID
	channel  proto.Channel
	decision access.Decision
}

// askWebhook lets a goroutine ask whether the stream may hear the channel.
func (s *sessions) askWebhook(slot netio.Slot, one *session, wish ask) {
	before := len(s.asks[slot])
	wish.verdict = true
	s.ask(slot, wish)
	if len(s.asks[slot]) == before {
		return
	}
	who, id, g, channel := s.who(one), s.loop.ID(slot), s.gateway, wish.channel
	s.outstanding++
	g.spawn(func(ctx context.Context) {
		decision := g.policy.Ask(ctx, who, channel)
		_ = s.loop.PostAlways(&verdict{id: id, channel: channel, decision: decision}) // bounded by the asks
	})
}

// judged acts on a webhook's answer.
func (s *sessions) judged(v *verdict) {
	slot, open := s.loop.Find(v.id)
	if !open {
		return
	}
	for i, waiting := range s.asks[slot] {
		if waiting.channel != v.channel || !waiting.verdict {
			continue
		}
		s.asks[slot] = slices.Delete(s.asks[slot], i, i+1)
		s.tidyAsks(slot)
		if v.decision.Verdict == access.Allow {
			waiting.verdict = false
			s.subscribeNow(slot, waiting)
			s.arm(slot, s.at(slot))
		} else {
			s.deny(slot, v.channel, v.decision.Reason, waiting.ref)
		}
		return
	}
}

// refreshed is the outcome of a refresh command on its way back to the loop.
type refreshed struct {
	id  netio.ID
	who *auth.Identity // nil: not believed
	ref []byte
}

// refresh verifies a new token off the loop, since a key may have to be fetched.
func (s *sessions) refresh(slot netio.Slot, _ *session, command proto.Command) {
	g, id := s.gateway, s.loop.ID(slot)
	if g.verifier == nil {
		s.refuse(slot, proto.CodeBadRequest, "this gateway has no authentication: there is nothing to refresh", "", command.Ref)
		return
	}
	s.outstanding++
	g.spawn(func(ctx context.Context) {
		who, err := g.believe(ctx, command.Token)
		if err != nil {
			who = nil
		}
		_ = s.loop.PostAlways(&refreshed{id: id, who: who, ref: command.Ref}) // bounded by the rate of commands
	})
}

// renewed takes the new token over: its expiry, and what it grants. Channels that it no longer
// grants are lost.
func (s *sessions) renewed(r *refreshed) {
	slot, open := s.loop.Find(r.id)
	if !open {
		return
	}
	one := s.at(slot)
	if r.who == nil || r.who.User != s.user(one) {
		s.refuse(slot, proto.CodeUnauthorized, "the new token is not believed, or is another user's; the old one stays in force", "", r.ref)
		return
	}
	s.people.setGrants(one.person, s.grants(r.who))
	s.setExpiry(one, r.who)
	var lost []proto.Channel
	s.shard.Channels(slot, func(channel proto.Channel, _ bool) bool {
		if !s.gateway.isUnasked(channel, r.who) && s.gateway.policy.Decide(r.who, channel).Verdict == access.Deny {
			lost = append(lost, channel)
		}
		return true
	})
	for _, channel := range lost {
		s.dropAsks(slot, channel)
		s.shard.Unsubscribe(slot, channel)
		s.refuse(slot, proto.CodeAccessDenied, "the new token does not grant this channel", channel.Name(), nil)
	}
	s.say(slot, "refresh", proto.AppendRefreshed(nil, r.ref))
	s.arm(slot, one)
}

// published is the outcome of a publish command on its way back to the loop.
type published struct {
	id      netio.ID
	channel string
	ref     []byte
	result  PublishResult
	err     error
}

// publish hands a client's event to the loop's publisher, which keeps their order.
func (s *sessions) publish(slot netio.Slot, one *session, command proto.Command) {
	channel := command.Channels[0]
	if s.gateway.policy.DecidePublish(s.who(one), channel).Verdict != access.Allow {
		s.refuse(slot, proto.CodeAccessDenied, "this channel is not yours to publish on", channel.Name(), command.Ref)
		return
	}
	id := s.loop.ID(slot)
	job := publishJob{
		channel: channel, data: command.Event,
		done: func(result PublishResult, err error) {
			_ = s.loop.PostAlways(&published{id: id, channel: channel.Name(), ref: command.Ref, result: result, err: err}) // bounded by publishQueueMax
		},
	}
	if s.gateway.publisher.offer(job) {
		s.outstanding++
	} else {
		s.refuse(slot, proto.CodeBrokerUnavailable, "too many events wait to be published; try again", channel.Name(), command.Ref)
	}
}

// answerPublish tells a client what became of its event.
func (s *sessions) answerPublish(p *published) {
	slot, open := s.loop.Find(p.id)
	if !open {
		return
	}
	if p.err == nil {
		s.say(slot, "published", proto.AppendPublished(nil, p.result.IDs, p.result.Distributed, p.ref))
		return
	}
	failure := publishRefusal(p.err)
	s.refuse(slot, refusals[failure.code].name, failure.message, p.channel, p.ref)
}

// mail is what others post to the loop for the gateway.
func (s *sessions) mail(item any) {
	switch item := item.(type) {
	case *verdict:
		s.outstanding--
		s.judged(item)
	case *refreshed:
		s.outstanding--
		s.renewed(item)
	case *published:
		s.outstanding--
		s.answerPublish(item)
	case drainOrder:
		s.goOnDrain(item)
	case hearAgain:
		s.loop.SetDeaf(false)
	}
}
