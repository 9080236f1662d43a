package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/proto"
)

// streams asks for a list of streams, as an operator does.
func (h *house) streams(t testing.TB, query string) gateway.StreamList {
	t.Helper()
	got := h.ask(t, get("/api/admin/streams"+query))
	var list gateway.StreamList
	if err := json.Unmarshal([]byte(got.body), &list); err != nil || got.status != 200 {
		t.Fatalf("%s answered %d %.300s", query, got.status, got.body)
	}
	return list
}

// clients are the ids of a list, in order.
func clients(list gateway.StreamList) (ids []string) {
	for _, one := range list.Streams {
		ids = append(ids, one.Client)
	}
	return ids
}

// TestStreams: a client that does not read is listed with what its channel's mode makes of it, and
// explained; one that has nothing to read is not, unless it is asked for.
func TestStreams(t *testing.T) {
	t.Parallel()
	for channel, state := range map[string]string{"events:1": "dropping", "log:1": "catching_up", "state:1": "conflating"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			onEachBroker(t, gateway.Options{Limits: gateway.Limits{MaxQueueBytes: slowQueueBytes, ProgressTimeout: gateway.NoLimit}}, func(t *testing.T, writer writer) {
				h := writer.house
				h.open(t, raw, visit{channels: []string{"events:idle"}, query: "userId=2"})
				var slow []string
				for _, w := range everyWire {
					slow = append(slow, h.open(t, w, visit{channels: []string{channel, "events:2"}, query: "userId=456"}).clientID)
				}
				h.lag(t, channel, len(slow))
				list := h.streams(t, "?slow=1")
				if got := clients(list); !sameClients(got, slow) || list.Matched != len(slow) || list.Open != len(slow)+1 {
					t.Fatalf("slow are %v, listed %+v", slow, list)
				}
				for i, one := range list.Streams {
					if one.State != state || !one.Slow || one.User != "456" || one.Subscriptions != 2 || one.QueuedBytes < 1000 || one.Address != "" {
						t.Errorf("%+v", one)
					}
					if i > 0 && one.QueuedBytes > list.Streams[i-1].QueuedBytes {
						t.Errorf("a stream with %d bytes queued comes after one with %d", one.QueuedBytes, list.Streams[i-1].QueuedBytes)
					}
					// One that catches up has nothing queued for a moment, again and again.
					within(t, patience, "the stream is explained as it is listed", func() bool {
						e := h.explain(t, one.Client)
						return e.Wire == one.Wire && e.Queue.Bytes > 0 && e.Peer.UnackedBytes > 0 && len(e.Channels) == 2
					})
				}
				for query, want := range map[string]int{
					"": len(slow), "?user=456": len(slow), "?user=2": 1, "?user=2&slow=1": 0, "?user=3": 0, "?channel=" + channel: len(slow),
					"?channel=events:idle": 1, "?channel=events:none": 0, "?channel=events:2&user=2": 0,
					"?client=" + slow[0]: 1, "?client=" + slow[0] + "&user=2": 0, "?client=x-1": 0,
				} {
					if list := h.streams(t, query); len(list.Streams) != want || list.Matched != want {
						t.Errorf("%q lists %+v, want %d", query, list, want)
					}
				}
				if list := h.streams(t, "?slow=1&limit=2"); len(list.Streams) != 2 || list.Matched != len(slow) {
					t.Errorf("two of them are listed as %+v", list)
				}
			})
		})
	}
}

func sameClients(one, other []string) bool {
	one, other = slices.Sorted(slices.Values(one)), slices.Sorted(slices.Values(other))
	return slices.Equal(one, other)
}

// TestStreamThatOnlyWaits: a client that takes nothing is slow before anything is withheld from it,
// and no longer once it reads.
func TestStreamThatOnlyWaits(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Namespaces: modes(), Limits: gateway.Limits{MaxQueueBytes: gateway.NoLimit}})
	onEvery(t, everyWire, func(t *testing.T, w wire) {
		channel := "events:" + strings.ReplaceAll(w.name, " ", "_")
		s := h.open(t, w, visit{channels: []string{channel}})
		const events = 40
		for range events {
			h.publish(t, channel, `{"pad":"`+padding(64_000)+`"}`)
		}
		within(t, patience, "it is listed", func() bool {
			list := h.streams(t, "?slow=1&channel="+channel)
			return len(list.Streams) == 1 && list.Streams[0].State == "queued" && list.Streams[0].OldestMs >= 1000 && list.Streams[0].ProgressMs > 0
		})
		for range events {
			s.anyEvent(t)
		}
		within(t, patience, "it is so no more", func() bool { return h.streams(t, "?slow=1&client="+s.clientID).Matched == 0 })
		if list := h.streams(t, "?client="+s.clientID); len(list.Streams) != 1 || list.Streams[0].State != "live" {
			t.Errorf("afterwards it is %+v", list)
		}
		s.conn.Close()
	})
}

