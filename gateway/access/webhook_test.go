package access

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/internal/polltest"
)

var testSecret = []byte("0123456789abcdef0123456789abcdef")

// verified is the identity of a user whose token was verified and kept.
func verified(t testing.TB, name string) *auth.Identity {
	t.Helper()
	token, err := auth.Mint(testSecret, auth.MintClaims{User: name})
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := auth.New(t.Context(), auth.Options{HMACSecret: testSecret, KeepToken: true})
	if err != nil {
		t.Fatal(err)
	}
	identity, err := verifier.Verify(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	return identity
}

// hook is a webhook's host; asked counts its requests.
type hook struct {
	*httptest.Server
	asked   atomic.Int64
	handler http.HandlerFunc
}

func newHook(t testing.TB, handler http.HandlerFunc) *hook {
	made := &hook{handler: handler}
	made.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		made.asked.Add(1)
		made.handler(w, r)
	}))
	t.Cleanup(made.Close)
	return made
}

// answer is a handler that always answers the same.
func answer(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for place := 0; place < len(headers); place += 2 {
			w.Header().Add(headers[place], headers[place+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// clock is a clock for the cache that a test moves.
type clock struct {
	mutex sync.Mutex
	time  time.Time
}

func (c *clock) now() time.Time {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.time
}

func (c *clock) move(by time.Duration) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.time = c.time.Add(by)
}

// hookPolicy has one namespace, job, that asks the webhook.
func hookPolicy(t testing.TB, webhook Webhook, options Options) *Policy {
	options.Authenticated = true
	options.Namespaces = map[string]Namespace{"job": {Access: ByWebhook, Wildcard: true, Webhook: &webhook}}
	return newPolicy(t, options)
}

func TestAskSortsAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		want    Decision
	}{
		"allow":                {answer(200, `{"allow":true}`), allow()},
		"allow and more":       {answer(201, ` {"why":"x","allow":true} `), allow()},
		"allow by no body":     {answer(204, ""), allow()},
		"allow by white space": {answer(200, "\n"), allow()},
		"deny":                 {answer(200, `{"allow":false}`), deny(WebhookDenied)},
		"deny by 403":          {answer(403, `{"allow":true}`), deny(WebhookDenied)},
		"deny by 401":          {answer(401, ""), deny(WebhookDenied)},
		"another case":         {answer(200, `{"Allow":true}`), deny(WebhookFailed)},
		"both":                 {answer(200, `{"allow":true,"allow":false}`), deny(WebhookDenied)},
		"a string":             {answer(200, `{"allow":"true"}`), deny(WebhookFailed)},
		"a number":             {answer(200, `{"allow":1}`), deny(WebhookFailed)},
		"nothing said":         {answer(200, `{}`), deny(WebhookFailed)},
		"a bare true":          {answer(200, `true`), deny(WebhookFailed)},
		"a page":               {answer(200, `<html>`), deny(WebhookFailed)},
		"cut short":            {answer(200, `{"allow":true`), deny(WebhookFailed)},
		"two values":           {answer(200, `{"allow":true}{"allow":false}`), deny(WebhookFailed)},
		"too long":             {answer(200, `{"allow":true}`+strings.Repeat(" ", answerBytesMax)), deny(WebhookFailed)},
		"404":                  {answer(404, `{"allow":true}`), deny(WebhookFailed)},
		"500":                  {answer(500, `{"allow":true}`), deny(WebhookFailed)},
		"304":                  {answer(304, ""), deny(WebhookFailed)},
		"body promised, none":  {answer(200, "", "Content-Length", "14"), deny(WebhookFailed)},
	} {
		t.Run(name, func(t *testing.T) {
			host := newHook(t, test.handler)
			policy := hookPolicy(t, Webhook{URL: host.URL}, Options{})
			if got := policy.Ask(t.Context(), verified(t, "ada"), channel("job:1")); got != test.want {
				t.Fatalf("%v %s, want %v %s", got.Verdict, got.Reason, test.want.Verdict, test.want.Reason)
			}
		})
	}
}

func TestAskSendsTheQuestion(t *testing.T) {
	for _, forward := range []bool{false, true} {
		type sent struct {
			method, contentType, authorization string
			body                               map[string]any
		}
		questions := make(chan sent, 1)
		host := newHook(t, func(_ http.ResponseWriter, r *http.Request) {
			got := sent{method: r.Method, contentType: r.Header.Get("Content-Type"), authorization: r.Header.Get("Authorization")}
			_ = json.NewDecoder(r.Body).Decode(&got.body)
			questions <- got
		})
		policy := hookPolicy(t, Webhook{URL: host.URL + "/may?x=1", ForwardToken: forward}, Options{})
		if policy.NeedsToken() != forward {
			t.Errorf("NeedsToken is %v", policy.NeedsToken())
		}
		ada := verified(t, `a"d\a`)
		if got := policy.Ask(t.Context(), ada, channel("job:*")); got != allow() {
			t.Fatalf("denied: %s", got.Reason)
		}
		got := <-questions
		if got.method != http.MethodPost || got.contentType != "application/json" {
			t.Errorf("%s of %s", got.method, got.contentType)
		}
		if fmt.Sprint(got.body) != fmt.Sprint(map[string]any{"user": `a"d\a`, "channel": "job:*", "action": "subscribe"}) {
			t.Errorf("the body is %v", got.body)
		}
		if want := map[bool]string{false: "", true: "Bearer " + ada.Token()}[forward]; got.authorization != want {
			t.Errorf("with forward_token %v, Authorization is %q", forward, got.authorization)
		}
	}
}

func TestAskFollowsNoRedirect(t *testing.T) {
	elsewhere := newHook(t, answer(200, `{"allow":true}`))
	for _, status := range []int{301, 302, 303, 307, 308} {
		host := newHook(t, answer(status, `{"allow":true}`, "Location", elsewhere.URL))
		policy := hookPolicy(t, Webhook{URL: host.URL, ForwardToken: true}, Options{})
		if got := policy.Ask(t.Context(), verified(t, "ada"), channel("job:1")); got != deny(WebhookFailed) {
			t.Errorf("%d: %v %s", status, got.Verdict, got.Reason)
		}
	}
	if got := elsewhere.asked.Load(); got != 0 {
		t.Errorf("%d questions followed a redirect", got)
	}
}

func TestAskCaches(t *testing.T) {
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		maxAge  time.Duration
		// asked is how often the webhook is asked by questions at 0 s, 0.9 s, 59 s, 59 min, 61 min.
		asked [5]int64
	}{
		"a yes for a minute":       {answer(200, "", "Cache-Control", "private, max-age=60"), 0, [5]int64{1, 1, 1, 2, 3}},
		"a no for a minute":        {answer(403, "", "Cache-Control", "MAX-AGE=60"), 0, [5]int64{1, 1, 1, 2, 3}},
		"without max-age":          {answer(200, ""), 0, [5]int64{1, 2, 3, 4, 5}},
		"a no without max-age":     {answer(403, ""), 0, [5]int64{1, 2, 3, 4, 5}},
		"for a year":               {answer(200, "", "Cache-Control", "max-age=31536000"), 0, [5]int64{1, 1, 1, 1, 2}},
		"for longer than numbers":  {answer(200, "", "Cache-Control", "max-age=99999999999999999999"), 0, [5]int64{1, 2, 3, 4, 5}},
		"negative":                 {answer(200, "", "Cache-Control", "max-age=-60"), 0, [5]int64{1, 2, 3, 4, 5}},
		"not a number":             {answer(200, "", "Cache-Control", "max-age=6o"), 0, [5]int64{1, 2, 3, 4, 5}},
		"no-store":                 {answer(200, "", "Cache-Control", "max-age=60, no-store"), 0, [5]int64{1, 2, 3, 4, 5}},
		"no-cache on another line": {answer(200, "", "Cache-Control", "max-age=60", "Cache-Control", "no-cache"), 0, [5]int64{1, 2, 3, 4, 5}},
		"the lesser of two":        {answer(200, "", "Cache-Control", "max-age=9999, max-age=60"), 0, [5]int64{1, 1, 1, 2, 3}},
		"s-maxage is not for us":   {answer(200, "", "Cache-Control", "s-maxage=60"), 0, [5]int64{1, 2, 3, 4, 5}},
		"max_age bounds it":        {answer(200, "", "Cache-Control", "max-age=9999"), time.Second, [5]int64{1, 1, 2, 3, 4}},
		"a failure for a second":   {answer(500, "", "Cache-Control", "max-age=9999"), 0, [5]int64{1, 1, 2, 3, 4}},
	} {
		t.Run(name, func(t *testing.T) {
			host := newHook(t, test.handler)
			clock := &clock{time: time.Unix(1_800_000_000, 0)}
			policy := hookPolicy(t, Webhook{URL: host.URL, MaxAge: test.maxAge}, Options{Now: clock.now})
			ada := verified(t, "ada")
			first := policy.Ask(t.Context(), ada, channel("job:1"))
			var elapsed time.Duration
			for place, at := range []time.Duration{0, 900 * time.Millisecond, 59 * time.Second, 59 * time.Minute, 61 * time.Minute} {
				if at > 0 {
					clock.move(at - elapsed)
					elapsed = at
					if got := policy.Ask(t.Context(), ada, channel("job:1")); got != first {
						t.Fatalf("after %v: %v %s", at, got.Verdict, got.Reason)
					}
				}
				if got := host.asked.Load(); got != test.asked[place] {
					t.Fatalf("after %v the webhook was asked %d times, want %d", at, got, test.asked[place])
				}
			}
		})
	}
}

