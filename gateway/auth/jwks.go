package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Bounds of fetching a key set.
const (
	keyWaitersMax   = 1024 // tokens that wait for one fetch; more are refused at once
	keyRedirectsMax = 3
	// demandBurst lets a key be fetched for that was published right after the set's first fetch.
	demandBurst = 2
)

// pace says how often a key set is fetched.
type pace struct {
	// refresh is the time from one good fetch to the next, give or take a tenth.
	refresh time.Duration
	// retryMin doubles up to retryMax from one failed fetch to the next.
	retryMin, retryMax time.Duration
	// demand is the least time between two fetches that unknown kids ask for.
	demand time.Duration
	// missing is how long a kid that a fetch did not bring is not asked for again.
	missing time.Duration
	// timeout bounds one fetch, body included.
	timeout time.Duration
}

var defaultPace = pace{
	refresh:  10 * time.Minute,
	retryMin: time.Second, retryMax: time.Minute,
	demand: 5 * time.Second, missing: 30 * time.Second,
	timeout: 5 * time.Second,
}

// remoteKeys is a key set at a URL. The set last fetched stays in use until another takes its
// place, whatever happens to the host. There is at most one fetch at a time, whoever asks: the
// background's own (refresh, or retry after a failure), or one for a kid that is not in the set.
// The latter are rate limited, and a kid that was just looked for in vain is not looked for
// again, so that no stream of invented kids becomes a stream of requests.
type remoteKeys struct {
	address string
	host    string // for log lines; the address may hold secrets
	client  *http.Client
	logger  *slog.Logger
	pace    pace
	life    context.Context
	current atomic.Pointer[keySet]
	demand  *rate.Limiter

	mutex   sync.Mutex // guards what follows
	flight  *keyFlight
	waiters int
	misses  map[thumbprint]time.Time // hash of a kid -> until when it counts as missing
	failing bool                     // the last fetch failed, and that was logged
}

// keyFlight is one fetch; err may be read once done is closed.
type keyFlight struct {
	done chan struct{}
	err  error
}

// newRemoteKeys checks the address and starts the goroutine that keeps the set fresh, until life
// ends.
func newRemoteKeys(life context.Context, address string, transport http.RoundTripper, logger *slog.Logger, pace pace) (*remoteKeys, error) {
	parsed, err := url.Parse(address)
	if err != nil || (parsed.Scheme != "https" && parsed.Scheme != "http") || parsed.Host == "" {
		return nil, errors.New("key set URL: not an absolute http or https URL; write https://HOST/PATH")
	}
	if parsed.User != nil {
		return nil, errors.New("key set URL: holds a user or password; key sets are public, take it out")
	}
	if logger == nil {
		logger = slog.Default()
	}
	if transport == nil {
		transport = newTransport(pace.timeout)
	}
	if parsed.Scheme == "http" && !isLoopbackName(parsed.Hostname()) {
		logger.Warn("the key set is fetched without TLS: whoever is on the way can replace the keys", "host", parsed.Host)
	}
	remote := &remoteKeys{
		address: address, host: parsed.Host, logger: logger, pace: pace, life: life,
		client: &http.Client{Transport: transport, CheckRedirect: sameHostOnly},
		demand: rate.NewLimiter(rate.Every(pace.demand), demandBurst),
		misses: map[thumbprint]time.Time{},
	}
	go remote.keepFresh()
	return remote, nil
}

// newTransport makes a transport without idle connections: fetches are minutes apart.
func newTransport(timeout time.Duration) *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: timeout}).DialContext,
		TLSHandshakeTimeout:    timeout,
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
	}
}

// sameHostOnly follows a redirect only to where the operator pointed in the first place.
func sameHostOnly(request *http.Request, via []*http.Request) error {
	if len(via) > keyRedirectsMax {
		return fmt.Errorf("more than %d redirects", keyRedirectsMax)
	}
	if first := via[0].URL; request.URL.Scheme != first.Scheme || request.URL.Host != first.Host {
		return fmt.Errorf("a redirect to another host (%q); set the key set URL to where the keys are", request.URL.Host)
	}
	return nil
}

// keepFresh fetches at once, then in good times every refresh, in bad times at growing intervals.
func (r *remoteKeys) keepFresh() {
	retry := r.pace.retryMin
	for {
		flight := r.launch()
		select {
		case <-flight.done:
		case <-r.life.Done():
			return
		}
		wait := r.pace.refresh*9/10 + rand.N(r.pace.refresh/5+1)
		if flight.err != nil {
			wait = retry
			retry = min(2*retry, r.pace.retryMax)
		} else {
			retry = r.pace.retryMin
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-r.life.Done():
			timer.Stop()
			return
		}
	}
}

// launch starts a fetch, or gives the one in flight.
func (r *remoteKeys) launch() *keyFlight {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.launchLocked()
}

func (r *remoteKeys) launchLocked() *keyFlight {
	if r.flight == nil {
		flight := &keyFlight{done: make(chan struct{})}
		r.flight = flight
		go r.fly(flight)
	}
	return r.flight
}

