package gateway_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/council"
	"github.com/millrace/millrace/gateway"
)

// The key and the text of these tests, which no log line may hold (see TestMain).
const (
	councilKey    = "sk-council-test-key-0123456789"
	councilPrompt = "Umbrellas with zebra stripes at 12 euros."
	councilRoute  = "/api/stream/council-score"
)

// oracle is a provider on this machine that speaks Chat Completions; the model's name in a request
// says who speaks. It says what the test tells it to, when it is told.
type oracle struct {
	*httptest.Server
	mutex  sync.Mutex
	models map[string]*speaker
}

// speaker is one model of an oracle, in all councils.
type speaker struct {
	words     []string // said so far, to everybody
	done      bool
	more      chan struct{} // closed and made anew when there is more
	open      int           // requests now
	gone      int           // requests that the gateway ended
	requested int
}

func newOracle(t testing.TB) *oracle {
	kept.hide(councilKey)
	kept.hide(councilPrompt)
	o := &oracle{models: make(map[string]*speaker)}
	for _, model := range []string{"gpt", "perplexity"} {
		o.models[model] = &speaker{more: make(chan struct{})}
	}
	o.Server = httptest.NewServer(http.HandlerFunc(o.serve))
	t.Cleanup(func() {
		o.CloseClientConnections()
		o.Close()
	})
	return o
}

// settings seat the oracle's models.
func (o *oracle) settings() council.Settings {
	return council.Settings{
		OpenAI:     council.Provider{Key: councilKey, Model: "gpt", BaseURL: o.URL},
		Perplexity: council.Provider{Key: councilKey, Model: "perplexity", BaseURL: o.URL},
	}
}

func (o *oracle) with(model string, do func(s *speaker)) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	do(o.models[model])
}

// say lets a model say more; end, that it has ended with a verdict.
func (o *oracle) say(model string, words ...string) {
	o.with(model, func(s *speaker) { s.say(words...) })
}

func (o *oracle) end(model string, score float64) {
	o.with(model, func(s *speaker) {
		s.say(fmt.Sprintf("\n{\"score\":%v,\"reason\":\"so\"}", score))
		s.done = true
	})
}

func (s *speaker) say(words ...string) {
	s.words = append(s.words, words...)
	close(s.more)
	s.more = make(chan struct{})
}

// ended counts the requests that the gateway ended.
func (o *oracle) ended() (gone int) {
	for _, model := range []string{"gpt", "perplexity"} {
		o.with(model, func(s *speaker) { gone += s.gone })
	}
	return gone
}

