package access

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/proto"
)

// Bounds of what webhooks may cost, per process.
const (
	questionsMax       = 1024             // open questions; more are denied at once
	requestsMax        = 64               // requests on their way; further questions wait
	answerBytesMax     = 64 << 10         // body of an answer
	failureAge         = time.Second      // how long no answer counts as no
	failureLogInterval = 10 * time.Second // between two log lines about failures
)

// question is what is asked, and the key of its answer. The token is in it by its hash: what was
// granted to one token says nothing about the next.
type question struct {
	user, channel string
	token         [16]byte
}

// asker asks webhooks: each question once at a time, whoever waits for it.
type asker struct {
	client *http.Client
	logger *slog.Logger
	seldom rate.Sometimes
	now    func() time.Time
	life   context.Context
	end    context.CancelFunc
	slots  chan struct{} // one for each request on its way
	flying sync.WaitGroup

	mutex   sync.Mutex           // guards what follows
	flights map[question]*flight // those that may be joined
	open    int                  // questions on their way, also those that may not
	answers answerCache
	closed  bool
}

// flight is one question on its way; decision may be read once done is closed.
type flight struct {
	done     chan struct{}
	decision Decision
	stale    bool // guarded by the asker's mutex: the answer is for those who wait for it, and not kept
}

func newAsker(options Options) *asker {
	transport := options.Transport
	if transport == nil {
		transport = newTransport()
	}
	now := options.Now
	if now == nil {
		now = time.Now
	}
	life, end := context.WithCancel(context.Background())
	return &asker{
		client: &http.Client{Transport: transport, CheckRedirect: refuseRedirect},
		logger: options.Logger, seldom: rate.Sometimes{First: 1, Interval: failureLogInterval}, now: now,
		life: life, end: end,
		slots: make(chan struct{}, requestsMax), flights: map[question]*flight{}, answers: newAnswerCache(),
	}
}

func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: WebhookTimeoutMax}).DialContext,
		MaxConnsPerHost:        requestsMax,
		MaxIdleConnsPerHost:    requestsMax,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
	}
}

// refuseRedirect hands the 3xx itself to who asked: the token and the answer stay with the host
// that the operator named.
func refuseRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Ask says whether the identity may listen to the channel, and asks the namespace's webhook if
// [Policy.Decide] leaves it to that. It waits for the answer, at most the webhook's timeout, and
// is therefore never called on a loop. The verdict is Allow or Deny.
//
// The webhook gets a POST with {"user":..,"channel":..,"action":"subscribe"} (of a wildcard, the
// channel is TYPE:*), and with forward_token the user's token. Yes is a 2xx whose body is empty or
// {"allow":true}; no is {"allow":false}, 401 or 403. Everything else (another status, a redirect,
// another body, silence) is a failure, which denies for a second. A yes or a no counts for its
// Cache-Control max-age, an hour at most, and without one for those who asked at the same time.
func (p *Policy) Ask(ctx context.Context, identity *auth.Identity, channel proto.Channel) Decision {
	decision := p.Decide(identity, channel)
	if decision.Verdict != Ask {
		return decision
	}
	asked := question{user: identity.User, channel: channel.Name(), token: identity.TokenHash}
	return p.webhook.ask(ctx, asked, p.Namespace(channel.Type()).Webhook, identity)
}

// ask answers from the cache, joins the flight of the same question, or starts one. A flight
// lives on when the one who started it goes away: others may wait for it.
func (a *asker) ask(ctx context.Context, asked question, webhook *Webhook, identity *auth.Identity) Decision {
	joined, decision := a.join(asked, webhook, identity)
	if joined == nil {
		return decision
	}
	select {
	case <-joined.done:
		return joined.decision
	case <-ctx.Done():
		return deny(WebhookFailed)
	}
}

func (a *asker) join(asked question, webhook *Webhook, identity *auth.Identity) (*flight, Decision) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if decision, found := a.answers.get(asked, a.now()); found {
		return nil, decision
	}
	if joined, found := a.flights[asked]; found {
		return joined, Decision{}
	}
	if a.closed {
		return nil, deny(WebhookFailed)
	}
	if a.open >= questionsMax {
		return nil, deny(WebhookBusy)
	}
	started := &flight{done: make(chan struct{})}
	a.flights[asked] = started
	a.open++
	a.flying.Add(1)
	go a.fly(started, asked, webhook, identity)
	return started, Decision{}
}