// fly makes the fetch of flight and tells who waits for it.
func (r *remoteKeys) fly(flight *keyFlight) {
	set, err := r.fetch()
	if err == nil {
		r.current.Store(set)
	}
	r.mutex.Lock()
	flight.err = err
	r.flight = nil
	changed := r.failing != (err != nil)
	r.failing = err != nil
	r.mutex.Unlock()
	close(flight.done)
	r.report(set, err, changed)
}

// report logs the first failure and the recovery, not each failure in between.
func (r *remoteKeys) report(set *keySet, err error, changed bool) {
	switch {
	case r.life.Err() != nil:
	case err != nil && changed:
		r.logger.Error("the key set can't be fetched: tokens whose key is not known yet are refused until it can", "host", r.host, "error", err)
	case err == nil && len(set.thumbs) == 0:
		r.logger.Error("the key set holds no key that RS256, ES256 or EdDSA could use: every token is refused", "host", r.host, "skipped", set.skipped)
	case err == nil && changed:
		r.logger.Info("the key set can be fetched again", "host", r.host, "keys", len(set.thumbs))
	}
}

// fetch gets and reads the key set once.
func (r *remoteKeys) fetch() (*keySet, error) {
	ctx, cancel := context.WithTimeout(r.life, r.pace.timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.address, nil)
	if err != nil {
		return nil, errors.New("the URL makes no request")
	}
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	response, err := r.client.Do(request)
	if err != nil {
		return nil, withoutURL(err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the host answered with status %d", response.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, keySetBytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if len(text) > keySetBytesMax {
		return nil, fmt.Errorf("the answer is longer than %d bytes", keySetBytesMax)
	}
	return parseKeySet(text)
}

// withoutURL takes the URL out of a client's error: its query may hold a secret.
func withoutURL(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// find gives the keys that may verify a token with this kid (or none) and algorithm, and fetches
// the set for it if it must and may.
func (r *remoteKeys) find(ctx context.Context, keyID, algorithm string) ([]*key, *Refusal) {
	keys, refusal := r.known(keyID, algorithm)
	// The second round is for who joined a fetch that had begun before the key was published.
	for round := 0; keys == nil && refusal == nil && round < 2; round++ {
		flight, own, refused := r.join(keyID, algorithm)
		if refused != nil {
			return nil, refused
		}
		fetched := r.await(ctx, flight)
		if keys, refusal = r.known(keyID, algorithm); keys != nil || refusal != nil {
			break
		}
		if !fetched {
			return nil, refuseToken(KeyFetch)
		}
		if own {
			r.noteMiss(keyID, algorithm)
			return nil, refuseToken(KeyUnknown)
		}
	}
	if keys == nil && refusal == nil {
		refusal = refuseToken(KeyUnknown)
	}
	return keys, refusal
}

// known looks into the set at hand: keys, a refusal if the kid's key is for another algorithm, or
// neither.
func (r *remoteKeys) known(keyID, algorithm string) (keys []*key, refusal *Refusal) {
	keys, taken := r.current.Load().lookup(keyID, algorithm)
	if len(keys) > 0 {
		return keys, nil
	}
	if taken {
		return nil, refuseToken(Algorithm)
	}
	return nil, nil
}

// join takes part in the fetch in flight, or starts one (own) if the limits allow it.
func (r *remoteKeys) join(keyID, algorithm string) (flight *keyFlight, own bool, refusal *Refusal) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.waiters >= keyWaitersMax {
		return nil, false, refuseToken(KeyFetch)
	}
	if time.Now().Before(r.misses[missKey(keyID, algorithm)]) {
		return nil, false, refuseToken(KeyUnknown)
	}
	if r.flight == nil {
		if !r.demand.Allow() {
			if r.failing || r.current.Load() == nil {
				return nil, false, refuseToken(KeyFetch)
			}
			return nil, false, refuseToken(KeyUnknown)
		}
		own = true
	}
	r.waiters++
	return r.launchLocked(), own, nil
}

// await waits for a fetch and reports whether it brought a set in time.
func (r *remoteKeys) await(ctx context.Context, flight *keyFlight) bool {
	defer func() {
		r.mutex.Lock()
		r.waiters--
		r.mutex.Unlock()
	}()
	select {
	case <-flight.done:
		return flight.err == nil
	case <-ctx.Done():
		return false
	}
}

// noteMiss remembers that a fetch did not bring the key, and forgets what has run out. Only who
// started the fetch notes it, so the rate limit bounds the memory too.
func (r *remoteKeys) noteMiss(keyID, algorithm string) {
	now := time.Now()
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for missed, until := range r.misses {
		if !now.Before(until) {
			delete(r.misses, missed)
		}
	}
	r.misses[missKey(keyID, algorithm)] = now.Add(r.pace.missing)
}

func missKey(keyID, algorithm string) (hash thumbprint) {
	sum := sha256.Sum256([]byte(algorithm + " " + keyID))
	copy(hash[:], sum[:])
	return hash
}

// holds reports whether a key with this thumbprint is in the set. It allocates nothing.
func (r *remoteKeys) holds(thumb thumbprint) bool {
	set := r.current.Load()
	if set == nil {
		return false
	}
	_, held := set.thumbs[thumb]
	return held
}
