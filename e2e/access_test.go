package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/redistest"
)

// TestTokens: who may come in, on each wire, and what each client sees of a refusal.
func TestTokens(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	g := startGateway(t, "--redis", redis.URL(), "--auth-hmac-secret", secret)
	base := "http://" + g.address
	good := token(t, "--sub", "456")
	expired := signed(t, map[string]any{"sub": "456", "exp": time.Now().Add(-time.Hour).Unix()})
	// The last letter of a signature may carry bits that count for nothing: change the first.
	dot := strings.LastIndexByte(good, '.') + 1
	forged := good[:dot] + string('A'+(good[dot]-'A'+1)%26) + good[dot+1:]

	for _, k := range []kind{npmWS, pythonWS, browserWS} {
		for name, bad := range map[string]string{"forged": forged, "rubbish": "rubbish"} {
			t.Run(k.name+" "+name+" token", func(t *testing.T) {
				c := dial(t, k, base, "/ws?token="+bad)
				wantClose(t, c, 1008, "Unauthorized")
			})
		}
		t.Run(k.name+" denied channel", func(t *testing.T) {
			c := dial(t, k, base, "/ws?token="+good)
			c.await(t, "connected", func(h heard) bool { return h.is("connected") })
			c.send(t, `{"type":"subscribe","channel":"alerts:999"}`)
			h := c.await(t, "the error", func(h heard) bool { return h.is("error") })
			if h.field("code") != "access_denied" || h.field("channel") != "alerts:999" {
				t.Errorf("heard %s, want access_denied for alerts:999", h.Data)
			}
			wantClose(t, c, 1008, "Access denied")
		})
		t.Run(k.name+" no token", func(t *testing.T) {
			wantClose(t, dial(t, k, base, "/ws"), 1008, "Unauthorized")
		})
	}

	t.Run("own channel", func(t *testing.T) {
		for _, k := range light {
			c := open(t, k, base, good, "job_progress:job_123")
			// alerts is personal: nobody has to ask for it.
			redis.CLI(t, "PUBLISH", "alerts:456", `{"type":"alert","severity":"warning"}`)
			c.event(t, `{"type":"alert","severity":"warning"}`)
			redis.CLI(t, "PUBLISH", "alerts:999", `{"type":"alert","for":"another"}`)
			redis.CLI(t, "PUBLISH", "job_progress:job_123", `{"type":"job_progress","last":true}`)
			c.await(t, "only what is its own", func(h heard) bool {
				if strings.Contains(h.Data, "another") {
					t.Errorf("%s heard another user's alert", c.name)
				}
				return h.Data == `{"type":"job_progress","last":true}`
			})
		}
	})

	refusedStreams(t, base, good, forged, expired)

	t.Run("no token reaches the log", func(t *testing.T) {
		for _, word := range []string{good, forged, expired, strings.Split(good, ".")[2]} {
			if strings.Contains(g.complaints(), word) {
				t.Errorf("the log holds a token:\n%s", g.complaints())
			}
		}
	})
}

// refusedStreams asks for SSE with tokens that will not do, and wants a status and nothing more.
func refusedStreams(t *testing.T, base, good, forged, expired string) {
	t.Helper()
	for name, test := range map[string]struct {
		query string
		code  string
	}{
		"SSE forged":          {"token=" + forged + "&channel=job_progress:1", "401"},
		"SSE expired":         {"token=" + expired + "&channel=job_progress:1", "401"},
		"SSE no token":        {"channel=job_progress:1", "401"},
		"SSE another's alert": {"token=" + good + "&channel=alerts:999", "403"},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, curl, base, "/api/stream?"+test.query)
			if code := c.wait(t, patience); code != 22 || !strings.Contains(c.complaints(), "error: "+test.code) {
				t.Errorf("curl ended with %d and %q, want 22 and status %s", code, c.complaints(), test.code)
			}
		})
	}
}

// signed makes a token of any claims, for those that `millrace token` would not mint.
func signed(t *testing.T, claims map[string]any) string {
	t.Helper()
	body, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode(body)
	code := hmac.New(sha256.New, []byte(secret))
	code.Write([]byte(text))
	return text + "." + encode(code.Sum(nil))
}

func wantClose(t *testing.T, c *client, code int, reason string) {
	t.Helper()
	h := c.await(t, "the close", func(h heard) bool { return h.Kind == "close" })
	if h.Code != code || h.Reason != reason {
		t.Errorf("%s was closed with %d %q, want %d %q", c.name, h.Code, h.Reason, code, reason)
	}
}

// TestExpiry: a stream does not outlive its token, unless the token is refreshed.
func TestExpiry(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	g := startGateway(t, "--redis", redis.URL(), "--auth-hmac-secret", secret)
	base := "http://" + g.address
	const life = 4 * time.Second
	short := func() string { return token(t, "--sub", "456", "--ttl", life.String()) }

	socket := open(t, npmWS, base, short(), "job_progress:1")
	stream := open(t, curl, base, short(), "job_progress:1")
	refreshed := open(t, npmWS, base, short(), "job_progress:1")
	refreshed.send(t, `{"type":"refresh","token":"`+token(t, "--sub", "456", "--ttl", "1h")+`"}`)

	refreshed.await(t, "refresh", func(h heard) bool { return h.is("refresh") })

	h := stream.await(t, "server_error", func(h heard) bool { return h.is("server_error") })
	if h.field("code") != "token_expired" {
		t.Errorf("the stream ended with %s, want token_expired", h.Data)
	}
	if code := stream.wait(t, patience); code != 0 {
		t.Errorf("curl ended with %d, want 0: an orderly end", code)
	}
	wantClose(t, socket, 1008, "Token expired")

	redis.CLI(t, "PUBLISH", "job_progress:1", `{"type":"job_progress","still":"here"}`)
	refreshed.event(t, `{"type":"job_progress","still":"here"}`)
}

// TestSubprotocolToken: a token may travel as a subprotocol, and is never sent back.
func TestSubprotocolToken(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	g := startGateway(t, "--redis", redis.URL(), "--auth-hmac-secret", secret)
	good := token(t, "--sub", "456")
	command := npmWS.command(t, "http://"+g.address, "/ws")
	c := &client{kind: npmWS, process: start(t, npmWS.name, command[0], append(command[1:], "millrace.v1", "bearer."+good)...)}
	h := c.await(t, "connected", func(h heard) bool { return h.is("connected") })
	if h.field("userId") != "456" {
		t.Errorf("connected says %s, want user 456", h.Data)
	}
}

// TestNamedUser: without authentication a query names the user.
func TestNamedUser(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	g := startGateway(t, "--redis", redis.URL())
	c := dial(t, npmWS, "http://"+g.address, "/ws?"+url.Values{"userId": {"123"}}.Encode())
	h := c.await(t, "connected", func(h heard) bool { return h.is("connected") })
	if h.field("userId") != "123" {
		t.Errorf("connected says %s, want user 123", h.Data)
	}
	redis.CLI(t, "PUBLISH", "alerts:123", `{"type":"alert"}`)
	c.event(t, `{"type":"alert"}`)
}