// TestStreamsOfAddresses: a list says where streams come from, as the limits count it.
func TestStreamsOfAddresses(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Auth: gateway.AuthOptions{HMACSecret: secret}, TrustedProxies: []string{"127.0.0.0/8"}})
	for _, row := range []struct{ user, from, want string }{
		{"here", "", ""},
		{"four", "203.0.113.5", "203.0.113.5"},
		{"six", "2001:db8:1:2:3::4", "2001:db8:1:2::/64"},
	} {
		header := []string{bearer(mintFor(t, row.user))}
		if row.from != "" {
			header = append(header, "X-Forwarded-For: "+row.from)
		}
		h.open(t, raw, visit{header: header})
		list := h.streams(t, "?user="+row.user)
		if len(list.Streams) != 1 || list.Streams[0].Address != row.want {
			t.Errorf("a stream from %q is %+v, want the address %q", row.from, list, row.want)
		}
	}
}

// TestStreamsAnswers: who may ask for the list, and what for.
func TestStreamsAnswers(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Auth: gateway.AuthOptions{HMACSecret: secret}})
	user, admin := bearer(mintFor(t, "2")), bearer(mint(t, auth.MintClaims{User: "1", Admin: true}))
	const forwarded = "X-Forwarded-For: 203.0.113.5"
	const path = "/api/admin/streams"
	h.check(t, []row{
		{"from loopback", get(path), 200, "", "Content-Type: application/json"},
		{"an admin", get(path, forwarded, admin), 200, "", ""},
		{"a user", get(path, forwarded, user), 403, "access_denied", ""},
		{"nobody", get(path, forwarded), 403, "access_denied", ""},
		{"a bad token", get(path, bearer("x")), 401, "unauthorized", ""},
		{"a page elsewhere", get(path, "Origin: https://evil.example"), 403, "bad_origin", ""},
		{"the largest list", get(path + "?limit=100"), 200, "", ""},
		{"a larger one", get(path + "?limit=101"), 400, "bad_request", ""},
		{"none", get(path + "?limit=0"), 400, "bad_request", ""},
		{"no number", get(path + "?limit=x"), 400, "bad_request", ""},
		{"not slow", get(path + "?slow=0"), 200, "", ""},
		{"neither", get(path + "?slow=yes"), 400, "bad_request", ""},
		{"no channel", get(path + "?channel=x"), 400, "bad_channel", ""},
		{"no POST", request("POST", path), 405, "", "Allow: GET"},
	})
	apart := serve(t, gateway.Options{Auth: gateway.AuthOptions{HMACSecret: secret}, AdminListen: "127.0.0.1:0"})
	apart.check(t, []row{{"beside an admin listener", get(path, admin), 404, "not_found", ""}})
	alone := &house{Gateway: apart.Gateway, address: apart.AdminAddr().String()}
	alone.check(t, []row{{"on the admin listener", get(path), 200, "", ""}})
}

// TestStreamsAsLibrary: the errors and bounds of the method.
func TestStreamsAsLibrary(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{})
	if _, err := h.Streams(context.Background(), gateway.StreamQuery{Channel: "x"}); !errors.Is(err, proto.ErrBadChannel) {
		t.Errorf("a bad channel: %v", err)
	}
	for _, limit := range []int{-1, 0, 1, gateway.StreamsMax + 1} {
		if list, err := h.Streams(context.Background(), gateway.StreamQuery{Limit: limit}); err != nil || list.Streams == nil || len(list.Streams) != 0 {
			t.Errorf("with the limit %d: %+v, %v", limit, list, err)
		}
	}
	h.stop(t)
	if _, err := h.Streams(context.Background(), gateway.StreamQuery{}); !errors.Is(err, gateway.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}
