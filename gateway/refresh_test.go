package gateway_test

import (
	"testing"
	"time"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/gateway/access"
	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/proto"
)

// TestRefreshOutlives: a stream lives as long as its newest token.
func TestRefreshOutlives(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Auth: gateway.AuthOptions{HMACSecret: secret}})
	open := func(ttl time.Duration) *stream {
		return h.open(t, raw, visit{header: []string{bearer(mint(t, auth.MintClaims{User: "456", TTL: ttl}))}})
	}
	// The control's token ends so much later that the other, were it not refreshed, would be
	// closed by then.
	refreshed, control := open(3*time.Second), open(5*time.Second)
	refreshed.command(t, `{"type":"refresh","token":"`+mint(t, auth.MintClaims{User: "456", TTL: time.Hour})+`","ref":1}`)
	refreshed.wordWith(t, "refresh", "ref=1")
	control.ends(t, proto.ClosePolicy, "Token expired")
	refreshed.alive(t)
}

// TestRefresh: what a new token changes, and which ones are not taken.
func TestRefresh(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{
		Auth: gateway.AuthOptions{HMACSecret: secret},
		Namespaces: map[string]access.Namespace{
			"token": {Access: access.Token}, "user": {Access: access.User}, "alerts": {Access: access.Owner, Parts: 2},
		},
		Personal: []string{"alerts"},
	})
	wide := mint(t, auth.MintClaims{User: "456", Channels: []string{"token:*"}})
	narrow := mint(t, auth.MintClaims{User: "456", Channels: []string{"token:kept"}, Publish: []string{"user:*"}})
	others := mintFor(t, "457")
	refresh := func(s *stream, token string) { s.command(t, `{"type":"refresh","token":"`+token+`","ref":"r"}`) }
	onEvery(t, webSockets, func(t *testing.T, w wire) {
		s := h.open(t, w, visit{header: []string{bearer(wide)}, channels: []string{"token:lost", "token:kept", "user:1"}})
		for _, token := range []string{others, wide[:len(wide)-4] + "AAAA", "rubbish"} {
			refresh(s, token)
			s.wordWith(t, "error", "code=unauthorized", "ref=r")
		}
		s.command(t, `{"type":"refresh","ref":"r"}`)
		s.wordWith(t, "error", "code=bad_request", "ref=r")
		h.publish(t, "token:lost", `{"still":true}`) // the old token is in force
		s.event(t, `{"still":true}`)
		s.command(t, `{"type":"publish","channel":"user:1","event":{},"ref":"p"}`)
		s.wordWith(t, "error", "code=access_denied", "channel=user:1", "ref=p")

		refresh(s, narrow)
		s.wordWith(t, "error", "code=access_denied", "channel=token:lost")
		s.wordWith(t, "refresh", "ref=r")
		h.publish(t, "token:lost", `{"lost":true}`)
		for _, channel := range []string{"token:kept", "user:1", "alerts:456"} {
			h.publish(t, channel, `{"kept":true}`)
			s.event(t, `{"kept":true}`)
		}
		s.command(t, `{"type":"publish","channel":"user:1","event":{"mine":true},"ref":"p"}`)
		for range 2 { // the event and the answer, whichever is first
			if got := s.said(t); got.kind == heardWord && (got.name != "published" || got.field("ref") != "p") {
				t.Errorf("heard %v", got)
			}
		}
	})
}
