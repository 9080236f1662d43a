package council

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Defaults and bounds of [Settings].
const (
	DeadlineDefault       = 2 * time.Minute
	DeadlineMax           = 10 * time.Minute
	TimeoutDefault        = time.Minute
	MaxCouncilsDefault    = 200
	MaxCouncilsMax        = 10_000
	MaxPerUserDefault     = 3
	PerMinuteDefault      = 10
	PerMinuteMax          = 6000
	MaxPromptBytesDefault = 32 << 10
	MaxPromptBytesMax     = 256 << 10
	timeMin               = 100 * time.Millisecond
	promptBytesMin        = 64
)

// Settings says who sits in a council and what it may cost. The zero value is the demo council with
// the default bounds: a zero field takes its default, for a council is always bounded.
type Settings struct {
	// Deadline bounds a whole council. Zero: 2 min. 100 ms to 10 min.
	Deadline time.Duration `yaml:"deadline,omitempty"`
	// MaxCouncils bounds the councils of this process that run at once. Zero: 200. At most 10,000.
	MaxCouncils int `yaml:"max_councils,omitempty"`
	// MaxPerUser is the same for one user. Zero: 3.
	MaxPerUser int `yaml:"max_per_user,omitempty"`
	// PerMinute is how many councils one user may begin in a minute. Zero: 10. At most 6000.
	PerMinute int `yaml:"per_minute,omitempty"`
	// MaxPromptBytes bounds the text to judge. Zero: 32 KiB. 64 bytes to 256 KiB.
	MaxPromptBytes int `yaml:"max_prompt_bytes,omitempty"`

	// Those who may be asked. One without a key is not.
	OpenAI     Provider `yaml:"openai,omitempty"`
	Anthropic  Provider `yaml:"anthropic,omitempty"`
	Gemini     Provider `yaml:"gemini,omitempty"`
	Perplexity Provider `yaml:"perplexity,omitempty"`
}

// Provider says how to ask one provider's model.
type Provider struct {
	// Key is what the provider knows us by. Empty, with no KeyFile: it is not asked.
	Key Key `yaml:"key,omitempty"`
	// KeyFile names a file that holds the key, for the command's settings: [New] does not read it.
	KeyFile string `yaml:"key_file,omitempty"`
	// Model is the provider's name of the model. Empty: a current one of middle price.
	Model string `yaml:"model,omitempty"`
	// BaseURL is where the provider's API is, https, or http on this machine. Empty: the provider's own.
	BaseURL string `yaml:"base_url,omitempty"`
	// Timeout bounds its answer. Zero: 1 min. 100 ms to 10 min.
	Timeout time.Duration `yaml:"timeout,omitempty"`
}

// Key is a secret that is never printed. Convert it to a string to get at it.
type Key string

// String never gives the key away.
func (k Key) String() string {
	if k == "" {
		return ""
	}
	return "redacted"
}

// GoString never gives the key away.
func (k Key) GoString() string { return strconv.Quote(k.String()) }

// MarshalText never gives the key away.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText takes any text; whether it can be a key is for [Settings.Validate] to say.
func (k *Key) UnmarshalText(text []byte) error {
	*k = Key(text)
	return nil
}

// Expected says what a Key looks like.
func (Key) Expected() string { return "a provider's API key" }

// Placeholder reports whether k is what a printed configuration has in a key's place.
func (k Key) Placeholder() bool { return k == "redacted" }

// SettingError says what is wrong with one setting. Path leads to it, with dots: openai.base_url.
type SettingError struct {
	Path string
	// Message says what is wrong and what would be right, without the path, and without a key.
	Message string
}

// Error gives path and message.
func (e *SettingError) Error() string { return "council." + e.Path + ": " + e.Message }

