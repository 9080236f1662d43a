package settings

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/millrace/millrace/council"
	"github.com/millrace/millrace/gateway/access"
	"github.com/millrace/millrace/gateway/auth"
)

// Keys is the key material of the configuration. Never print it.
type Keys struct {
	HMACSecret   []byte // nil where HS256 is not configured
	PublicKeyPEM []byte // nil where no key file is configured
}

// Authenticated says whether any way of verifying tokens is configured.
func (s *Settings) Authenticated() bool {
	return s.AuthHMACSecret != "" || s.AuthHMACSecretFile != "" || s.AuthPublicKeyFile != "" || s.AuthJWKSURL != ""
}

// Check adds to the problems and warnings what can only be seen with all settings together, and
// reads the key files. It contacts nobody. The keys are complete only where there is no problem.
func (l *Loaded) Check() Keys {
	l.checkAddresses()
	keys := l.CheckKeys()
	l.checkChannels()
	l.checkCouncil()
	// In the order of the file, and flags and variables behind it.
	slices.SortStableFunc(l.Problems, func(a, b Problem) int { return a.Source.compare(b.Source) })
	return keys
}

// CheckKeys is the part of Check that has to do with tokens.
func (l *Loaded) CheckKeys() Keys {
	keys := Keys{HMACSecret: l.hmacSecret(), PublicKeyPEM: l.publicKey()}
	if address := l.Settings.AuthJWKSURL; address != "" && !address.Guarded() {
		l.warn("auth-jwks-url", "the keys are fetched without TLS: whoever is on the way can replace them")
	}
	l.checkTokens()
	return keys
}

func (l *Loaded) checkAddresses() {
	settings := &l.Settings
	if settings.Listen == "" {
		l.problem("listen", "expected "+Address("").Expected())
		return
	}
	if !settings.Listen.Loopback() && !settings.Authenticated() && !settings.InsecureNoAuth {
		l.problem("listen", fmt.Sprintf("%s can be reached by other machines, but no authentication is configured: "+
			"set auth-hmac-secret-file, auth-public-key-file or auth-jwks-url, or listen on 127.0.0.1, or set insecure-no-auth "+
			"to let everybody read and publish everything", settings.Listen))
	}
	if settings.InsecureNoAuth && settings.Authenticated() {
		l.warn("insecure-no-auth", "has no effect, because authentication is configured")
	}
	_, port, err := net.SplitHostPort(string(settings.AdminListen))
	if err == nil && port != "0" && settings.AdminListen == settings.Listen {
		l.problem("admin-listen", "is the same as listen; give it an address of its own, or leave it out")
	}
}

// hmacSecret gives the secret of either setting.
func (l *Loaded) hmacSecret() []byte {
	settings := &l.Settings
	path, secret := "auth-hmac-secret", []byte(settings.AuthHMACSecret)
	if settings.AuthHMACSecretFile != "" {
		if len(secret) > 0 {
			l.problem("auth-hmac-secret-file", "auth-hmac-secret is set too ("+l.Source("auth-hmac-secret").String()+"); set only one of them")
			return nil
		}
		path = "auth-hmac-secret-file"
		content, err := readBounded(settings.AuthHMACSecretFile)
		if err != nil {
			l.problem(path, err.Error())
			return nil
		}
		secret = bytes.TrimRight(content, "\r\n")
		if len(secret) == 0 {
			l.problem(path, settings.AuthHMACSecretFile+" is empty; expected "+Secret("").Expected())
			return nil
		}
	}
	if len(secret) == 0 {
		return nil
	}
	if string(secret) == SecretPlaceholder {
		l.warn(path, "this is the placeholder of a printed configuration; the gateway will not start with it")
	}
	if _, err := auth.New(context.Background(), auth.Options{HMACSecret: secret}); err != nil {
		l.problem(path, err.Error())
	}
	return secret
}