// TestAskKeepsAnswersApart: an answer is for this user, channel and token alone.
func TestAskKeepsAnswersApart(t *testing.T) {
	host := newHook(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		body, _ := io.ReadAll(r.Body)
		if !strings.Contains(string(body), `"user":"ada","channel":"job:1"`) {
			w.WriteHeader(http.StatusForbidden)
		}
	})
	policy := hookPolicy(t, Webhook{URL: host.URL}, Options{})
	ada, bob := verified(t, "ada"), verified(t, "bob")
	other := *ada
	other.TokenHash[0]++
	for place, test := range []struct {
		identity *auth.Identity
		channel  string
		want     Decision
	}{
		{ada, "job:1", allow()},
		{ada, "job:10", deny(WebhookDenied)},
		{bob, "job:1", deny(WebhookDenied)},
		{ada, "job:1:1", deny(WebhookDenied)},
		{&other, "job:1", allow()},
		{ada, "job:1", allow()},
		{bob, "job:1", deny(WebhookDenied)},
	} {
		if got := policy.Ask(t.Context(), test.identity, channel(test.channel)); got != test.want {
			t.Errorf("question %d: %v %s", place, got.Verdict, got.Reason)
		}
	}
	if got := host.asked.Load(); got != 5 {
		t.Errorf("asked %d times, want once for each of 5 questions", got)
	}
}

