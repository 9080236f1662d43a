package gateway

import (
	"fmt"
	"slices"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/council"
	"github.com/millrace/millrace/gateway/access"
	"github.com/millrace/millrace/hub"
)

// channelRules says how the channels of each type behave, as hub and broker need it. It is made
// once and only read.
type channelRules struct {
	byType map[string]*hub.Rules
	other  *hub.Rules // of types without a namespace of their own
}

func newChannelRules(policy *access.Policy) (*channelRules, error) {
	all := &channelRules{byType: make(map[string]*hub.Rules)}
	add := func(typ string) (*hub.Rules, error) {
		rules := rulesOf(policy.Namespace(typ))
		rules.Compress = policy.Compresses(typ)
		if err := rules.Check(); err != nil {
			return nil, fmt.Errorf("namespaces.%s: %w", typ, err)
		}
		return rules, nil
	}
	all.byType[access.CouncilType] = &hub.Rules{Kind: broker.Log, Ends: council.IsComplete, MaxBytes: councilEntryBytesMax}
	all.byType[access.CouncilsType] = &hub.Rules{Kind: broker.Plain}
	var err error
	// A personal type behaves otherwise than the other types without a namespace.
	for _, typ := range slices.Concat(policy.Types(), policy.PersonalTypes()) {
		if all.byType[typ], err = add(typ); err != nil {
			return nil, err
		}
	}
	all.other, err = add(access.DefaultType)
	return all, err
}

// of gives the rules of a type. Safe for many goroutines.
func (r *channelRules) of(typ string) *hub.Rules {
	if rules, found := r.byType[typ]; found {
		return rules
	}
	return r.other
}

// keyed gives the types of which each channel is a key in Redis that workers write.
func (r *channelRules) keyed() (types []string) {
	for typ, rules := range r.byType {
		if isKeyed(rules.Kind) && !access.IsInternal(typ) {
			types = append(types, typ)
		}
	}
	return types
}

// isKeyed reports whether a channel is a key, and not something that is published on.
func isKeyed(kind broker.Kind) bool { return kind == broker.State || kind == broker.Log }

func rulesOf(n *access.Namespace) *hub.Rules {
	rules := &hub.Rules{
		CompressOver: *n.CompressOver,
		IDField:      n.IDField, Throttle: n.Throttle, Batch: n.Batch, Conflate: n.Conflate, ConflateBy: n.ConflateBy,
	}
	switch n.Mode {
	case access.Log:
		rules.Kind = broker.Log
	case access.State:
		rules.Kind = broker.State
	case access.Events:
		rules.Kind = broker.Plain
		if n.Sharded {
			rules.Kind = broker.Sharded
		}
		rules.Replay = hub.Replay{Size: *n.Replay.Size, TTL: n.Replay.TTL}
	}
	return rules
}

// modeName is the mode that a kind belongs to, as settings spell it.
func modeName(kind broker.Kind) access.Mode {
	switch kind {
	case broker.State:
		return access.State
	case broker.Log:
		return access.Log
	default:
		return access.Events
	}
}
