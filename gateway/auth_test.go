package gateway_test

import (
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/gateway/access"
	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/internal/logtest"
	"github.com/millrace/millrace/proto"
)

// carriers are the ways in which a token travels.
var carriers = []struct {
	name     string
	carry    func(token string) visit
	wires    []wire
	protocol string // answered
}{
	{"header", func(token string) visit { return visit{header: []string{bearer(token)}} }, everyWire, ""},
	{"header in small letters", func(token string) visit { return visit{header: []string{"authorization: bearer " + token}} }, everyWire, ""},
	{"query", func(token string) visit { return visit{query: "token=" + url.QueryEscape(token)} }, everyWire, ""},
	{"query with an escaped name", func(token string) visit { return visit{query: "%74oken=" + token} }, everyWire, ""},
	{"cookie with the host's own origin", func(token string) visit {
		return visit{header: []string{"Cookie: a=b; millrace_token=" + token, "Origin: http://HOST"}}
	}, everyWire, ""},
	{"cookie with an allowed origin", func(token string) visit {
		return visit{header: []string{"Cookie: millrace_token=" + token, "Origin: https://app.example"}}
	}, everyWire, ""},
	{"cookie of the same origin", func(token string) visit {
		return visit{header: []string{"Cookie: millrace_token=" + token, "Sec-Fetch-Site: same-origin"}}
	}, everyWire, ""},
	{"subprotocol", func(token string) visit {
		return visit{header: []string{"Sec-WebSocket-Protocol: millrace.v1, bearer." + token}}
	}, webSockets, "millrace.v1"},
	{"the same twice", func(token string) visit {
		return visit{query: "token=" + token, header: []string{bearer(token)}}
	}, everyWire, ""},
}

// TestCarriers: a good token is believed, and a bad one never, however it comes.
func TestCarriers(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{
		Auth: gateway.AuthOptions{HMACSecret: secret}, AllowedOrigins: []string{"https://app.example"},
	})
	good := mintFor(t, "456")
	bad := mint(t, auth.MintClaims{User: "456", TTL: time.Minute, Now: time.Now().Add(-time.Hour)})
	for _, carrier := range carriers {
		t.Run(carrier.name, func(t *testing.T) {
			onEvery(t, carrier.wires, func(t *testing.T, w wire) {
				v := carrier.carry(good)
				v.channels = []string{"job_progress:1"}
				s := h.open(t, w, v)
				if s.user != "456" {
					t.Errorf("the user is %q", s.user)
				}
				if got := s.response.Header.Get("Sec-WebSocket-Protocol"); got != carrier.protocol {
					t.Errorf("the subprotocol is %q, want %q", got, carrier.protocol)
				}
				h.publish(t, "alerts:456", `{"for":"456"}`)
				s.event(t, `{"for":"456"}`)

				v = carrier.carry(bad)
				v.channels = []string{"job_progress:1"}
				s = h.knock(t, w, v)
				if !w.websocket {
					if s.response.StatusCode != 401 {
						t.Errorf("a bad token was answered %d", s.response.StatusCode)
					}
					return
				}
				s.wantOpen(t)
				s.ends(t, proto.ClosePolicy, "Unauthorized")
			})
		})
	}
}

