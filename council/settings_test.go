package council

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestSettingsAreValidated(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Settings)
		want   string // the start of the one problem; "" for none
	}{
		{"nothing", func(*Settings) {}, ""},
		{"all of it", func(s *Settings) {
			*s = Settings{Deadline: time.Minute, MaxCouncils: 1, MaxPerUser: 1, PerMinute: 1, MaxPromptBytes: 64}
			s.Gemini = Provider{Key: testKey, Model: "models-2.5_x", BaseURL: "https://example.com/x", Timeout: time.Second}
		}, ""},
		{"this machine without TLS", func(s *Settings) { s.OpenAI.BaseURL = "http://127.0.0.1:8080/v1" }, ""},
		{"by name", func(s *Settings) { s.OpenAI.BaseURL = "http://localhost:8080" }, ""},
		{"a key on the wire", func(s *Settings) { s.OpenAI.BaseURL = "http://example.com" }, "council.openai.base_url: without TLS"},
		{"no URL", func(s *Settings) { s.Anthropic.BaseURL = "example.com" }, "council.anthropic.base_url: not an absolute"},
		{"a password", func(s *Settings) { s.Gemini.BaseURL = "https://u:" + testKey + "@example.com" }, "council.gemini.base_url: holds a user"},
		{"a key in the query", func(s *Settings) { s.Gemini.BaseURL = "https://example.com?key=" + testKey }, "council.gemini.base_url: holds a user"},
		{"a line end in the key", func(s *Settings) { s.Perplexity.Key = testKey + "\n" }, "council.perplexity.key: holds a space"},
		{"a key without end", func(s *Settings) { s.Perplexity.Key = Key(strings.Repeat("x", 513)) }, "council.perplexity.key: has 513 bytes"},
		{"a way out of the path", func(s *Settings) { s.Gemini.Model = "../x" }, "council.gemini.model: is no model's name"},
		{"a query in the path", func(s *Settings) { s.Gemini.Model = "x?key=1" }, "council.gemini.model: holds a character"},
		{"a long deadline", func(s *Settings) { s.Deadline = time.Hour }, "council.deadline: 1h0m0s is not possible"},
		{"a short timeout", func(s *Settings) { s.OpenAI.Timeout = 1 }, "council.openai.timeout: 1ns"},
		{"no council", func(s *Settings) { s.MaxCouncils = -1 }, "council.max_councils: -1"},
		{"nobody's", func(s *Settings) { s.MaxPerUser = -1 }, "council.max_per_user: -1"},
		{"never", func(s *Settings) { s.PerMinute = -1 }, "council.per_minute: -1"},
		{"a short prompt", func(s *Settings) { s.MaxPromptBytes = 1 }, "council.max_prompt_bytes: 1"},
	} {
		var s Settings
		test.change(&s)
		got := ""
		if err := s.Validate(); err != nil {
			got = err.Error()
		}
		if (got == "") != (test.want == "") || !strings.HasPrefix(got, test.want) || strings.Contains(got, "\n") {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
		if strings.Contains(got, testKey) {
			t.Errorf("%s: the key is told", test.name)
		}
		if _, err := New(Options{Settings: s}); (err != nil) != (test.want != "") {
			t.Errorf("%s: New says %v", test.name, err)
		}
	}
}

func TestKeysAreNotPrinted(t *testing.T) {
	s := Settings{OpenAI: Provider{Key: testKey}}
	written, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprint(s), fmt.Sprintf("%+v", s), fmt.Sprintf("%#v", s), fmt.Sprintf("%q", s.OpenAI.Key), string(written)} {
		if strings.Contains(text, testKey) {
			t.Errorf("the key is printed: %s", text)
		}
	}
	if text := fmt.Sprint(Key("")); text != "" {
		t.Errorf("no key prints %q", text)
	}
}
