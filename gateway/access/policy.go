package access

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/millrace/millrace/proto"
)

// Options says what a Policy knows.
type Options struct {
	// Namespaces by type; "default" is every other type. Nil takes [Defaults]. Where "default" is
	// not in it, that one is taken from Defaults.
	Namespaces map[string]Namespace
	// Personal lists types T for which every connection with a user is subscribed to T:USER. Nil
	// means ["alerts"] where Namespaces is nil too.
	Personal []string
	// Broadcast lists channels that every connection is subscribed to.
	Broadcast []string
	// Authenticated says that tokens are verified; without it every channel is open.
	Authenticated bool
	// Demo takes the demonstration's namespaces where Namespaces is nil.
	Demo bool

	// Transport carries the questions to webhooks; nil is a transport of the package's own.
	Transport http.RoundTripper
	// Logger is told of what an operator must act on. Nil: slog.Default().
	Logger *slog.Logger
	// Now is the clock that cached answers age by. Nil: time.Now.
	Now func() time.Time
}

// Policy knows the namespaces and decides. It does not change once made and is safe for
// concurrent use.
type Policy struct {
	namespaces    map[string]*Namespace
	fallback      *Namespace
	personal      []string
	broadcast     []string
	authenticated bool
	anyPublic     bool
	asks          bool
	needsToken    bool
	webhook       *asker
}

// New makes a Policy. The error joins a [*SettingError] for everything that is wrong with the
// settings. [Policy.Close] ends what it started.
func New(options Options) (*Policy, error) {
	configured := options.Namespaces
	if configured == nil {
		configured = Defaults(options.Authenticated, options.Demo)
		if options.Personal == nil {
			options.Personal = []string{"alerts"}
		}
	}
	policy := &Policy{
		namespaces:    make(map[string]*Namespace, len(configured)),
		personal:      slices.Clone(options.Personal),
		authenticated: options.Authenticated,
	}
	problems := policy.add(configured)
	if policy.fallback == nil {
		policy.fallback = defaultNamespace(options.Authenticated).completed()
	}
	problems = append(problems, policy.checkPersonal()...)
	problems = append(problems, policy.addBroadcast(options.Broadcast)...)
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	policy.summarize()
	if options.Logger == nil {
		options.Logger = slog.Default()
	}
	policy.warn(options.Logger)
	policy.webhook = newAsker(options)
	return policy, nil
}

// add validates the configured namespaces, in the order of their names, and takes them in.
func (p *Policy) add(configured map[string]Namespace) (problems []error) {
	for _, name := range slices.Sorted(maps.Keys(configured)) {
		namespace := configured[name]
		if err := namespace.Validate(name); err != nil {
			problems = append(problems, err)
		}
		if namespace.Access == "" && p.authenticated {
			problems = append(problems, settingError(name, "access", "missing; with authentication say who may listen: public, user, owner, token, none or webhook"))
		}
		completed := namespace.completed()
		if name == DefaultType {
			p.fallback = completed
		}
		p.namespaces[name] = completed
	}
	return problems
}

func (p *Policy) checkPersonal() (problems []error) {
	for place, typ := range p.personal {
		path := fmt.Sprintf("personal[%d]", place)
		switch {
		case IsInternal(typ):
			problems = append(problems, &SettingError{path, "the gateway's own type; nobody can listen to its channels"})
		case !isType(typ):
			problems = append(problems, &SettingError{path, "not a channel type; write the part before the colon, such as alerts"})
		case p.Namespace(typ).Parts == 3:
			problems = append(problems, &SettingError{path, typ + ":USER has 2 parts but the namespace " + typ + " asks for 3; set its parts to 2"})
		}
	}
	return problems
}

// addBroadcast takes the broadcast channels in.
func (p *Policy) addBroadcast(names []string) (problems []error) {
	for place, name := range names {
		path := fmt.Sprintf("broadcast[%d]", place)
		channel, err := proto.ParseChannel(name)
		switch {
		case err != nil:
			problems = append(problems, &SettingError{path, err.Error()})
		case IsInternal(channel.Type()):
			problems = append(problems, &SettingError{path, "the gateway's own type; nobody can listen to its channels"})
		case channel.Wildcard():
			problems = append(problems, &SettingError{path, "TYPE:* is no channel; write TYPE:ID or TYPE:ID:USER, such as system:all"})
		case p.Namespace(channel.Type()).shape(channel) != NoReason:
			problems = append(problems, &SettingError{path, fmt.Sprintf("has %d parts but the namespace %s asks for %d", channel.Parts(), channel.Type(), p.Namespace(channel.Type()).Parts)})
		}
		p.broadcast = append(p.broadcast, name)
	}
	return problems
}

