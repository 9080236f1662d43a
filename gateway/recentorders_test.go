package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/gateway/access"
	"github.com/millrace/millrace/gateway/auth"
)

// gatedWebhook says yes for a minute, to each question once it is let.
type gatedWebhook struct {
	*httptest.Server
	arrived, release chan struct{}
}

func startGatedWebhook(t *testing.T) *gatedWebhook {
	t.Helper()
	w := &gatedWebhook{arrived: make(chan struct{}), release: make(chan struct{})}
	w.Server = httptest.NewServer(http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		_, _ = io.Copy(io.Discard, request.Body) // only then it is noticed that who asks has gone
		select {
		case w.arrived <- struct{}{}:
		case <-request.Context().Done():
			return
		}
		select {
		case <-w.release:
		case <-request.Context().Done():
			return
		}
		response.Header().Set("Cache-Control", "max-age=60")
	}))
	t.Cleanup(w.Close)
	return w
}

// TestOrdersMeanThoseOnTheirWayIn: an order means also those whose webhook is being asked, who have no
// stream yet; and what the webhook said before it counts no more.
func TestOrdersMeanThoseOnTheirWayIn(t *testing.T) {
	t.Parallel()
	hook := startGatedWebhook(t)
	h := serve(t, gateway.Options{
		Auth: gateway.AuthOptions{HMACSecret: secret},
		Namespaces: map[string]access.Namespace{
			"user":   {Access: access.User},
			"hooked": {Access: access.ByWebhook, OnDenied: access.ErrorOnDenied, Webhook: &access.Webhook{URL: hook.URL, Timeout: access.WebhookTimeoutMax}},
		},
	})
	for number, test := range []struct {
		name   string
		orders []string
		left   []string // of the channels; nil: the stream has ended
		again  bool     // the webhook is asked when the client comes again
	}{
		{"the user goes", []string{"disconnect?user=USER"}, nil, true},
		{"who hears the channel goes", []string{"disconnect?channel=CHANNEL"}, nil, true},
		{"the channel is taken", []string{"unsubscribe?channel=CHANNEL"}, []string{"user:1"}, true},
		{"the channel is taken from the user", []string{"unsubscribe?channel=CHANNEL&user=USER"}, []string{"user:1"}, true},
		{
			"others go",
			[]string{"disconnect?user=other", "disconnect?channel=hooked:other", "unsubscribe?channel=CHANNEL&user=other"},
			[]string{"user:1", "CHANNEL"},
			false,
		},
		{"as many others as are remembered", slices.Repeat([]string{"disconnect?user=other"}, gateway.OrdersRemembered), []string{"user:1", "CHANNEL"}, false},
		{"more than are remembered", slices.Repeat([]string{"disconnect?user=other"}, gateway.OrdersRemembered+1), nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			user, channel := fmt.Sprint("user", number), fmt.Sprint("hooked:", number)
			names := strings.NewReplacer("USER", user, "CHANNEL", channel)
			v := visit{channels: []string{"user:1", channel}, header: []string{bearer(mint(t, auth.MintClaims{User: user}))}}
			conn := dial(t, h.address)
			defer conn.Close()
			if _, err := io.WriteString(conn, h.raw(sse.request(v))); err != nil {
				t.Fatal(err)
			}
			<-hook.arrived
			operator := dial(t, h.address) // one for all orders: the webhook waits for its answer meanwhile
			defer operator.Close()
			for _, order := range test.orders {
				if got := exchange(t, operator, h.raw(request("POST", "/api/admin/"+names.Replace(order)))); got.status != 200 {
					t.Fatalf("%s was answered %d %s", order, got.status, got.body)
				}
			}
			select {
			case hook.release <- struct{}{}:
			case <-time.After(patience):
				t.Fatal("the webhook is no longer asked: the orders took too long")
			}
			s := hear(t, sse, conn)
			s.wantOpen(t)
			if test.left == nil {
				s.disconnected(t)
			} else {
				s.greeted(t)
				if got, want := strings.Join(s.channels, " "), names.Replace(strings.Join(test.left, " ")); got != want {
					t.Errorf("it is told of the channels %s, want %s", got, want)
				}
			}
			if len(test.left) == 1 {
				s.wordWith(t, "unsubscribed", "channel="+channel)
			}
			answered := make(chan struct{})
			if test.again {
				go func() {
					<-hook.arrived
					hook.release <- struct{}{}
					close(answered)
				}()
			} else {
				close(answered)
			}
			h.open(t, sse, v)
			<-answered
		})
	}
}

// TestOrdersMeanThoseWhoWaitForAWebhook: a WebSocket that waits for a webhook's word on a channel is told
// that the channel was taken, and the word comes too late.
func TestOrdersMeanThoseWhoWaitForAWebhook(t *testing.T) {
	t.Parallel()
	hook := startGatedWebhook(t)
	h := serve(t, gateway.Options{
		Auth: gateway.AuthOptions{HMACSecret: secret},
		Namespaces: map[string]access.Namespace{
			"hooked": {Access: access.ByWebhook, Webhook: &access.Webhook{URL: hook.URL, Timeout: access.WebhookTimeoutMax}},
		},
	})
	s := h.open(t, raw, visit{header: []string{bearer(mintFor(t, "456"))}})
	s.command(t, `{"type":"subscribe","channel":"hooked:1"}`)
	<-hook.arrived
	h.order(t, "unsubscribe?channel=hooked:1&user=456", `{"distributed":true,"unsubscribed":1}`)
	s.wordWith(t, "unsubscribed", "channel=hooked:1")
	hook.release <- struct{}{}
	s.command(t, `{"type":"subscribe","channel":"hooked:2"}`)
	<-hook.arrived
	hook.release <- struct{}{}
	s.wordWith(t, "subscribed", "channel=hooked:2")
	h.publish(t, "hooked:1", `"taken"`)
	h.publish(t, "hooked:2", `"mine"`)
	s.event(t, `"mine"`)
}
