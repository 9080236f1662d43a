package auth

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/millrace/millrace/internal/logtest"
	"github.com/millrace/millrace/internal/polltest"
)

// quickPace is a pace for tests: the background fetches once and, after a failure, soon again.
var quickPace = pace{
	refresh: time.Hour, retryMin: 5 * time.Millisecond, retryMax: 20 * time.Millisecond,
	demand: time.Millisecond, missing: time.Minute, timeout: 2 * time.Second,
}

// keyHost is a key set's host whose answer can be changed.
type keyHost struct {
	*httptest.Server
	requests atomic.Int64
	handler  atomic.Pointer[http.HandlerFunc]
}

func newKeyHost(t testing.TB, handler http.HandlerFunc) *keyHost {
	host := &keyHost{}
	host.answer(handler)
	host.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host.requests.Add(1)
		(*host.handler.Load())(w, r)
	}))
	t.Cleanup(host.Close)
	return host
}

func (h *keyHost) answer(handler http.HandlerFunc) { h.handler.Store(&handler) }

// keys answers with a key set of the given keys.
func keys(jwks ...map[string]any) http.HandlerFunc {
	if jwks == nil {
		jwks = []map[string]any{}
	}
	text := must(json.Marshal(map[string]any{"keys": jwks}))
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(text) }
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// jwk describes the public half of a key; further pairs are added or, if nil, taken away.
func jwk(public any, keyID string, more ...any) map[string]any {
	encode := base64.RawURLEncoding.EncodeToString
	described := map[string]any{"kid": keyID, "use": "sig"}
	switch typed := public.(type) {
	case *ecdsa.PublicKey:
		point := must(typed.Bytes())
		half := (len(point) - 1) / 2
		described["kty"], described["crv"] = "EC", typed.Curve.Params().Name
		described["x"], described["y"] = encode(point[1:1+half]), encode(point[1+half:])
	case ed25519.PublicKey:
		described["kty"], described["crv"], described["x"] = "OKP", "Ed25519", encode(typed)
	default:
		key := testKeys().rsa.PublicKey
		described["kty"], described["n"], described["e"] = "RSA", encode(key.N.Bytes()), "AQAB"
	}
	for place := 0; place < len(more); place += 2 {
		if more[place+1] == nil {
			delete(described, more[place].(string))
		} else {
			described[more[place].(string)] = more[place+1]
		}
	}
	return described
}

// signed is a token of user ada under a kid, "" for none.
func signed(method jwt.SigningMethod, private any, keyID string) string {
	header := map[string]any{"alg": method.Alg()}
	if keyID != "" {
		header["kid"] = keyID
	}
	return segments(string(must(json.Marshal(header))), `{"sub":"ada"}`, signWith(method, private))
}

// newRemoteVerifier verifies by the host's key set alone, at the given pace.
func newRemoteVerifier(t testing.TB, address string, pace pace) *Verifier {
	return newLoggingVerifier(t, address, pace, slog.New(slog.DiscardHandler))
}

func newLoggingVerifier(t testing.TB, address string, pace pace, logger *slog.Logger) *Verifier {
	t.Helper()
	verifier := newVerifier(t, Options{HMACSecret: testSecret})
	remote, err := newRemoteKeys(t.Context(), address, nil, logger, pace)
	if err != nil {
		t.Fatal(err)
	}
	verifier.remote = remote
	return verifier
}