// publicKey reads the key file and makes sure that it holds a key that can be used.
func (l *Loaded) publicKey() []byte {
	path := l.Settings.AuthPublicKeyFile
	if path == "" {
		return nil
	}
	if l.Settings.AuthJWKSURL != "" {
		l.problem("auth-public-key-file", "auth-jwks-url is set too ("+l.Source("auth-jwks-url").String()+"); set only one of them")
	}
	content, err := readBounded(path)
	if err == nil {
		// Without a key set to fetch, New looks at its options and nothing else.
		_, err = auth.New(context.Background(), auth.Options{PublicKeyPEM: content})
	}
	if err != nil {
		l.problem("auth-public-key-file", err.Error())
		return nil
	}
	return content
}

// checkTokens warns of settings that do nothing without authentication.
func (l *Loaded) checkTokens() {
	if l.Settings.UserClaim == "" {
		l.problem("user-claim", "expected a claim's name, such as sub")
	}
	if l.Settings.Authenticated() {
		return
	}
	const message = "has no effect without auth-hmac-secret, auth-public-key-file or auth-jwks-url; set one, or remove this"
	if l.Settings.AuthAudience != "" {
		l.problem("auth-audience", message)
	}
	if l.Settings.AuthIssuer != "" {
		l.problem("auth-issuer", message)
	}
}

// checkChannels lets the access policy, which knows its own rules, look at the namespaces and at
// the channels that are subscribed without asking.
func (l *Loaded) checkChannels() {
	policy, err := access.New(access.Options{
		Namespaces: l.Settings.Namespaces, Personal: l.Settings.Personal, Broadcast: l.Settings.Broadcast,
		Authenticated: l.Settings.Authenticated(), Demo: l.Settings.Demo, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		l.join(err)
		return
	}
	policy.Close()
}

// join takes apart an error that joins others, and notes each at the place of its setting.
func (l *Loaded) join(err error) {
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range several.Unwrap() {
			l.join(one)
		}
		return
	}
	var wrong *access.SettingError
	if errors.As(err, &wrong) {
		l.problem(wrong.Path, wrong.Message)
		return
	}
	var seat *council.SettingError
	if errors.As(err, &seat) {
		l.problem("council."+seat.Path, seat.Message)
		return
	}
	l.problem("namespaces", err.Error())
}

// Note adds a problem that somebody else found. An error that begins with the name of a setting
// and a colon gets that setting's place.
func (l *Loaded) Note(err error) {
	name, message, found := strings.Cut(err.Error(), ": ")
	if found && slices.ContainsFunc(fields(), func(field Field) bool { return field.Name == name }) {
		l.problem(name, message)
		return
	}
	l.Problems = append(l.Problems, Problem{Message: err.Error()})
}

// EffectiveChannels gives the channel settings that the gateway will use, the built-in ones where
// the file has none.
func (s *Settings) EffectiveChannels() ChannelSettings {
	effective := s.ChannelSettings
	builtIn := access.Defaults(s.Authenticated(), s.Demo)
	if effective.Namespaces == nil {
		effective.Namespaces = builtIn
		if effective.Personal == nil {
			effective.Personal = []string{"alerts"}
		}
		return effective
	}
	if _, ok := effective.Namespaces[access.DefaultType]; !ok {
		effective.Namespaces = maps.Clone(effective.Namespaces)
		effective.Namespaces[access.DefaultType] = builtIn[access.DefaultType]
	}
	return effective
}

// ErrPlaceholder is why nothing starts with a printed configuration's placeholder as its secret:
// everybody knows it.
var ErrPlaceholder = errors.New("auth-hmac-secret is the placeholder of a printed configuration: put a secret in its place, or use auth-hmac-secret-file")

// ErrCouncilPlaceholder is the same of a provider's key.
var ErrCouncilPlaceholder = errors.New("a key of the council is the placeholder of a printed configuration: put the key in its place, use key_file, or the provider's variable")

// Placeholder says whether the secret is [SecretPlaceholder].
func (k Keys) Placeholder() bool { return string(k.HMACSecret) == SecretPlaceholder }
