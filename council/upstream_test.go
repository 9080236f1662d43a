package council

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// dialect is one provider's wire: what it is asked with, and how it answers.
type dialect struct {
	name     string // of the model on our wire
	path     string
	key      string // header that holds the key
	settings func(*Settings) *Provider
	// say is one event that says text; end is what ends a whole answer.
	say  func(text string) string
	end  string
	fail string // an error in the middle of an answer
	junk string // what comes in between and means nothing to us
	lost string // an event that refuses to answer
}

func quoted(text string) string {
	written, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return string(written)
}

func chatSays(text string) string {
	return `data: {"id":"c1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":` + quoted(text) + `},"finish_reason":null}]}` + "\n\n"
}

const chatStop = `data: {"id":"c1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"

var dialects = []dialect{
	{
		name: "gpt", path: "/v1/chat/completions", key: "Authorization",
		settings: func(s *Settings) *Provider { return &s.OpenAI },
		say:      chatSays,
		end:      chatStop + "data: [DONE]\n\n",
		fail:     `data: {"error":{"message":"The server had an error, key ` + testKey + `","type":"server_error","param":null,"code":null}}` + "\n\n",
		junk:     `data: {"id":"c1","choices":[],"usage":{"total_tokens":3}}` + "\n\n",
		lost:     `data: {"choices":[{"index":0,"delta":{},"finish_reason":"content_filter"}]}` + "\n\n",
	},
	{
		name: "perplexity", path: "/v1/chat/completions", key: "Authorization",
		settings: func(s *Settings) *Provider { return &s.Perplexity },
		say:      func(text string) string { return strings.ReplaceAll(chatSays(text), "\n", "\r\n") },
		end:      strings.ReplaceAll(chatStop, "\n", "\r\n"),
		fail:     `data: {"error":{"message":"overloaded","type":"engine_overloaded","code":500}}` + "\r\n\r\n",
		junk:     `data: {"citations":["https://example.com"],"choices":[]}` + "\r\n\r\n",
		lost:     `data: {"choices":[{"index":0,"delta":{},"finish_reason":"content_filter"}]}` + "\r\n\r\n",
	},
	{
		name: "claude", path: "/v1/v1/messages", key: "X-Api-Key",
		settings: func(s *Settings) *Provider { return &s.Anthropic },
		say: func(text string) string {
			return "event: content_block_delta\n" + `data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":` + quoted(text) + `}}` + "\n\n"
		},
		end: "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n" +
			"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":15}}\n\n" +
			"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
		fail: "event: error\n" + `data: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded ` + testPrompt + `"}}` + "\n\n",
		junk: "event: ping\ndata: {\"type\": \"ping\"}\n\n" +
			"event: content_block_delta\n" + `data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Hm."}}` + "\n\n" +
			"event: not_invented_yet\ndata: {\"type\":\"not_invented_yet\"}\n\n",
		lost: "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"refusal\"}}\n\n",
	},
	{
		name: "gemini", path: "/v1/v1beta/models/a-model:streamGenerateContent", key: "X-Goog-Api-Key",
		settings: func(s *Settings) *Provider { return &s.Gemini },
		say: func(text string) string {
			return `data: {"candidates": [{"content": {"parts": [{"text": ` + quoted(text) + `}],"role": "model"},"index": 0}],"usageMetadata": {"totalTokenCount": 9}}` + "\r\n\r\n"
		},
		end:  `data: {"candidates": [{"content": {"parts": [{"text": ""}],"role": "model"},"finishReason": "STOP","index": 0}]}` + "\r\n\r\n",
		fail: `data: {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}` + "\r\n\r\n",
		junk: `data: {"candidates": [{"content": {"parts": [{"text": "Hm.", "thought": true}],"role": "model"},"index": 0}]}` + "\r\n\r\n" +
			`data: {"usageMetadata": {"totalTokenCount": 12}}` + "\r\n\r\n",
		lost: `data: {"candidates": [{"finishReason": "SAFETY","index": 0}]}` + "\r\n\r\n",
	},
}

// answer is how an upstream answers: what it writes, and how.
type answer struct {
	status int // 0: 200
	header map[string]string
	body   string
	piece  int  // bytes a flush; 0: all at once
	hang   bool // after the body it says nothing until the client goes
	cut    bool // after the body the connection breaks
}

// upstream is a provider on this machine.
type upstream struct {
	*httptest.Server
	asked, gone, open atomic.Int64
	wrong             atomic.Value // string: what was not asked as the provider wants it
}

func serveUpstream(t testing.TB, d dialect, how func() answer) *upstream {
	t.Helper()
	u := &upstream{}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.asked.Add(1)
		u.open.Add(1)
		defer u.open.Add(-1)
		if problem := d.check(r); problem != "" {
			u.wrong.Store(problem)
		}
		u.answer(w, r, how())
	}))
	t.Cleanup(func() {
		u.CloseClientConnections()
		u.Close()
		if wrong := u.wrong.Load(); wrong != nil {
			t.Errorf("%s was asked wrongly: %s", d.name, wrong)
		}
	})
	return u
}

// check says what a request to the provider lacks.
func (d dialect) check(r *http.Request) string {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err.Error()
	}
	var asked map[string]any
	if err := json.Unmarshal(body, &asked); err != nil {
		return err.Error()
	}
	switch {
	case r.Method != http.MethodPost || r.URL.Path != d.path:
		return r.Method + " " + r.URL.Path
	case !strings.HasSuffix(r.Header.Get(d.key), testKey):
		return "no key in " + d.key
	case strings.Contains(r.URL.String(), testKey):
		return "the key is in the address"
	case !strings.Contains(string(body), testPrompt[:20]):
		return "the prompt is not in the body"
	case d.name == "gemini" && (r.URL.RawQuery != "alt=sse" || asked["contents"] == nil || asked["systemInstruction"] == nil):
		return "not a streamed request of Gemini's"
	case d.name != "gemini" && (asked["stream"] != true || asked["model"] != "a-model" || asked["messages"] == nil):
		return "not a streamed request for a-model"
	case d.name == "claude" && (r.Header.Get("Anthropic-Version") == "" || asked["max_tokens"] == nil || asked["system"] == nil):
		return "not a request of Anthropic's"
	}
	return ""
}

func (u *upstream) answer(w http.ResponseWriter, r *http.Request, how answer) {
	w.Header().Set("Content-Type", "text/event-stream")
	for name, value := range how.header {
		w.Header().Set(name, value)
	}
	w.WriteHeader(max(how.status, http.StatusOK))
	flush := http.NewResponseController(w)
	body := how.body
	for body != "" {
		count := len(body)
		if how.piece > 0 {
			count = min(count, how.piece)
		}
		if _, err := io.WriteString(w, body[:count]); err != nil {
			break
		}
		_ = flush.Flush()
		body = body[count:]
	}
	_ = flush.Flush()
	if how.hang {
		<-r.Context().Done()
		u.gone.Add(1)
	}
	if how.cut {
		panic(http.ErrAbortHandler)
	}
}

// verdictLine is what a model ends with.
func verdictLine(score float64, reason string) string {
	return fmt.Sprintf(`{"score": %v, "reason": %s}`, score, quoted(reason))
}

// settingsFor lets a dialect's provider be asked at an address.
func settingsFor(address string, all ...dialect) Settings {
	var s Settings
	for _, d := range all {
		*d.settings(&s) = Provider{Key: testKey, Model: "a-model", BaseURL: address + "/v1"}
	}
	return s
}