func TestKeySetVerifies(t *testing.T) {
	made := testKeys()
	rsaJWK, ecJWK, edJWK := jwk(made.rsa.Public(), "r"), jwk(made.ec.Public(), "e"), jwk(made.ed25519.Public(), "o")
	p384 := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	for name, test := range map[string]struct {
		keys  []map[string]any
		token string
		want  Reason
	}{
		"RS256":                       {[]map[string]any{ecJWK, rsaJWK, edJWK}, signed(jwt.SigningMethodRS256, made.rsa, "r"), accepted},
		"ES256":                       {[]map[string]any{ecJWK, rsaJWK, edJWK}, signed(jwt.SigningMethodES256, made.ec, "e"), accepted},
		"EdDSA":                       {[]map[string]any{ecJWK, rsaJWK, edJWK}, signed(jwt.SigningMethodEdDSA, made.ed25519, "o"), accepted},
		"its own alg":                 {[]map[string]any{jwk(made.rsa.Public(), "r", "alg", "RS256")}, signed(jwt.SigningMethodRS256, made.rsa, "r"), accepted},
		"key_ops verify":              {[]map[string]any{jwk(made.ec.Public(), "e", "use", nil, "key_ops", []string{"verify"})}, signed(jwt.SigningMethodES256, made.ec, "e"), accepted},
		"token without kid":           {[]map[string]any{ecJWK, rsaJWK, edJWK}, signed(jwt.SigningMethodES256, made.ec, ""), accepted},
		"key and token without kid":   {[]map[string]any{jwk(made.ec.Public(), "e", "kid", nil)}, signed(jwt.SigningMethodES256, made.ec, ""), accepted},
		"two keys, token without kid": {[]map[string]any{jwk(must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)).Public(), "x"), ecJWK}, signed(jwt.SigningMethodES256, made.ec, ""), accepted},
		"one kid, two types":          {[]map[string]any{jwk(made.rsa.Public(), "k"), jwk(made.ec.Public(), "k")}, signed(jwt.SigningMethodES256, made.ec, "k"), accepted},
		"beside keys of no use":       {[]map[string]any{{"kty": "new"}, {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, {"kty": 1}, jwk(p384.Public(), "p"), ecJWK}, signed(jwt.SigningMethodES256, made.ec, "e"), accepted},
		"private half given away":     {[]map[string]any{jwk(made.ec.Public(), "e", "d", "not read")}, signed(jwt.SigningMethodES256, made.ec, "e"), accepted},
		"certificates are not read":   {[]map[string]any{jwk(made.ec.Public(), "e", "x5c", []string{"no"}, "x5u", "http://127.0.0.1:1/", "x5t", "no")}, signed(jwt.SigningMethodES256, made.ec, "e"), accepted},

		"kid without its key":      {[]map[string]any{jwk(made.ec.Public(), "e", "kid", nil)}, signed(jwt.SigningMethodES256, made.ec, "e"), KeyUnknown},
		"kid of another tenant":    {[]map[string]any{ecJWK}, signed(jwt.SigningMethodES256, made.ec, "tenant-b"), KeyUnknown},
		"kid of another key":       {[]map[string]any{ecJWK, jwk(must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)).Public(), "x")}, signed(jwt.SigningMethodES256, made.ec, "x"), Signature},
		"kid in another case":      {[]map[string]any{ecJWK}, signed(jwt.SigningMethodES256, made.ec, "E"), KeyUnknown},
		"kid of another algorithm": {[]map[string]any{ecJWK, rsaJWK}, signed(jwt.SigningMethodES256, made.ec, "r"), Algorithm},
		"alg of its own, another":  {[]map[string]any{jwk(made.rsa.Public(), "r", "alg", "PS256")}, signed(jwt.SigningMethodRS256, made.rsa, "r"), KeyUnknown},
		"for encrypting":           {[]map[string]any{jwk(made.ec.Public(), "e", "use", "enc")}, signed(jwt.SigningMethodES256, made.ec, "e"), KeyUnknown},
		"key_ops without verify":   {[]map[string]any{jwk(made.ec.Public(), "e", "key_ops", []string{"sign"})}, signed(jwt.SigningMethodES256, made.ec, "e"), KeyUnknown},
		"key_ops empty":            {[]map[string]any{jwk(made.ec.Public(), "e", "key_ops", []string{})}, signed(jwt.SigningMethodES256, made.ec, "e"), KeyUnknown},
		"symmetric":                {[]map[string]any{{"kty": "oct", "kid": "s", "k": base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))}}, signed(jwt.SigningMethodHS256, []byte(strings.Repeat("k", 32)), "s"), Signature},
		"no keys at all":           {[]map[string]any{}, signed(jwt.SigningMethodES256, made.ec, "e"), KeyUnknown},
		"RS384":                    {[]map[string]any{rsaJWK}, signed(jwt.SigningMethodRS384, made.rsa, "r"), Algorithm},
		"none":                     {[]map[string]any{rsaJWK}, segments(`{"alg":"none","kid":"r"}`, `{"sub":"ada"}`, func(string) []byte { return nil }), Algorithm},
	} {
		t.Run(name, func(t *testing.T) {
			host := newKeyHost(t, keys(test.keys...))
			verifier := newRemoteVerifier(t, host.URL, quickPace)
			identity, err := verifier.Verify(t.Context(), test.token)
			if test.want != accepted {
				wantReason(t, err, test.want)
				return
			}
			if err != nil {
				t.Fatalf("refused for %s", err.(*Refusal).Reason)
			}
			if !verifier.Trusted(grantsOf(identity)) {
				t.Fatal("the key is not trusted")
			}
		})
	}
}