// TestAskFliesOnce: a crowd with one question makes one request, also if who began it goes away.
func TestAskFliesOnce(t *testing.T) {
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	host := newHook(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-release
		answer(200, `{"allow":true}`, "Cache-Control", "max-age=60")(w, r)
	})
	policy := hookPolicy(t, Webhook{URL: host.URL, Timeout: 20 * time.Second}, Options{})
	ada := verified(t, "ada")
	first, leave := context.WithCancel(t.Context())
	left := make(chan Decision)
	go func() { left <- policy.Ask(first, ada, channel("job:1")) }()
	<-arrived
	leave()
	if got := <-left; got != deny(WebhookFailed) {
		t.Errorf("who went away got %v %s", got.Verdict, got.Reason)
	}
	const crowd = 50
	decisions := make(chan Decision, crowd)
	for range crowd {
		go func() { decisions <- policy.Ask(t.Context(), ada, channel("job:1")) }()
	}
	close(release)
	for range crowd {
		if got := <-decisions; got != allow() {
			t.Errorf("denied: %s", got.Reason)
		}
	}
	if got := host.asked.Load(); got != 1 {
		t.Errorf("%d requests for one question", got)
	}
}

// TestForget: who is forgotten is asked about anew, and an answer that was on its way is for those who
// waited for it alone.
func TestForget(t *testing.T) {
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	host := newHook(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), "job:slow") {
			arrived <- struct{}{}
			<-release
		}
		answer(200, "", "Cache-Control", "max-age=60")(w, r)
	})
	policy := hookPolicy(t, Webhook{URL: host.URL, Timeout: 20 * time.Second}, Options{})
	people := map[string]*auth.Identity{"ada": verified(t, "ada"), "bob": verified(t, "bob")}
	askAll := func() {
		for _, who := range people {
			for _, name := range []string{"job:1", "job:2"} {
				if got := policy.Ask(t.Context(), who, channel(name)); got != allow() {
					t.Errorf("denied: %s", got.Reason)
				}
			}
		}
	}
	askAll()
	for _, step := range []struct {
		user, channel string
		again         int64 // questions that are asked again
	}{{"ada", "job:1", 1}, {"ada", "", 2}, {"", "job:2", 2}, {"", "", 4}, {"eve", "", 0}, {"ada", "job:3", 0}} {
		before := host.asked.Load()
		policy.Forget(step.user, step.channel)
		askAll()
		if got := host.asked.Load() - before; got != step.again {
			t.Errorf("after %q, %q were forgotten the webhook was asked %d times, want %d", step.user, step.channel, got, step.again)
		}
	}

	before := host.asked.Load()
	decisions := make(chan Decision, 2)
	ask := func() { decisions <- policy.Ask(t.Context(), people["ada"], channel("job:slow")) }
	go ask()
	<-arrived
	policy.Forget("ada", "")
	go ask()
	<-arrived // asked again, though an answer is on its way
	close(release)
	for range 2 {
		if got := <-decisions; got != allow() {
			t.Errorf("denied: %s", got.Reason)
		}
	}
	policy.Ask(t.Context(), people["ada"], channel("job:slow"))
	if got := host.asked.Load() - before; got != 2 {
		t.Errorf("the webhook was asked %d times, want 2: what came after the order is kept", got)
	}
}