// summarize works out what is asked about the namespaces as a whole.
func (p *Policy) summarize() {
	p.anyPublic = !p.authenticated || p.fallback.Access == Public
	for _, namespace := range p.namespaces {
		p.anyPublic = p.anyPublic || namespace.Access == Public
		p.asks = p.asks || namespace.Access == ByWebhook
		p.needsToken = p.needsToken || (namespace.Webhook != nil && namespace.Webhook.ForwardToken)
	}
}

// warn logs settings that are allowed but seldom meant.
func (p *Policy) warn(logger *slog.Logger) {
	if !p.authenticated {
		return
	}
	for _, typ := range p.personal {
		if access := p.Namespace(typ).Access; access == Public || access == User {
			logger.Warn("the personal channels of a user can be listened to by others: set the namespace's access to owner", "type", typ, "access", string(access))
		}
	}
	for _, typ := range slices.Sorted(maps.Keys(p.namespaces)) {
		if namespace := p.namespaces[typ]; namespace.Compress != nil && *namespace.Compress && (isRestricted(namespace.Access) || slices.Contains(p.personal, typ)) {
			logger.Warn("compress makes events shorter whose length may tell of what only some may know", "type", typ, "access", string(namespace.Access))
		}
		if namespace := p.namespaces[typ]; namespace.Access == Owner && namespace.Parts == 0 {
			logger.Warn("TYPE:ID and TYPE:ID:USER both belong to the user named last: set the namespace's parts to 2 or 3, or an id may be taken for a user", "type", typ)
		}
	}
}

// isRestricted reports whether some users may hear what others may not.
func isRestricted(access Access) bool {
	return access == Owner || access == Token || access == ByWebhook
}

// Namespace gives the namespace of a type, the default one for a type without its own. It is
// never nil and only read.
func (p *Policy) Namespace(typ string) *Namespace {
	if internal := internalNamespaces[typ]; internal != nil {
		return internal
	}
	if namespace, found := p.namespaces[typ]; found {
		return namespace
	}
	return p.fallback
}

// Types gives the types that have a namespace of their own, in order, in a slice that is the
// caller's.
func (p *Policy) Types() []string {
	types := slices.Sorted(maps.Keys(p.namespaces))
	return slices.DeleteFunc(types, func(typ string) bool { return typ == DefaultType })
}

// AnyPublic reports whether somebody without a token can listen to anything at all.
func (p *Policy) AnyPublic() bool { return p.anyPublic }

// Asks reports whether [Policy.Decide] may leave anything to [Policy.Ask], which tells tokens of one
// user apart: whoever asks later must have kept the token's hash.
func (p *Policy) Asks() bool { return p.asks }

// NeedsToken reports whether a webhook is to receive the users' tokens, so that identities must
// keep them (KeepToken of package auth's Options).
func (p *Policy) NeedsToken() bool { return p.needsToken }

// Compresses reports whether events of a type may be made shorter for clients that take them
// compressed. Where the namespace does not say, those are that many may hear: public, or for every
// user, or anything where there is no authentication; but not what belongs to one user, or is given
// out by tokens or a webhook, lest the length of a secret beside a text of somebody else's tell of it. Of a
// personal type only a namespace of its own says otherwise.
func (p *Policy) Compresses(typ string) bool {
	namespace, personal := p.Namespace(typ), slices.Contains(p.personal, typ)
	switch {
	case personal && namespace == p.fallback:
		return false // what is said of all other types is not meant for this one
	case namespace.Compress != nil:
		return *namespace.Compress
	case personal:
		return false
	case namespace.Access == Public || namespace.Access == User:
		return true
	default:
		return namespace.Access == None && !p.authenticated
	}
}

// PersonalTypes gives the types of which every user has a channel without asking. It is only read.
func (p *Policy) PersonalTypes() []string { return p.personal }

// PersonalChannels gives the names of the user's own channels, which [proto.ParseChannel] takes, in
// a slice that is the caller's. A user whose id can't be a part of a channel's name has none, and
// neither has the empty one.
func (p *Policy) PersonalChannels(user string) []string {
	if len(p.personal) == 0 || user == "" {
		return nil
	}
	names := make([]string, 0, len(p.personal))
	for _, typ := range p.personal {
		channel, err := proto.NewChannel(typ, "", user)
		if err == nil && !channel.Wildcard() {
			names = append(names, channel.Name())
		}
	}
	return names
}

// Broadcast gives the names of the channels that everybody is subscribed to. It is only read.
func (p *Policy) Broadcast() []string { return p.broadcast }

// Close ends the questions that are on their way to webhooks, which are then denied, and waits
// for them.
func (p *Policy) Close() { p.webhook.close() }
