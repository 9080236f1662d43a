package main

import (
	"cmp"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/gateway/access"
	"github.com/millrace/millrace/proto"
)

// kindFlags say how Redis carries a channel, for publish and tail; a gateway knows by itself.
type kindFlags struct {
	Mode    string `name:"mode" enum:",events,log,state" default:"" placeholder:"MODE" help:"With --redis: the mode of the channel's namespace, events (PUBLISH), log (XADD) or state (SET); without it what the configuration says."`
	Sharded bool   `name:"sharded" help:"With --redis: SPUBLISH and SSUBSCRIBE, for namespaces with sharded: true."`
}

// check refuses flags that mean nothing where chosen is a gateway, or together.
func (k *kindFlags) check(chosen *target) error {
	switch {
	case chosen.gateway != nil && k.Sharded:
		return errUsage("--sharded goes with --redis: a gateway knows by its namespaces")
	case chosen.gateway != nil && k.Mode != "":
		return errUsage("--mode goes with --redis: a gateway knows by its namespaces")
	case k.Sharded && k.Mode != "" && k.Mode != string(access.Events):
		return errUsage("--sharded goes with --mode events: a log or a state is a key")
	}
	return nil
}

// kindOf says what carries channel, and about how many entries a log keeps.
func (k *kindFlags) kindOf(chosen *target, channel proto.Channel) (kind broker.Kind, maxLen int, err error) {
	namespaces := chosen.settings.EffectiveChannels().Namespaces
	namespace, found := namespaces[channel.Type()]
	if !found {
		namespace = namespaces[access.DefaultType]
	}
	mode := cmp.Or(access.Mode(k.Mode), namespace.Mode, access.Events)
	if channel.Wildcard() && mode != access.Events {
		return 0, 0, errUsage("%s: there are no wildcards of a %s; name the channels", channel.Name(), mode)
	}
	switch mode {
	case access.Log:
		if namespace.MaxLen != nil {
			return broker.Log, *namespace.MaxLen, nil
		}
		return broker.Log, access.MaxLenDefault, nil
	case access.State:
		return broker.State, 0, nil
	case access.Events:
		switch {
		case channel.Wildcard():
			return broker.Pattern, 0, nil
		case k.Sharded || k.Mode == "" && namespace.Sharded:
			return broker.Sharded, 0, nil
		}
		return broker.Plain, 0, nil
	}
	return 0, 0, errUsage("%s: the configuration says mode %q, which is not known; `millrace check` says what is wrong", channel.Name(), mode)
}
