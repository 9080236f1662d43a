package hostile

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// authenticationCases are the cases of letter E.
var authenticationCases = []abuse{
	{
		id: "E1", sent: "tokens with alg none, the key's kind changed, r = s = 0, crit, a JWE", authenticated: true,
		counts:  map[string]int{"request unauthorized": some, "end unauthorized": some},
		prepare: withPublicKey, do: confusedAlgorithms,
	},
	{
		id: "E2", sent: "a token of a million dots, one of 900 KB, one with 30,000 channels", authenticated: true,
		arguments: []string{"--max-header-bytes", "1MiB", "--max-message-bytes", "2MiB"},
		counts:    map[string]int{"request unauthorized": some}, bytesSpare: 48 << 20,
		do: largeTokens,
	},
	{
		id: "E3", sent: "kid, jku, x5u and iss that point at files and addresses; 300 invented kids; tokens of one tenant at the gateway of another", authenticated: true,
		counts:  map[string]int{"request unauthorized": some},
		prepare: withKeySet, do: pointingHeaders,
	},
	{
		id: "E4", sent: "exp past, absent, fractional, as text, in year 10000; nbf ahead; clock skew; wrong aud; empty sub", authenticated: true,
		arguments: []string{"--auth-audience", "shop"},
		counts:    map[string]int{"request unauthorized": some},
		do:        strangeClaims,
	},
	{
		id: "E5", sent: "tokens that expire, and a key that is rotated out, under open streams", authenticated: true,
		counts:  map[string]int{"end token_expired": some},
		prepare: withKeySet, do: expiry,
	},
	{
		id: "E6", sent: "good and bad tokens in query, header, subprotocol and cookie", authenticated: true,
		counts: map[string]int{"request unauthorized": some, "end unauthorized": some, "request bad_origin": maybe},
		do:     tokenPlaces,
	},
	{
		id: "E7", sent: "connections that never authenticate: silent, anonymous SSE, anonymous WebSockets", authenticated: true,
		arguments: []string{"--handshake-timeout", "1s"},
		counts:    map[string]int{"request unauthorized": 100, "end unauthorized": 100, "desk handshake_slow": some},
		do:        anonymous,
	},
}

func newKey(w *world) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.Fatal(err)
	}
	return key
}

// withPublicKey gives the gateway an EC key beside the secret.
func withPublicKey(w *world) {
	w.key = newKey(w)
	file := filepath.Join(w.TempDir(), "key.pem")
	if err := os.WriteFile(file, publicPEM(w, w.key), 0o600); err != nil {
		w.Fatal(err)
	}
	w.abuse.arguments = append(slices.Clone(w.abuse.arguments), "--auth-public-key-file", file)
}