func (o *oracle) serve(w http.ResponseWriter, r *http.Request) {
	var asked struct{ Model string }
	if json.NewDecoder(r.Body).Decode(&asked) != nil || o.models[asked.Model] == nil || r.Header.Get("Authorization") != "Bearer "+councilKey {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	// Only a body that was read to its end lets the server see that the client goes.
	_, _ = io.Copy(io.Discard, r.Body)
	flush := http.NewResponseController(w)
	w.WriteHeader(http.StatusOK)
	_ = flush.Flush()
	o.with(asked.Model, func(s *speaker) { s.open++; s.requested++ })
	defer o.with(asked.Model, func(s *speaker) { s.open-- })
	for said := 0; ; {
		var words []string
		var done bool
		var more chan struct{}
		o.with(asked.Model, func(s *speaker) { words, done, more = s.words[said:], s.done, s.more })
		for _, word := range words {
			said++
			fmt.Fprintf(w, "data: {\"choices\":[{\"delta\":{\"content\":%s}}]}\n\n", mustJSON(word))
		}
		_ = flush.Flush()
		if len(words) > 0 {
			continue
		}
		if done {
			_, _ = io.WriteString(w, "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
			return
		}
		select {
		case <-more:
		case <-r.Context().Done():
			o.with(asked.Model, func(s *speaker) { s.gone++ })
			return
		}
	}
}

func mustJSON(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// watcher is a client of a council and what it has understood. It belongs to one goroutine.
type watcher struct {
	*stream
	id      string
	demo    bool
	texts   map[string]string
	scores  map[string]float64
	errors  map[string]string
	last    string // the id that EventSource would come back with
	chunks  int
	gaps    int
	pieces  int // whole texts
	verdict struct {
		Scores    map[string]float64
		Mean      *float64
		Spread    *float64
		Times     map[string]float64
		Errors    map[string]string
		Cancelled bool
	}
	complete bool
}

// councilQuery is the address of a council's request; "prompt" where no id is asked for.
func councilQuery(parameters ...string) string {
	query := url.Values{}
	for index := 0; index+1 < len(parameters); index += 2 {
		query.Set(parameters[index], parameters[index+1])
	}
	return councilRoute + "?" + query.Encode()
}

// watch sends a request for a council and takes its greeting.
func (h *house) watch(t testing.TB, w wire, text string) *watcher {
	t.Helper()
	conn := dial(t, h.address)
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, h.raw(strings.Replace(text, "HTTP/1.1", "HTTP/"+w.version, 1))); err != nil {
		t.Fatal(err)
	}
	return watchOn(t, hear(t, w, conn))
}

func watchOn(t testing.TB, s *stream) *watcher {
	t.Helper()
	s.wantStatus(t)
	if s.unzipped != nil {
		t.Fatal("what is said to one user is compressed")
	}
	v := &watcher{stream: s, texts: map[string]string{}, scores: map[string]float64{}, errors: map[string]string{}}
	greeting := v.word(t, "connected")
	var told struct {
		ClientID  string
		CouncilID string
		Models    []council.Model
		Demo      bool
	}
	if err := json.Unmarshal([]byte(greeting.text), &told); err != nil || told.ClientID == "" || told.CouncilID == "" || len(told.Models) == 0 {
		t.Fatalf("the greeting is %s (%v)", greeting.text, err)
	}
	v.id, v.demo, v.last = told.CouncilID, told.Demo, greeting.id
	if greeting.id == "" && v.decoder.LastID == "" {
		t.Fatalf("the greeting has no id: %s", greeting.text)
	}
	v.last = v.decoder.LastID
	return v
}

// hearOne takes the next message; false when the stream has ended in order.
func (v *watcher) hearOne(t testing.TB) bool {
	t.Helper()
	h := v.said(t)
	v.last = v.decoder.LastID
	switch {
	case h.kind == heardEnd:
		if !v.complete {
			t.Fatal("the stream ended before complete")
		}
		return false
	case v.complete:
		t.Fatalf("behind complete came %v", h)
	case h.kind == heardWord && h.name == "complete":
		if err := json.Unmarshal([]byte(h.text), &v.verdict); err != nil {
			t.Fatalf("complete is %s", h.text)
		}
		v.complete = true
	case h.kind == heardWord && h.name == "gap":
		v.gaps++
	case h.kind == heardEvent && h.name == "message":
		v.take(t, h.text)
	case h.kind != heardWord || h.name != "replayed":
		t.Fatalf("a council said %v", h)
	}
	return true
}

func (v *watcher) take(t testing.TB, text string) {
	t.Helper()
	var told struct {
		Model, Chunk, Text, Reason, Error string
		Score                             *float64
	}
	if err := json.Unmarshal([]byte(text), &told); err != nil || told.Model == "" {
		t.Fatalf("a message is %s", text)
	}
	switch {
	case told.Score != nil:
		v.scores[told.Model] = *told.Score
	case told.Error != "":
		v.errors[told.Model] = told.Error
	case told.Text != "":
		v.texts[told.Model] = told.Text
		v.pieces++
	default:
		v.texts[told.Model] += told.Chunk
		v.chunks++
	}
}

// hears takes messages until condition holds.
func (v *watcher) hears(t testing.TB, condition func() bool) {
	t.Helper()
	for !condition() {
		if !v.hearOne(t) {
			t.Fatal("the council ended too early")
		}
	}
}

// hearsOut takes all that comes, to the orderly end.
func (v *watcher) hearsOut(t testing.TB) {
	t.Helper()
	for v.hearOne(t) {
	}
	v.conn.Close()
}

// twoHouses are two gateways on one Redis, that seat an oracle.
func twoHouses(t *testing.T, options gateway.Options, timings gateway.Timings) (one, two *house) {
	t.Helper()
	one, redis := serveRedis(t, options, timings)
	options.Redis = redis.URL()
	two = serveWith(t, options, timings)
	two.awaitDelivery(t)
	return one, two
}

// councilTimings are as short as a test that waits for nothing likes them.
var councilTimings = gateway.Timings{
	Follow:  200 * time.Millisecond,
	Council: council.Timings{Turn: 5 * time.Millisecond, Pace: -1, Unwatched: patience},
}