func TestNewFetchesKeySet(t *testing.T) {
	host := newKeyHost(t, keys(jwk(testKeys().ec.Public(), "e")))
	verifier := newVerifier(t, Options{JWKSURL: host.URL + "/keys?client=s3cret", Logger: slog.New(slog.DiscardHandler)})
	if _, err := verifier.Verify(t.Context(), signed(jwt.SigningMethodES256, testKeys().ec, "e")); err != nil {
		t.Fatalf("refused for %s", err.(*Refusal).Reason)
	}
	_, err := verifier.Verify(t.Context(), hs256(`{"sub":"ada"}`))
	wantReason(t, err, Algorithm)
}

// TestKeySetRotates: a key that was rotated out is no longer trusted, the next one is found.
func TestKeySetRotates(t *testing.T) {
	made := testKeys()
	next := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	host := newKeyHost(t, keys(jwk(made.ec.Public(), "old")))
	slowPace := quickPace
	slowPace.demand = time.Minute
	verifier := newRemoteVerifier(t, host.URL, slowPace)
	old, err := verifier.Verify(t.Context(), signed(jwt.SigningMethodES256, made.ec, "old"))
	if err != nil {
		t.Fatal(err)
	}
	host.answer(keys(jwk(next.Public(), "new")))
	fresh, err := verifier.Verify(t.Context(), signed(jwt.SigningMethodES256, next, "new"))
	if err != nil {
		t.Fatalf("the new key is refused for %s", err.(*Refusal).Reason)
	}
	if verifier.Trusted(grantsOf(old)) || !verifier.Trusted(grantsOf(fresh)) {
		t.Fatalf("trusted: old %v, new %v", verifier.Trusted(grantsOf(old)), verifier.Trusted(grantsOf(fresh)))
	}
	_, err = verifier.Verify(t.Context(), signed(jwt.SigningMethodES256, made.ec, "old"))
	wantReason(t, err, KeyUnknown)
	grants := grantsOf(fresh)
	if allocations := testing.AllocsPerRun(100, func() { verifier.Trusted(grants) }); allocations != 0 {
		t.Errorf("Trusted allocates %v times", allocations)
	}
}

func TestKeySetRefreshesByItself(t *testing.T) {
	made := testKeys()
	host := newKeyHost(t, keys(jwk(made.ec.Public(), "e")))
	pace := quickPace
	pace.refresh = 20 * time.Millisecond
	verifier := newRemoteVerifier(t, host.URL, pace)
	identity, err := verifier.Verify(t.Context(), signed(jwt.SigningMethodES256, made.ec, "e"))
	if err != nil {
		t.Fatal(err)
	}
	host.answer(keys())
	polltest.Eventually(t, "a key that was taken back is no longer trusted", func() bool { return !verifier.Trusted(grantsOf(identity)) })
}

// TestKeySetHostAwayAtStart fails closed and recovers.
func TestKeySetHostAwayAtStart(t *testing.T) {
	made := testKeys()
	host := newKeyHost(t, status(http.StatusServiceUnavailable))
	var log logtest.Text
	verifier := newLoggingVerifier(t, host.URL+"/?key=s3cret", quickPace, slog.New(slog.NewTextHandler(&log, nil)))
	token := signed(jwt.SigningMethodES256, made.ec, "e")
	_, err := verifier.Verify(t.Context(), token)
	wantReason(t, err, KeyFetch)
	polltest.Eventually(t, "several attempts", func() bool { return host.requests.Load() > 4 })
	host.answer(keys(jwk(made.ec.Public(), "e")))
	polltest.Eventually(t, "recovery", func() bool {
		identity, err := verifier.Verify(t.Context(), token)
		return err == nil && identity.User == "ada"
	})
	polltest.Eventually(t, "the recovery's log line", func() bool { return strings.Contains(log.String(), "can be fetched again") })
	text := log.String()
	if got := strings.Count(text, "can't be fetched"); got != 1 {
		t.Errorf("%d log lines about one outage:\n%s", got, text)
	}
	if strings.Contains(text, "s3cret") {
		t.Errorf("the log holds the URL's query:\n%s", text)
	}
}