func publicPEM(w *world, key *ecdsa.PrivateKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		w.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// signES makes an ES256 token.
func signES(w *world, key *ecdsa.PrivateKey, header, claims map[string]any) string {
	header["alg"] = "ES256"
	text := unsigned(header, claims)
	hash := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, hash[:])
	if err != nil {
		w.Fatal(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func claimsOf(user string) map[string]any {
	return map[string]any{"sub": user, "exp": time.Now().Add(time.Hour).Unix()}
}

// streamStatus asks for an event stream with a token and gives the status.
func (w *world) streamStatus(token string) int {
	w.Helper()
	c := w.dial()
	defer c.Close()
	c.say(w.head("GET /api/stream?channel=job_progress:e HTTP/1.1", "Host: HOST", "Authorization: Bearer "+token))
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		w.Fatalf("no answer: %v", err)
	}
	return response.StatusCode
}

func confusedAlgorithms(w *world) {
	claims := claimsOf("mallory")
	key := w.key
	public := publicPEM(w, key)
	block, _ := pem.Decode(public)
	header := func(algorithm any) map[string]any { return map[string]any{"alg": algorithm, "typ": "JWT"} }
	zeros := base64.RawURLEncoding.EncodeToString(make([]byte, 64))
	hs := map[string]any{"alg": "HS256", "crit": []string{"exp"}, "exp": 1}
	tokens := map[string]string{
		"none":                      unsigned(header("none"), claims) + ".",
		"NONE":                      unsigned(header("NONE"), claims) + ".",
		"nOnE, with a signature":    signAs(header("nOnE"), claims, []byte(hmacSecret)),
		"no alg":                    signAs(map[string]any{"typ": "JWT"}, claims, []byte(hmacSecret)),
		"an empty alg":              signAs(header(""), claims, []byte(hmacSecret)),
		"alg as a number":           signAs(header(1), claims, []byte(hmacSecret)),
		"alg as a list":             signAs(header([]string{"HS256"}), claims, []byte(hmacSecret)),
		"HS256 with the public PEM": signAs(header("HS256"), claims, public),
		"HS256 with the public DER": signAs(header("HS256"), claims, block.Bytes),
		"HS256 with nothing":        signAs(header("HS256"), claims, nil),
		"HS512":                     signAs(header("HS512"), claims, []byte(hmacSecret)),
		"ES256 of zeros":            unsigned(header("ES256"), claims) + "." + zeros,
		"ES256 of nothing":          unsigned(header("ES256"), claims) + ".",
		"ES384":                     unsigned(header("ES384"), claims) + "." + zeros,
		"RS256":                     unsigned(header("RS256"), claims) + "." + zeros,
		"another key":               signES(w, newKey(w), header(""), claims),
		"crit":                      signAs(hs, claims, []byte(hmacSecret)),
		"a JWE":                     unsigned(map[string]any{"alg": "dir", "enc": "A256GCM"}, claims) + ".a.b.c",
		"two parts":                 unsigned(header("none"), claims),
		"nothing but dots":          "..",
	}
	for name, token := range tokens {
		w.secret(token)
		if status := w.streamStatus(token); status != 401 {
			w.Errorf("%s: SSE answered %d, want 401", name, status)
		}
		if got := w.websocket("/ws?token=" + token).closed(); got.code != 1008 || got.reason != "Unauthorized" {
			w.Errorf("%s: the WebSocket was closed with %d %q, want 1008 Unauthorized", name, got.code, got.reason)
		}
	}
	good := map[string]string{"HS256": sign(claims), "ES256": signES(w, key, header(""), claims)}
	for name, token := range good {
		if status := w.streamStatus(w.secret(token)); status != 200 {
			w.Errorf("a good %s token was answered %d", name, status)
		}
	}
	w.note("401, and 1008 `Unauthorized`, for all %d; the two good ones are believed", len(tokens))
}

func largeTokens(w *world) {
	channels := make([]string, 30_000)
	for n := range channels {
		channels[n] = fmt.Sprintf("job_progress:%d", n)
	}
	many := claimsOf("mallory")
	many["channels"] = channels
	tokens := map[string]string{
		"a million dots":  strings.Repeat(".", 1_000_000),
		"900 KB":          strings.Repeat("a", 900_000),
		"30,000 channels": sign(many),
		"three long":      strings.Repeat("a", 300_000) + "." + strings.Repeat("b", 300_000) + "." + strings.Repeat("c", 300_000),
	}
	slowest := time.Duration(0)
	for name, token := range tokens {
		for range 5 {
			began := time.Now()
			if status := w.streamStatus(token); status != 401 {
				w.Errorf("%s: answered %d, want 401", name, status)
			}
			slowest = max(slowest, time.Since(began))
		}
		s := w.websocket("/ws", bearer(w.token)...)
		if answer := s.reply(`{"type":"refresh","token":"` + token + `"}`); answer.Code != "unauthorized" {
			w.Errorf("%s as a refresh: answered with %.200s", name, answer.text)
		}
		s.Close()
	}
	if status := w.streamStatus(w.token); status != 200 {
		w.Errorf("a good token was answered %d", status)
	}
	w.note("401 on length, at most %d ms each; the same for refresh", slowest.Milliseconds())
}

// keySet is a key set that a case serves.
type keySet struct {
	mutex   sync.Mutex
	keys    map[string]*ecdsa.PrivateKey // by kid
	fetches atomic.Int32
}

func (s *keySet) ServeHTTP(response http.ResponseWriter, _ *http.Request) {
	s.fetches.Add(1)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	list := []map[string]string{}
	for kid, key := range s.keys {
		public, err := key.PublicKey.Bytes()
		if err != nil {
			panic(err) // a key that was just made
		}
		encode := base64.RawURLEncoding.EncodeToString
		list = append(list, map[string]string{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid, "x": encode(public[1:33]), "y": encode(public[33:])})
	}
	_ = json.NewEncoder(response).Encode(map[string]any{"keys": list})
}

// withKeySet gives the gateway a key set, with the key "one".
func withKeySet(w *world) {
	w.keySet = &keySet{keys: map[string]*ecdsa.PrivateKey{"one": newKey(w)}}
	server := httptest.NewServer(w.keySet)
	w.Cleanup(server.Close)
	w.abuse.arguments = append(slices.Clone(w.abuse.arguments), "--auth-jwks-url", server.URL+"/keys")
}

func pointingHeaders(w *world) {
	trap, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	defer trap.Close()
	var caught atomic.Int32
	go func() {
		for {
			c, err := trap.Accept()
			if err != nil {
				return
			}
			caught.Add(1)
			c.Close()
		}
	}()
	address := "http://" + trap.Addr().String()
	set := w.keySet
	mine := newKey(w)
	for name, header := range map[string]map[string]any{
		"kid as an address": {"kid": address + "/key"}, "kid as a file": {"kid": "../../../../etc/passwd"}, "kid as a query": {"kid": "' OR 1=1 --"},
		"kid as a number": {"kid": 1}, "a long kid": {"kid": strings.Repeat("k", 10_000)}, "no kid": {},
		"jku": {"jku": address + "/keys", "kid": "mine"}, "x5u": {"x5u": address + "/cert", "kid": "mine"}, "jwk": {"jwk": map[string]string{"kty": "EC"}, "kid": "one"},
		"x5c": {"x5c": []string{"MIIB"}, "kid": "one"}, "another's kid": {"kid": "one"},
	} {
		claims := claimsOf("mallory")
		claims["iss"] = address
		if status := w.streamStatus(signES(w, mine, header, claims)); status != 401 {
			w.Errorf("%s: answered %d, want 401", name, status)
		}
	}
	before := set.fetches.Load()
	for n := range 300 {
		if status := w.streamStatus(signES(w, mine, map[string]any{"kid": fmt.Sprintf("invented-%d", n)}, claimsOf("mallory"))); status != 401 {
			w.Errorf("an invented kid was answered %d", status)
		}
	}
	fetched := set.fetches.Load() - before
	if fetched > 10 {
		w.Errorf("300 invented kids made %d fetches of the key set", fetched)
	}
	if n := caught.Load(); n > 0 {
		w.Errorf("%d connections came to the address that tokens named", n)
	}
	w.within(patience, "a good token is believed", func() bool {
		return w.streamStatus(signES(w, set.keys["one"], map[string]any{"kid": "one"}, claimsOf("alice"))) == 200
	})
	w.note("401; nothing fetched from what a token names; 300 invented kids, %d fetches of the key set", fetched)
	w.wantTenantsApart()
}

func strangeClaims(w *world) {
	now := time.Now()
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	for _, test := range []struct {
		name   string
		change map[string]any // nil takes the claim away
		status int
	}{
		{"all good", map[string]any{}, 200},
		{"exp past", map[string]any{"exp": at(-time.Hour)}, 401},
		{"exp a moment ago, within the skew", map[string]any{"exp": at(-5 * time.Second)}, 200},
		{"exp beyond the skew", map[string]any{"exp": at(-45 * time.Second)}, 401},
		{"exp absent", map[string]any{"exp": nil}, 200},
		{"exp null", map[string]any{"exp": json.RawMessage("null")}, 401},
		{"exp with a fraction", map[string]any{"exp": float64(at(time.Hour)) + 0.5}, 200},
		{"exp as text", map[string]any{"exp": fmt.Sprint(at(time.Hour))}, 401},
		{"exp in the year 10000", map[string]any{"exp": 253402300800}, 401},
		{"exp in milliseconds", map[string]any{"exp": now.Add(time.Hour).UnixMilli()}, 401},
		{"exp 1e400", map[string]any{"exp": json.RawMessage("1e400")}, 401},
		{"exp negative", map[string]any{"exp": -1}, 401},
		{"exp as a list", map[string]any{"exp": []int64{at(time.Hour)}}, 401},
		{"exp true", map[string]any{"exp": true}, 401},
		{"nbf ahead", map[string]any{"nbf": at(time.Hour)}, 401},
		{"nbf ahead, within the skew", map[string]any{"nbf": at(10 * time.Second)}, 200},
		{"nbf as text", map[string]any{"nbf": "now"}, 401},
		{"another aud", map[string]any{"aud": "shopping"}, 401},
		{"aud absent", map[string]any{"aud": nil}, 401},
		{"aud in a list", map[string]any{"aud": []string{"x", "shop"}}, 200},
		{"aud in another case", map[string]any{"aud": "Shop"}, 401},
		{"aud as a number", map[string]any{"aud": 1}, 401},
		{"sub empty", map[string]any{"sub": ""}, 401},
		{"sub as a list", map[string]any{"sub": []string{"a"}}, 401},
		{"sub with a control", map[string]any{"sub": "a\nb"}, 401},
		{"sub very long", map[string]any{"sub": strings.Repeat("a", 4000)}, 401},
		{"channels as text", map[string]any{"channels": "*"}, 401},
		{"admin as text", map[string]any{"admin": "true"}, 401},
	} {
		claims := map[string]any{"sub": "alice", "aud": "shop", "exp": at(time.Hour)}
		for name, value := range test.change {
			if claims[name] = value; value == nil {
				delete(claims, name)
			}
		}
		if status := w.streamStatus(w.secret(sign(claims))); status != test.status {
			w.Errorf("%s: answered %d, want %d", test.name, status, test.status)
		}
	}
	w.note("refused but within 30 s of skew; what cannot be read is refused, and never no limit")
}

// expiry lets tokens run out under a crowd, and then rotates the key of two streams away.
func expiry(w *world) {
	const life = 6 * time.Second
	count := crowd(40)
	set := w.keySet
	signed := func(kid string, claims map[string]any) string {
		return w.secret(signES(w, set.keys[kid], map[string]any{"kid": kid}, claims))
	}
	rotated := []func() string{endOf(w.stream("/api/stream?channel=job_progress:e5", bearer(signed("one", claimsOf("alice")))...).live()), nil}
	socket := w.websocket("/ws", bearer(signed("one", claimsOf("alice")))...)
	rotated[1] = endOf(socket)
	expires := time.Now().Add(life).Truncate(time.Second) // exp has whole seconds
	var ends []time.Duration
	var mutex sync.Mutex
	var waiting sync.WaitGroup
	for n := range count {
		token := w.secret(sign(map[string]any{"sub": fmt.Sprint("user", n), "exp": expires.Unix()}))
		end := endOf(w.websocket("/ws", bearer(token)...))
		if n%2 == 0 {
			end = endOf(w.stream("/api/stream?channel=job_progress:e5", bearer(token)...).live())
		}
		waiting.Go(func() {
			if why := end(); why != "Token expired" && why != "token_expired" {
				w.Errorf("a stream whose token expired was ended with %q", why)
			}
			mutex.Lock()
			defer mutex.Unlock()
			ends = append(ends, time.Since(expires))
		})
	}
	waiting.Wait()
	slices.Sort(ends)
	if spread := ends[len(ends)-1] - ends[0]; spread < 200*time.Millisecond {
		w.Errorf("all %d streams ended within %v: no jitter", count, spread)
	}
	set.mutex.Lock()
	set.keys = map[string]*ecdsa.PrivateKey{"two": newKey(w)}
	set.mutex.Unlock()
	began := time.Now()
	// The first token of the new key brings the new set.
	w.within(patience, "the new key is believed", func() bool { return w.streamStatus(signed("two", claimsOf("bob"))) == 200 })
	for _, end := range rotated {
		if why := end(); why != "Token expired" && why != "token_expired" {
			w.Errorf("a stream whose key is gone was ended with %q", why)
		}
	}
	w.held("%d streams with tokens", count+2)
	w.note("1008 `Token expired`, `token_expired`: %.1f to %.1f s after exp; after the rotation within %.0f s", ends[0].Seconds(), ends[len(ends)-1].Seconds(), time.Since(began).Seconds())
}

// endOf gives a function that waits for a stream's end and says how it was told.
func endOf(one any) func() string {
	switch one := one.(type) {
	case *socket:
		_ = one.SetDeadline(time.Now().Add(patience + time.Minute))
		return func() string { return one.closed().reason }
	case *stream:
		_ = one.SetDeadline(time.Now().Add(patience + time.Minute))
		return func() string {
			for {
				e, err := one.next()
				if err != nil {
					return err.Error()
				}
				if e.name == "server_error" {
					return parsed(e.data).Code
				}
			}
		}
	}
	return nil
}

func tokenPlaces(w *world) {
	good := w.secret(sign(claimsOf("alice")))
	dot := strings.LastIndexByte(good, '.') + 1
	bad := map[string]string{
		"forged":  good[:dot] + string('A'+(good[dot]-'A'+1)%26) + good[dot+1:],
		"expired": sign(map[string]any{"sub": "alice", "exp": 1}),
		"garbage": "garbage-" + payloadMark,
		"claims":  sign(map[string]any{"sub": 1.5, "exp": time.Now().Add(time.Hour).Unix()}),
	}
	places := map[string]func(token string) (query string, lines []string){
		"query":  func(token string) (string, []string) { return "&token=" + token, nil },
		"header": func(token string) (string, []string) { return "", bearer(token) },
		"cookie": func(token string) (string, []string) {
			return "", []string{"Cookie: millrace_token=" + token, "Origin: http://HOST"}
		},
		"subprotocol": func(token string) (string, []string) {
			return "", []string{"Sec-WebSocket-Protocol: millrace.v1, bearer." + token}
		},
	}
	answers := make(map[string]bool)
	for place, build := range places {
		for name, token := range bad {
			query, lines := build(w.secret(token))
			s := w.websocket("/ws?a=b"+query, lines...)
			if got := s.closed(); got.code != 1008 || got.reason != "Unauthorized" {
				w.Errorf("%s in the %s: closed with %d %q", name, place, got.code, got.reason)
			}
			if strings.Contains(fmt.Sprint(s.header), token) {
				w.Errorf("%s in the %s: the handshake's answer holds it", name, place)
			}
			if place == "subprotocol" {
				continue // EventSource has none
			}
			response, body := w.asked(append([]string{"GET /api/stream?channel=job_progress:e6" + query + " HTTP/1.1"}, lines...)...)
			if response.StatusCode != 401 || strings.Contains(body, token) {
				w.Errorf("%s in the %s: answered %d %s", name, place, response.StatusCode, body)
			}
			answers[body] = true
		}
		query, lines := build(good)
		w.websocket("/ws?a=b"+query, lines...).await("connected")
	}
	if len(answers) != 1 {
		w.Errorf("refusals differ, which says what was wrong: %v", answers)
	}
	if _, text := w.gateway.ask(http.MethodGet, "/metrics"); strings.Contains(string(text), good) || strings.Contains(string(text), "alice") {
		w.Error("the metrics hold a token or a user")
	}
	w.note("one and the same refusal for each way to be bad; no token in log, answer, metric or close reason")
}

func anonymous(w *world) {
	count := 100
	var silent []*connection
	for range count {
		silent = append(silent, w.dial())
	}
	for range count {
		s := w.websocket("/ws")
		if got := s.closed(); got.code != 1008 {
			w.Errorf("an anonymous WebSocket was closed with %d", got.code)
		}
		if response, _ := w.asked("GET /api/stream?channel=job_progress:e7 HTTP/1.1"); response.StatusCode != 401 {
			w.Errorf("an anonymous event stream was answered %d", response.StatusCode)
		}
	}
	for _, c := range silent {
		if _, ended := c.over(); !ended {
			w.Fatal("a silent connection lives on")
		}
	}
	w.held("%d silent connections", count)
	w.note("1008 and 401 at once, silent ones closed at handshake-timeout; no stream is held")
}