// fly gets the answer of one question and tells who waits for it.
func (a *asker) fly(started *flight, asked question, webhook *Webhook, identity *auth.Identity) {
	defer a.flying.Done()
	decision, age := a.answer(asked, webhook, identity)
	a.mutex.Lock()
	started.decision = decision
	a.open--
	if a.flights[asked] == started {
		delete(a.flights, asked)
	}
	if age > 0 && !started.stale {
		now := a.now()
		a.answers.put(asked, decision, now.Add(age), now)
	}
	a.mutex.Unlock()
	close(started.done)
}

// answer waits for a slot and asks. age is how long the decision counts.
func (a *asker) answer(asked question, webhook *Webhook, identity *auth.Identity) (decision Decision, age time.Duration) {
	ctx, cancel := context.WithTimeout(a.life, webhook.Timeout)
	defer cancel()
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	case <-ctx.Done():
		return deny(WebhookBusy), 0
	}
	allowed, age, err := a.post(ctx, asked, webhook, identity)
	switch {
	case err != nil:
		a.report(asked, err)
		return deny(WebhookFailed), failureAge
	case allowed:
		return allow(), min(age, webhook.MaxAge)
	default:
		return deny(WebhookDenied), min(age, webhook.MaxAge)
	}
}

// report logs a failure now and then. The error holds neither the URL nor the question.
func (a *asker) report(asked question, err error) {
	if a.life.Err() != nil {
		return
	}
	typ, _, _ := strings.Cut(asked.channel, ":")
	a.seldom.Do(func() {
		a.logger.Error("a webhook gives no answer that counts: subscriptions that it decides on are refused", "type", typ, "error", err)
	})
}

// post makes one request.
func (a *asker) post(ctx context.Context, asked question, webhook *Webhook, identity *auth.Identity) (allowed bool, age time.Duration, err error) {
	body, err := json.Marshal(struct {
		User    string `json:"user"`
		Channel string `json:"channel"`
		Action  string `json:"action"`
	}{asked.user, asked.channel, "subscribe"})
	if err != nil {
		return false, 0, fmt.Errorf("encode the question: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, webhook.URL, bytes.NewReader(body))
	if err != nil {
		return false, 0, errors.New("the URL makes no request")
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	if token := identity.Token(); webhook.ForwardToken && token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := a.client.Do(request)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // the URL's query may hold a secret
		}
		return false, 0, err
	}
	defer func() { _ = response.Body.Close() }()
	allowed, err = readAnswer(response)
	return allowed, maxAge(response.Header), err
}

// readAnswer sorts the answer into yes, no and error.
func readAnswer(response *http.Response) (allowed bool, err error) {
	if response.StatusCode == http.StatusUnauthorized || response.StatusCode == http.StatusForbidden {
		return false, nil
	}
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return false, fmt.Errorf("status %d; a yes is 2xx, a no is 403", response.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, answerBytesMax+1))
	if err != nil {
		return false, fmt.Errorf("read the answer: %w", err)
	}
	if len(text) > answerBytesMax {
		return false, fmt.Errorf("the answer is longer than %d bytes", answerBytesMax)
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return true, nil
	}
	var answer map[string]json.RawMessage // exact names: "Allow" is not "allow"
	if err := json.Unmarshal(text, &answer); err != nil {
		return false, errors.New("the answer is not a JSON object")
	}
	switch string(answer["allow"]) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	default:
		return false, errors.New(`the answer has no "allow" that is true or false`)
	}
}

// maxAge reads Cache-Control (RFC 9111 5.2.2): the least max-age, or zero without one and with
// no-store or no-cache.
func maxAge(header http.Header) time.Duration {
	seconds := int64(-1)
	for _, line := range header["Cache-Control"] {
		for directive := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
			switch strings.ToLower(name) {
			case "no-store", "no-cache":
				return 0
			case "max-age":
				number, err := strconv.ParseInt(strings.Trim(value, `"`), 10, 32)
				if err != nil || number < 0 {
					return 0
				}
				if seconds < 0 || number < seconds {
					seconds = number
				}
			}
		}
	}
	return time.Duration(max(seconds, 0)) * time.Second
}

// Forget forgets what webhooks said of a user, of a channel, of both where both are given, or of
// everybody: whoever asks from now on is asked about anew. It looks at every answer that is kept.
func (p *Policy) Forget(user, channel string) {
	p.webhook.forget(func(asked question) bool {
		return (user == "" || asked.user == user) && (channel == "" || asked.channel == channel)
	})
}

func (a *asker) forget(meant func(question) bool) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.answers.forget(meant)
	for asked, one := range a.flights {
		if meant(asked) {
			one.stale = true
			delete(a.flights, asked) // who comes now asks again
		}
	}
}

// close ends the flights and waits for them.
func (a *asker) close() {
	a.mutex.Lock()
	a.closed = true
	a.mutex.Unlock()
	a.end()
	a.flying.Wait()
	a.client.CloseIdleConnections()
}