// TestAskBounds: questions and requests are bounded, and so is the wait for a slot.
func TestAskBounds(t *testing.T) {
	var inside, most atomic.Int64
	release := make(chan struct{})
	host := newHook(t, func(_ http.ResponseWriter, r *http.Request) {
		if now := inside.Add(1); now > most.Load() {
			most.Store(now)
		}
		defer inside.Add(-1)
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	policy := hookPolicy(t, Webhook{URL: host.URL, Timeout: 20 * time.Second}, Options{})
	ada := verified(t, "ada")
	var crowd sync.WaitGroup
	for number := range questionsMax {
		crowd.Go(func() { policy.Ask(t.Context(), ada, channel(fmt.Sprintf("job:%d", number))) })
	}
	polltest.Eventually(t, "all questions are open and all slots taken", func() bool {
		policy.webhook.mutex.Lock()
		defer policy.webhook.mutex.Unlock()
		return len(policy.webhook.flights) == questionsMax && inside.Load() == requestsMax
	})
	if got := policy.Ask(t.Context(), ada, channel("job:more")); got != deny(WebhookBusy) {
		t.Errorf("one more question: %v %s", got.Verdict, got.Reason)
	}
	close(release)
	crowd.Wait()
	if got := most.Load(); got > requestsMax {
		t.Errorf("%d requests at once", got)
	}
}

func TestAskWaitsForASlotNoLongerThanTheTimeout(t *testing.T) {
	host := newHook(t, answer(200, ""))
	policy := hookPolicy(t, Webhook{URL: host.URL, Timeout: 30 * time.Millisecond}, Options{})
	for range requestsMax {
		policy.webhook.slots <- struct{}{}
	}
	if got := policy.Ask(t.Context(), verified(t, "ada"), channel("job:1")); got != deny(WebhookBusy) {
		t.Errorf("%v %s", got.Verdict, got.Reason)
	}
	for range requestsMax {
		<-policy.webhook.slots
	}
	if got := policy.Ask(t.Context(), verified(t, "ada"), channel("job:1")); got != allow() {
		t.Errorf("once there are slots: %v %s", got.Verdict, got.Reason)
	}
}

// TestAskFailsClosed, and says so once and without secrets.
func TestAskFailsClosed(t *testing.T) {
	silent := newHook(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	gone := httptest.NewServer(nil)
	gone.Close()
	for name, address := range map[string]string{"silent": silent.URL, "gone": gone.URL} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			policy := hookPolicy(t, Webhook{URL: address + "/?key=hunter2", Timeout: 50 * time.Millisecond, ForwardToken: true},
				Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			ada := verified(t, "ada")
			for number := range 10 {
				if got := policy.Ask(t.Context(), ada, channel(fmt.Sprintf("job:%d", number))); got != deny(WebhookFailed) {
					t.Fatalf("%v %s", got.Verdict, got.Reason)
				}
			}
			policy.Close()
			text := log.String()
			if strings.Count(text, "\n") != 1 || !strings.Contains(text, "type=job") {
				t.Errorf("the log is %q", text)
			}
			for _, secret := range []string{"hunter2", ada.Token(), "ada"} {
				if strings.Contains(text, secret) {
					t.Errorf("the log holds %q: %s", secret, text)
				}
			}
		})
	}
}

func TestCloseEndsQuestions(t *testing.T) {
	arrived := make(chan struct{})
	host := newHook(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(arrived)
		<-r.Context().Done()
	})
	policy := hookPolicy(t, Webhook{URL: host.URL, Timeout: 20 * time.Second}, Options{})
	ada := verified(t, "ada")
	decision := make(chan Decision)
	go func() { decision <- policy.Ask(t.Context(), ada, channel("job:1")) }()
	<-arrived
	policy.Close()
	if got := <-decision; got != deny(WebhookFailed) {
		t.Errorf("%v %s", got.Verdict, got.Reason)
	}
	if got := policy.Ask(t.Context(), ada, channel("job:2")); got != deny(WebhookFailed) {
		t.Errorf("after Close: %v %s", got.Verdict, got.Reason)
	}
}

func TestAnswerCacheIsBounded(t *testing.T) {
	cache := newAnswerCache()
	now := time.Unix(1_800_000_000, 0)
	for number := range 3 * answersMax {
		asked := question{user: "ada", channel: fmt.Sprint(number)}
		cache.put(asked, allow(), now.Add(time.Duration(1+number%7)*time.Second), now)
		if _, found := cache.get(asked, now); !found {
			t.Fatalf("answer %d is gone at once", number)
		}
		if len(cache.entries) > answersMax {
			t.Fatalf("%d answers are kept", len(cache.entries))
		}
	}
	last := question{user: "ada", channel: fmt.Sprint(3*answersMax - 1)}
	cache.put(last, deny(WebhookDenied), now.Add(time.Minute), now)
	if got, found := cache.get(last, now); !found || got != deny(WebhookDenied) {
		t.Error("a newer answer does not replace the old one")
	}
	if _, found := cache.get(last, now.Add(time.Minute)); found {
		t.Error("an answer outlives its age")
	}
}
