package access

import (
	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/proto"
)

// Verdict is the answer to "may you".
type Verdict uint8

const (
	// Deny is no. It is the zero value.
	Deny Verdict = iota
	// Allow is yes.
	Allow
	// Ask is for [Policy.Ask] to find out.
	Ask
)

// Reason says why something was denied. Its names are a bounded set, fit for a metric label.
type Reason uint8

const (
	// NoReason goes with Allow and Ask.
	NoReason Reason = iota
	// WrongParts is a channel with another number of parts than its namespace asks for.
	WrongParts
	// NoWildcard is TYPE:* of a namespace without wildcard, or published on.
	NoWildcard
	// NeedsToken is an anonymous client and a channel that is not public.
	NeedsToken
	// NotOwner is another user's channel.
	NotOwner
	// NotGranted is a channel that the token's claim does not hold.
	NotGranted
	// Closed is a namespace with access none.
	Closed
	// WebhookDenied is the webhook's no.
	WebhookDenied
	// WebhookFailed is a webhook that gave no answer that counts.
	WebhookFailed
	// WebhookBusy is more open questions than are allowed.
	WebhookBusy

	// ReasonCount is the number of reasons: each Reason is smaller.
	ReasonCount
)

var reasonNames = [ReasonCount]string{
	"none", "wrong_parts", "no_wildcard", "needs_token", "not_owner", "not_granted", "closed",
	"webhook_denied", "webhook_failed", "webhook_busy",
}

// String gives the name of the reason in snake case.
func (r Reason) String() string {
	if r >= ReasonCount {
		return "unknown"
	}
	return reasonNames[r]
}

// Code is the error code that the client gets: bad_channel where no identity could have the
// channel, unauthorized where a token is missing, else access_denied.
func (r Reason) Code() string {
	switch r {
	case WrongParts, NoWildcard:
		return "bad_channel"
	case NeedsToken:
		return "unauthorized"
	default:
		return "access_denied"
	}
}

// Decision is a verdict with the reason of a no. The zero value denies.
type Decision struct {
	Verdict Verdict
	Reason  Reason
}

func allow() Decision             { return Decision{Verdict: Allow} }
func deny(reason Reason) Decision { return Decision{Verdict: Deny, Reason: reason} }

// Decide says whether the identity may listen to the channel; nil is anonymous. It is pure,
// allocates nothing and may be called on a loop.
func (p *Policy) Decide(identity *auth.Identity, channel proto.Channel) Decision {
	namespace := p.Namespace(channel.Type())
	if reason := namespace.shape(channel); reason != NoReason {
		return deny(reason)
	}
	if namespace.internal {
		return deny(Closed)
	}
	if !p.authenticated || namespace.Access == Public {
		return allow()
	}
	if isAnonymous(identity) {
		return deny(NeedsToken)
	}
	switch namespace.Access {
	case User:
		return allow()
	case Owner:
		if channel.Wildcard() || channel.Owner() != identity.User {
			return deny(NotOwner)
		}
		return allow()
	case Token:
		if !identity.Channels.Match(channel.Name(), channel.Type()) {
			return deny(NotGranted)
		}
		return allow()
	case ByWebhook:
		return Decision{Verdict: Ask}
	default:
		return deny(Closed)
	}
}

// DecidePublish says whether the identity may publish on the channel: its claim "publish" must
// hold it, whatever the namespace's access; without authentication everybody may. It is pure,
// allocates nothing and never asks.
func (p *Policy) DecidePublish(identity *auth.Identity, channel proto.Channel) Decision {
	if channel.Wildcard() {
		return deny(NoWildcard)
	}
	namespace := p.Namespace(channel.Type())
	if reason := namespace.shape(channel); reason != NoReason {
		return deny(reason)
	}
	if namespace.internal {
		return deny(Closed)
	}
	if !p.authenticated {
		return allow()
	}
	if isAnonymous(identity) {
		return deny(NeedsToken)
	}
	if !identity.Publish.Match(channel.Name(), channel.Type()) {
		return deny(NotGranted)
	}
	return allow()
}

// shape judges the name alone.
func (n *Namespace) shape(channel proto.Channel) Reason {
	if channel.Wildcard() {
		if !n.Wildcard {
			return NoWildcard
		}
		return NoReason
	}
	if n.Parts != 0 && n.Parts != channel.Parts() {
		return WrongParts
	}
	return NoReason
}

func isAnonymous(identity *auth.Identity) bool {
	return identity == nil || identity.Anonymous || identity.User == ""
}