// TestDisbeliefIsLogged: the client is not told why its token is not believed; at level debug the log
// says it, and nothing of the token.
func TestDisbeliefIsLogged(t *testing.T) {
	t.Parallel()
	var log logtest.Text
	h := serve(t, gateway.Options{
		Auth:   gateway.AuthOptions{HMACSecret: secret, Audience: "shop"},
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	for reason, token := range map[string]string{
		"audience": mint(t, auth.MintClaims{User: "456", Audience: "another"}),
		"expired":  mint(t, auth.MintClaims{User: "456", Audience: "shop", TTL: time.Minute, Now: time.Now().Add(-time.Hour)}),
	} {
		onEvery(t, everyWire, func(t *testing.T, w wire) {
			line := `msg="a token was not believed" reason=` + reason
			before := strings.Count(log.String(), line)
			h.knock(t, w, visit{channels: []string{"job_progress:1"}, header: []string{bearer(token)}})
			if now := strings.Count(log.String(), line); now != before+1 {
				t.Errorf("%q was logged %d times, want once:\n%s", line, now-before, log.String())
			}
			if strings.Contains(log.String(), token) {
				t.Error("the log has the token")
			}
		})
	}
}

// TestAnonymous: who has no token hears what is public, and nothing where nothing is.
func TestAnonymous(t *testing.T) {
	t.Parallel()
	closed := serve(t, gateway.Options{Auth: gateway.AuthOptions{HMACSecret: secret}})
	open := serve(t, gateway.Options{
		Auth: gateway.AuthOptions{HMACSecret: secret}, Broadcast: []string{"system:all"},
		Namespaces: map[string]access.Namespace{
			"news": {Access: access.Public, Wildcard: true}, "job_progress": {Access: access.User},
			"system": {Access: access.None},
		},
	})
	onEvery(t, everyWire, func(t *testing.T, w wire) {
		s := open.open(t, w, visit{channels: []string{"news:1"}})
		if s.user != "" {
			t.Errorf("the user is %q", s.user)
		}
		open.publish(t, "news:1", `{"n":1}`)
		s.event(t, `{"n":1}`)
		open.publish(t, "system:all", `{"n":2}`)
		s.event(t, `{"n":2}`)
		if !w.websocket {
			if got := open.ask(t, w.request(visit{channels: []string{"news:1", "job_progress:1"}})); got.status != 401 {
				t.Errorf("a channel that is not public was answered %d", got.status)
			}
			if got := closed.ask(t, w.request(visit{channels: []string{"job_progress:1"}})); got.status != 401 {
				t.Errorf("with nothing public the answer was %d", got.status)
			}
			return
		}
		s.command(t, `{"type":"subscribe","channel":"job_progress:1","ref":1}`)
		s.wordWith(t, "error", "code=unauthorized", "channel=job_progress:1", "ref=1")
		s.ends(t, proto.ClosePolicy, "Unauthorized")
		s = closed.knock(t, w, visit{})
		s.wantOpen(t)
		s.ends(t, proto.ClosePolicy, "Unauthorized")
	})
}

// TestAccess: who may hear what, on every wire.
func TestAccess(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{
		Auth: gateway.AuthOptions{HMACSecret: secret},
		Namespaces: map[string]access.Namespace{
			"public": {Access: access.Public}, "user": {Access: access.User}, "owner": {Access: access.Owner},
			"three": {Access: access.Owner, Parts: 3}, "token": {Access: access.Token, Wildcard: true}, "none": {Access: access.None},
			"public_all": {Access: access.Public, Wildcard: true},
		},
	})
	token := mint(t, auth.MintClaims{User: "456", Channels: []string{"token:granted", "other:*"}})
	for channel, code := range map[string]string{
		"public:1": "", "user:1": "", "owner:456": "", "owner:1:456": "", "three:1:456": "", "token:granted": "", "public_all:*": "",
		"owner:457": "access_denied", "owner:4567": "access_denied", "owner:45": "access_denied", "owner:456:457": "access_denied",
		"three:456": "bad_channel", "token:granted2": "access_denied", "token:Granted": "access_denied", "token:*": "access_denied",
		"none:1": "access_denied", "unknown:1": "access_denied", "user:*": "bad_channel", "owner:*": "bad_channel",
	} {
		t.Run(channel, func(t *testing.T) {
			onEvery(t, everyWire, func(t *testing.T, w wire) {
				v := visit{channels: []string{channel}, header: []string{bearer(token)}}
				if code == "" {
					h.open(t, w, v)
					return
				}
				if !w.websocket {
					if got := h.ask(t, w.request(v)); got.code(t) != code {
						t.Errorf("answered %d %s, want %s", got.status, got.body, code)
					}
					return
				}
				s := h.open(t, w, visit{header: v.header})
				s.command(t, `{"type":"subscribe","channel":"`+channel+`","ref":"r"}`)
				s.wordWith(t, "error", "code="+code, "channel="+channel, "ref=r")
				if code == "access_denied" {
					s.ends(t, proto.ClosePolicy, "Access denied")
				} else {
					s.alive(t)
				}
			})
		})
	}
}

// TestDeniedKeepsSocket: on_denied: error leaves the stream, and its other channels, as they are.
func TestDeniedKeepsSocket(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{
		Auth: gateway.AuthOptions{HMACSecret: secret},
		Namespaces: map[string]access.Namespace{
			"user": {Access: access.User}, "owner": {Access: access.Owner, OnDenied: access.ErrorOnDenied},
		},
	})
	onEvery(t, webSockets, func(t *testing.T, w wire) {
		s := h.open(t, w, visit{header: []string{bearer(mintFor(t, "456"))}, channels: []string{"user:1"}})
		s.command(t, `{"type":"subscribe","channels":["owner:457","owner:456"],"ref":1}`)
		s.wordWith(t, "error", "code=access_denied", "channel=owner:457", "ref=1")
		s.wordWith(t, "subscribed", "channel=owner:456", "ref=1")
		h.publish(t, "owner:457", `{"not":"yours"}`)
		h.publish(t, "user:1", `{"n":1}`)
		s.event(t, `{"n":1}`)
	})
}

// TestExpiry: a stream ends with its token.
func TestExpiry(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Auth: gateway.AuthOptions{HMACSecret: secret}})
	for _, w := range everyWire {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			token := mint(t, auth.MintClaims{User: "456", TTL: 3 * time.Second})
			s := h.open(t, w, visit{channels: []string{"job_progress:1"}, header: []string{bearer(token)}})
			if !w.websocket {
				s.wordWith(t, "server_error", "code=token_expired")
			}
			s.ends(t, proto.ClosePolicy, "Token expired")
		})
	}
}
