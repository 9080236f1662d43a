package gateway_test

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/gateway/access"
	"github.com/millrace/millrace/proto"
)

// askedWebhook is a real HTTP server that decides by the channel's id, and remembers what it was
// asked.
type askedWebhook struct {
	*httptest.Server
	mutex    sync.Mutex
	asked    map[string]int // by channel and user
	tokens   map[string]bool
	released chan struct{} // closed at the end, for questions that are let wait
}

func startWebhook(t testing.TB) *askedWebhook {
	t.Helper()
	w := &askedWebhook{asked: make(map[string]int), tokens: make(map[string]bool), released: make(chan struct{})}
	w.Server = httptest.NewServer(w)
	t.Cleanup(func() { close(w.released); w.Close() })
	return w
}

func (w *askedWebhook) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	body, _ := io.ReadAll(request.Body)
	var question struct{ User, Channel, Action string }
	if json.Unmarshal(body, &question) != nil || question.Action != "subscribe" || request.Method != "POST" {
		response.WriteHeader(http.StatusBadRequest)
		return
	}
	w.mutex.Lock()
	w.asked[question.Channel+" "+question.User]++
	w.tokens[request.Header.Get("Authorization")] = true
	w.mutex.Unlock()
	switch question.Channel {
	case "hooked:yes":
		response.Header().Set("Cache-Control", "max-age=60")
		_, _ = io.WriteString(response, `{"allow":true}`)
	case "hooked:empty":
		response.WriteHeader(http.StatusNoContent)
	case "hooked:no":
		_, _ = io.WriteString(response, `{"allow":false}`)
	case "hooked:403":
		response.WriteHeader(http.StatusForbidden)
	case "hooked:broken":
		response.WriteHeader(http.StatusInternalServerError)
	case "hooked:moved":
		http.Redirect(response, request, "/elsewhere", http.StatusTemporaryRedirect)
	case "hooked:slow", "hasty:slow":
		select {
		case <-w.released:
		case <-request.Context().Done():
		}
	default:
		_, _ = io.WriteString(response, `not JSON`)
	}
}

func (w *askedWebhook) times(question string) int {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.asked[question]
}

// TestWebhook: another service decides, and its silence is a no.
func TestWebhook(t *testing.T) {
	t.Parallel()
	hook := startWebhook(t)
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := "http://" + nobody.Addr().String()
	nobody.Close()
	webhook := func(address string, timeout time.Duration) access.Namespace {
		return access.Namespace{Access: access.ByWebhook, OnDenied: access.ErrorOnDenied, Webhook: &access.Webhook{
			URL: address, Timeout: timeout, ForwardToken: address == hook.URL,
		}}
	}
	h := serve(t, gateway.Options{
		Auth: gateway.AuthOptions{HMACSecret: secret},
		Namespaces: map[string]access.Namespace{
			"hooked": webhook(hook.URL, access.WebhookTimeoutMax), "hasty": webhook(hook.URL, 300*time.Millisecond), "dead": webhook(dead, access.WebhookTimeoutMax),
		},
	})
	token := mintFor(t, "456")
	header := []string{bearer(token)}
	onEvery(t, everyWire, func(t *testing.T, w wire) {
		for channel, allowed := range map[string]bool{
			"hooked:yes": true, "hooked:empty": true, "hooked:no": false, "hooked:403": false, "hooked:broken": false,
			"hooked:moved": false, "hasty:slow": false, "hooked:rubbish": false, "dead:1": false,
		} {
			v := visit{channels: []string{channel}, header: header}
			switch {
			case allowed:
				s := h.open(t, w, v)
				h.publish(t, channel, `{"n":1}`)
				s.event(t, `{"n":1}`)
			case !w.websocket:
				if got := h.ask(t, w.request(v)); got.status != 403 || got.code(t) != "access_denied" {
					t.Errorf("%s was answered %d %s", channel, got.status, got.body)
				}
			default:
				s := h.open(t, w, visit{header: header})
				s.command(t, `{"type":"subscribe","channel":"`+channel+`","ref":"r"}`)
				s.wordWith(t, "error", "code=access_denied", "channel="+channel, "ref=r")
				s.alive(t)
			}
		}
	})
	if times := hook.times("hooked:yes 456"); times != 1 {
		t.Errorf("a yes for a minute was asked for %d times", times)
	}
	if hook.mutex.Lock(); !hook.tokens["Bearer "+token] || len(hook.tokens) != 1 {
		t.Error("forward_token did not forward the token, or more than that")
	}
	hook.mutex.Unlock()
}

// TestSlowWebhook: a stream that waits for a webhook holds up nobody, itself included.
func TestSlowWebhook(t *testing.T) {
	t.Parallel()
	hook := startWebhook(t)
	h := serve(t, gateway.Options{
		Auth: gateway.AuthOptions{HMACSecret: secret}, Loops: 1,
		Namespaces: map[string]access.Namespace{
			"user":   {Access: access.User},
			"hooked": {Access: access.ByWebhook, Webhook: &access.Webhook{URL: hook.URL, Timeout: 3 * time.Second}},
		},
	})
	header := []string{bearer(mintFor(t, "456"))}
	waiting := h.open(t, raw, visit{header: header, channels: []string{"user:1"}})
	other := h.open(t, raw, visit{header: header, channels: []string{"user:1"}})
	gone := h.open(t, raw, visit{header: header})
	changed := h.open(t, raw, visit{header: header})
	for _, s := range []*stream{waiting, gone, changed} {
		s.command(t, `{"type":"subscribe","channel":"hooked:slow","ref":1}`)
	}
	changed.command(t, `{"type":"unsubscribe","channel":"hooked:slow"}`)
	changed.wordWith(t, "unsubscribed", "channel=hooked:slow")
	within(t, patience, "the webhook is asked", func() bool { return hook.times("hooked:slow 456") > 0 })
	gone.conn.Close()
	h.publish(t, "user:1", `{"n":1}`)
	for _, s := range []*stream{waiting, other} {
		s.event(t, `{"n":1}`)
		s.alive(t)
	}
	waiting.wordWith(t, "error", "code=access_denied", "ref=1")
	waiting.ends(t, proto.ClosePolicy, "Access denied")
	changed.alive(t) // whoever no longer wants it is not closed for it
	if times := hook.times("hooked:slow 456"); times != 1 {
		t.Errorf("the same question was asked %d times at once", times)
	}
}