// Validate says all that is wrong with the settings, as joined [*SettingError]s, or nil.
func (s *Settings) Validate() error {
	var problems []error
	wrong := func(path, format string, arguments ...any) {
		problems = append(problems, &SettingError{path, fmt.Sprintf(format, arguments...)})
	}
	duration := func(path string, value time.Duration) {
		if value != 0 && (value < timeMin || value > DeadlineMax) {
			wrong(path, "%v is not possible; use %v to %v", value, timeMin, DeadlineMax)
		}
	}
	number := func(path string, value, least, most int) {
		if value != 0 && (value < least || value > most) {
			wrong(path, "%d is not possible; use %d to %d", value, least, most)
		}
	}
	duration("deadline", s.Deadline)
	number("max_councils", s.MaxCouncils, 1, MaxCouncilsMax)
	number("max_per_user", s.MaxPerUser, 1, MaxCouncilsMax)
	number("per_minute", s.PerMinute, 1, PerMinuteMax)
	number("max_prompt_bytes", s.MaxPromptBytes, promptBytesMin, MaxPromptBytesMax)
	for name, p := range s.Providers() {
		duration(name+".timeout", p.Timeout)
		for key, problem := range map[string]string{"key": p.Key.problem(), "model": modelProblem(p.Model), "base_url": urlProblem(p.BaseURL)} {
			if problem != "" {
				wrong(name+"."+key, "%s", problem)
			}
		}
	}
	return errors.Join(problems...)
}

// Providers calls yield for each provider, by the name that its section has.
func (s *Settings) Providers() func(yield func(name string, provider *Provider) bool) {
	return func(yield func(string, *Provider) bool) {
		_ = yield("openai", &s.OpenAI) && yield("anthropic", &s.Anthropic) && yield("gemini", &s.Gemini) &&
			yield("perplexity", &s.Perplexity)
	}
}

// keyBytesMax bounds a key: it goes into a request's head.
const keyBytesMax = 512

// problem says why k cannot stand in a header, "" if it can.
func (k Key) problem() string {
	if len(k) > keyBytesMax {
		return fmt.Sprintf("has %d bytes; a key has at most %d", len(k), keyBytesMax)
	}
	for index := range len(k) {
		if k[index] <= ' ' || k[index] >= 0x7f {
			return "holds a space or a character that no key has; was it copied whole?"
		}
	}
	return ""
}

// modelNameBytesMax bounds the name of a model.
const modelNameBytesMax = 128

func modelProblem(name string) string {
	for index := range len(name) {
		// It stands in the path of Gemini's address.
		if c := name[index]; !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_.:/@", c) >= 0) {
			return "holds a character that no model's name has; allowed are letters, digits and - _ . : / @"
		}
	}
	if len(name) > modelNameBytesMax || strings.Contains(name, "..") {
		return "is no model's name"
	}
	return ""
}

// urlProblem says what is wrong with a base URL; it repeats nothing of it.
func urlProblem(text string) string {
	if text == "" {
		return ""
	}
	address, err := url.Parse(text)
	switch {
	case err != nil || address.Host == "" || address.Scheme != "https" && address.Scheme != "http":
		return "not an absolute https or http URL; write https://HOST/PATH"
	case address.User != nil || address.RawQuery != "" || address.Fragment != "":
		return "holds a user, a password or a query; a base URL is scheme, host and path"
	case address.Scheme == "http" && !isLoopback(address.Hostname()):
		return "without TLS the key could be read on the way; use https, or http on this machine only"
	}
	return ""
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.Unmap().IsLoopback()
}

// completed gives a copy with the defaults filled in.
func (s Settings) completed() Settings {
	orDefault(&s.Deadline, DeadlineDefault)
	orDefault(&s.MaxCouncils, MaxCouncilsDefault)
	orDefault(&s.MaxPerUser, MaxPerUserDefault)
	orDefault(&s.PerMinute, PerMinuteDefault)
	orDefault(&s.MaxPromptBytes, MaxPromptBytesDefault)
	for _, p := range s.Providers() {
		orDefault(&p.Timeout, TimeoutDefault)
	}
	return s
}

func orDefault[T comparable](value *T, fallback T) {
	var zero T
	if *value == zero {
		*value = fallback
	}
}