func TestKeySetOutlivesItsHost(t *testing.T) {
	made := testKeys()
	host := newKeyHost(t, keys(jwk(made.ec.Public(), "e")))
	verifier := newRemoteVerifier(t, host.URL, quickPace)
	token := signed(jwt.SigningMethodES256, made.ec, "e")
	identity, err := verifier.Verify(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	for name, handler := range map[string]http.HandlerFunc{
		"status 500": status(500), "status 204": status(204), "a page": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"no keys":  func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"error":"x"}`)) },
		"101 keys": keys(make([]map[string]any, 101)...),
		"too long": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(append([]byte(`{"keys":[]}`), bytes.Repeat([]byte(" "), keySetBytesMax)...))
		},
		"endless": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(bytes.Repeat([]byte(" "), 64<<10)); err != nil {
					return
				}
			}
		},
		"cut short": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(`{"keys":[]`))
		},
	} {
		t.Run(name, func(t *testing.T) {
			host.answer(handler)
			polltest.Eventually(t, "a fetch that fails", func() bool {
				_, err := verifier.Verify(t.Context(), signed(jwt.SigningMethodES256, made.ec, "other "+name))
				return err.(*Refusal).Reason == KeyFetch
			})
			if _, err := verifier.Verify(t.Context(), token); err != nil || !verifier.Trusted(grantsOf(identity)) {
				t.Fatalf("the known key is lost: %v", err)
			}
		})
	}
}

func TestKeySetHostIsSlow(t *testing.T) {
	release := make(chan struct{})
	made := testKeys()
	host := newKeyHost(t, nil)
	host.answer(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
		keys(jwk(made.ec.Public(), "e"))(w, r)
	})
	verifier := newRemoteVerifier(t, host.URL, quickPace)
	token := signed(jwt.SigningMethodES256, made.ec, "e")

	hurried, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := verifier.Verify(hurried, token)
	wantReason(t, err, KeyFetch)

	const crowd = 50
	results := make(chan error, crowd)
	for range crowd {
		go func() {
			_, err := verifier.Verify(t.Context(), token)
			results <- err
		}()
	}
	polltest.Eventually(t, "all wait", func() bool {
		verifier.remote.mutex.Lock()
		defer verifier.remote.mutex.Unlock()
		return verifier.remote.waiters == crowd
	})
	close(release)
	for range crowd {
		if err := <-results; err != nil {
			t.Errorf("refused for %s", err.(*Refusal).Reason)
		}
	}
	if got := host.requests.Load(); got != 1 {
		t.Errorf("%d requests for one key set", got)
	}
	verifier.remote.mutex.Lock()
	defer verifier.remote.mutex.Unlock()
	if verifier.remote.waiters != 0 {
		t.Errorf("%d waiters are left", verifier.remote.waiters)
	}
}

func TestKeySetHostNeverAnswers(t *testing.T) {
	host := newKeyHost(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	pace := quickPace
	pace.timeout = 30 * time.Millisecond
	verifier := newRemoteVerifier(t, host.URL, pace)
	_, err := verifier.Verify(t.Context(), signed(jwt.SigningMethodES256, testKeys().ec, "e"))
	wantReason(t, err, KeyFetch)
}

func TestKeySetWaitersAreBounded(t *testing.T) {
	remote := &remoteKeys{waiters: keyWaitersMax}
	_, refusal := remote.find(t.Context(), "e", algorithmES256)
	wantReason(t, refusal, KeyFetch)
}

// TestKeySetFetchesSeldom: invented kids, and kids that are addresses, cause next to no requests.
func TestKeySetFetchesSeldom(t *testing.T) {
	made := testKeys()
	trap := newKeyHost(t, status(http.StatusOK))
	host := newKeyHost(t, keys(jwk(made.ec.Public(), "e")))
	pace := quickPace
	pace.demand = time.Minute
	verifier := newRemoteVerifier(t, host.URL, pace)
	if _, err := verifier.Verify(t.Context(), signed(jwt.SigningMethodES256, made.ec, "e")); err != nil {
		t.Fatal(err)
	}
	for number := range 200 {
		header := fmt.Sprintf(`{"alg":"ES256","kid":"%s/%d","jku":"%s","x5u":"%s"}`, trap.URL, number, trap.URL, trap.URL)
		_, err := verifier.Verify(t.Context(), segments(header, `{"sub":"ada","iss":"`+trap.URL+`"}`, signWith(jwt.SigningMethodES256, made.ec)))
		wantReason(t, err, KeyUnknown)
	}
	if got := host.requests.Load(); got > 1+demandBurst {
		t.Errorf("%d requests for the key set; one by itself and %d on demand are allowed", got, demandBurst)
	}
	if got := trap.requests.Load(); got != 0 {
		t.Errorf("%d requests went where a token pointed", got)
	}
}

func TestKeySetRemembersMissingKid(t *testing.T) {
	made := testKeys()
	host := newKeyHost(t, keys(jwk(made.ec.Public(), "e")))
	verifier := newRemoteVerifier(t, host.URL, quickPace) // a fetch each millisecond would be allowed
	token := signed(jwt.SigningMethodES256, made.ec, "nobody")
	_, err := verifier.Verify(t.Context(), token)
	wantReason(t, err, KeyUnknown)
	polltest.Eventually(t, "the kid is noted", func() bool {
		_, err := verifier.Verify(t.Context(), token)
		wantReason(t, err, KeyUnknown)
		verifier.remote.mutex.Lock()
		defer verifier.remote.mutex.Unlock()
		return len(verifier.remote.misses) == 1
	})
	before := host.requests.Load()
	for range 100 {
		_, err := verifier.Verify(t.Context(), token)
		wantReason(t, err, KeyUnknown)
	}
	if after := host.requests.Load(); after != before {
		t.Errorf("%d more requests for a kid that is known to be missing", after-before)
	}
}

func TestKeySetRedirects(t *testing.T) {
	made := testKeys()
	elsewhere := newKeyHost(t, keys(jwk(made.ec.Public(), "e")))
	for name, test := range map[string]struct {
		target string
		good   bool
	}{
		"same host":    {"/there", true},
		"another host": {elsewhere.URL + "/there", false},
		"for ever":     {"/again", false},
		"no address":   {"http://%zz/", false},
	} {
		t.Run(name, func(t *testing.T) {
			host := newKeyHost(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/there" {
					keys(jwk(made.ec.Public(), "e"))(w, r)
					return
				}
				w.Header().Set("Location", test.target)
				w.WriteHeader(http.StatusFound)
			})
			verifier := newRemoteVerifier(t, host.URL, quickPace)
			_, err := verifier.Verify(t.Context(), signed(jwt.SigningMethodES256, made.ec, "e"))
			if test.good != (err == nil) {
				t.Fatalf("error is %v", err)
			}
			if err != nil {
				wantReason(t, err, KeyFetch)
			}
		})
	}
	if got := elsewhere.requests.Load(); got != 0 {
		t.Errorf("%d requests followed a redirect to another host", got)
	}
}

// TestPlainKeySetIsWarnedOf: without TLS the keys can be replaced on the way.
func TestPlainKeySetIsWarnedOf(t *testing.T) {
	for address, want := range map[string]bool{"http://keys.example/": true, "http://127.0.0.1:1/": false, "https://127.0.0.1:1/": false} {
		var log logtest.Text
		ended, end := context.WithCancel(t.Context())
		end()
		if _, err := newRemoteKeys(ended, address, nil, slog.New(slog.NewTextHandler(&log, nil)), quickPace); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(log.String(), "without TLS"); got != want {
			t.Errorf("%s: warned %v, want %v", address, got, want)
		}
	}
}
