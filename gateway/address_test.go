package gateway_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/gateway/access"
	"github.com/millrace/millrace/proto"
)

// inAddress is a visit that names channels, and where to go on, in the address of a WebSocket.
func inAddress(more string, channels ...string) visit {
	query := make([]string, 0, len(channels)+1)
	for _, channel := range channels {
		query = append(query, "channel="+url.QueryEscape(channel))
	}
	if more != "" {
		query = append(query, more)
	}
	return visit{query: strings.Join(query, "&")}
}

// TestChannelsInAddress: a WebSocket may name its channels in its address, as an event stream does,
// and then needs to say nothing.
func TestChannelsInAddress(t *testing.T) {
	t.Parallel()
	onEachBroker(t, gateway.Options{}, func(t *testing.T, writer writer) {
		h := writer.house
		onEvery(t, webSockets, func(t *testing.T, w wire) {
			s := h.open(t, w, inAddress("", "events:1", "events:2", "events:1"))
			s.wordWith(t, "subscribed", "channel=events:1", "ref=")
			s.wordWith(t, "subscribed", "channel=events:2", "ref=")
			writer.publish(t, "events:2", "1")
			s.event(t, "1")
			writer.publish(t, "events:1", "2")
			s.event(t, "2")
			s.command(t, `{"type":"unsubscribe","channel":"events:1"}`)
			s.wordWith(t, "unsubscribed", "channel=events:1")
		})
	})
}

// TestPositionInAddress: since in the address is that of a subscribe command, and what
// EventSource calls lastEventId the same.
func TestPositionInAddress(t *testing.T) {
	t.Parallel()
	onEachBroker(t, gateway.Options{}, func(t *testing.T, writer writer) {
		h := writer.house
		s := h.open(t, enveloped, visit{channels: []string{"events:1"}})
		writer.publish(t, "events:1", "1")
		id := s.event(t, "1").id
		writer.publish(t, "events:1", "2")
		s.event(t, "2")
		for _, name := range []string{"since", "lastEventId"} {
			t.Run(name, func(t *testing.T) {
				s := h.open(t, enveloped, inAddress(name+"="+url.QueryEscape(id), "events:1"))
				s.wordWith(t, "subscribed", "channel=events:1")
				s.event(t, "2")
				s.wordWith(t, "replayed", "channel=events:1", "count=1")
			})
		}
	})
}

// TestRefusedInAddress: what would be refused in a command is refused as it is there; what is no
// channel at all is a bad request.
func TestRefusedInAddress(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{
		Auth:   gateway.AuthOptions{HMACSecret: secret},
		Limits: gateway.Limits{MaxSubscriptions: 2},
		Namespaces: map[string]access.Namespace{
			"user": {Access: access.User}, "owner": {Access: access.Owner},
		},
	})
	token := bearer(mintFor(t, "456"))
	onEvery(t, webSockets, func(t *testing.T, w wire) {
		v := inAddress("", "owner:457", "owner:456")
		v.header = []string{token}
		s := h.open(t, w, v)
		s.wordWith(t, "error", "code=access_denied", "channel=owner:457")
		s.ends(t, proto.ClosePolicy, "Access denied")
	})
	for name, row := range map[string]struct{ query, code string }{
		"no channel":        {"channel=plain", "bad_channel"},
		"a broken escape":   {"channel=%zz", "bad_request"},
		"one channel more":  {"channel=user:1&channel=user:2&channel=user:3", "bad_request"},
		"a bad one of two":  {"channel=user:1&channel=a:b:c:d", "bad_channel"},
		"an empty channel":  {"channel=", "bad_channel"},
		"a semicolon is no": {"channel=user:1;channel=user:2", "bad_request"},
	} {
		t.Run(name, func(t *testing.T) {
			v := visit{query: row.query, header: []string{token}}
			if got := h.ask(t, raw.request(v)); got.status != 400 || got.code(t) != row.code {
				t.Errorf("answered %d %s, want 400 %s", got.status, got.body, row.code)
			}
		})
	}
}
