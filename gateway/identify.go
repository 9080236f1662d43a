package gateway

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/millrace/millrace/gateway/access"
	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/proto"
)

// identify answers who a request comes from, and whether its page may ask at all. Errors are
// [*auth.Refusal]s.
func (g *Gateway) identify(r *http.Request, publishing bool) (*auth.Identity, auth.Credential, error) {
	if g.verifier == nil {
		if err := g.guard.Check(r, publishing); err != nil {
			return nil, auth.Credential{}, err
		}
		credential, err := auth.FromRequest(r)
		if err != nil {
			return nil, credential, err
		}
		who, err := auth.Named(queryValue(r, "userId"))
		return who, credential, err
	}
	credential, err := auth.FromRequest(r)
	if err != nil {
		return nil, credential, err
	}
	if err := auth.CheckOrigin(r, credential.Source, g.origins, g.proxies); err != nil {
		return nil, credential, err
	}
	if credential.Source == auth.SourceNone {
		return auth.Anonymous(), credential, nil
	}
	who, err := g.believe(r.Context(), credential.Token)
	return who, credential, err
}

// believe says whose a token is. Why one is not believed is told to nobody but the log.
func (g *Gateway) believe(ctx context.Context, token string) (*auth.Identity, error) {
	who, err := g.verifier.Verify(ctx, token)
	var refused *auth.Refusal
	if errors.As(err, &refused) {
		g.logger.Debug("a token was not believed", "reason", refused.Reason.String())
	}
	return who, err
}

// maySubscribe decides, asking the webhook if need be; it may wait.
func (g *Gateway) maySubscribe(ctx context.Context, who *auth.Identity, channel proto.Channel) error {
	decision := g.policy.Decide(who, channel)
	if decision.Verdict == access.Ask {
		decision = g.policy.Ask(ctx, who, channel)
	}
	if decision.Verdict == access.Allow {
		return nil
	}
	return refuse(codeNamed(decision.Reason.Code()), denial(decision.Reason, channel))
}

// denial words a denial for who asked. It tells nothing of what exists.
func denial(reason access.Reason, channel proto.Channel) string {
	switch reason {
	case access.WrongParts:
		return "channels of type " + channel.Type() + " have another number of parts"
	case access.NoWildcard:
		return "channels of type " + channel.Type() + " cannot be had as a wildcard"
	case access.NeedsToken:
		return "channel " + channel.Name() + " needs a token"
	case access.NotGranted:
		return "channel " + channel.Name() + " is not in the claim channels of your token"
	case access.Closed:
		return "channels of type " + channel.Type() + " are open to nobody: no namespace of this gateway opens them"
	default:
		return "channel " + channel.Name() + " is not yours"
	}
}

// unaskedChannels are those that a stream of who gets without asking: its personal ones and the
// broadcasts.
func (g *Gateway) unaskedChannels(who *auth.Identity) []proto.Channel {
	if !who.Anonymous && who.User != "" && g.hasPersonal {
		channels := slices.Clone(g.broadcast)
		for _, name := range g.policy.PersonalChannels(who.User) {
			if channel, err := proto.ParseChannel(name); err == nil {
				channels = append(channels, channel)
			}
		}
		return channels
	}
	return g.broadcast
}

func (g *Gateway) isUnasked(channel proto.Channel, who *auth.Identity) bool {
	return slices.Contains(g.unaskedChannels(who), channel)
}

// mayAdminister checks that a request may see metrics and use the admin API: on a listener of
// their own everybody; else loopback peers that no proxy speaks for, and tokens with the claim
// admin. A loopback peer must ask for a loopback Host too: a page whose name was made to resolve
// to this machine, and a proxy that says nothing of itself, ask for another one.
func (g *Gateway) mayAdminister(r *http.Request) error {
	if isAdminListener(r) {
		return nil
	}
	who, _, err := g.identify(r, false)
	return g.isAdministrator(r, who, err)
}

// mayOpenAdmin is mayAdminister for the operator's page, which a browser opens by its address, by a
// bookmark or by a link from anywhere. A cookie counts there though nothing says which page asks:
// the page is the same for everybody and holds no secret, and no other page can read or frame it.
// What it then asks for comes from its own origin, and is decided as ever.
func (g *Gateway) mayOpenAdmin(r *http.Request) error {
	if isAdminListener(r) {
		return nil
	}
	who, credential, err := g.identify(r, false)
	var refused *auth.Refusal
	if errors.As(err, &refused) && refused.Reason == auth.OriginMissing && auth.Opens(r) {
		who, err = g.believe(r.Context(), credential.Token)
	}
	return g.isAdministrator(r, who, err)
}

// isAdministrator is the rest of mayAdminister, once it was asked who it is.
func (g *Gateway) isAdministrator(r *http.Request, who *auth.Identity, err error) error {
	if err != nil {
		return err
	}
	if who.Admin {
		return nil
	}
	local := auth.Guard{Allowed: g.origins}
	if local.Check(r, false) != nil || !auth.ClientAddress(r, auth.Proxies{}).IsLoopback() {
		return refuse(refuseAccessDenied, "for loopback peers that ask for localhost or 127.0.0.1, and for tokens with the claim admin; or set admin-listen")
	}
	return nil
}
