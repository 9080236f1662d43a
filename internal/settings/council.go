package settings

import (
	"bytes"
	"strings"

	"github.com/millrace/millrace/council"
)

// councilVariables are the variables that hold the key of a provider, by its name in the file.
var councilVariables = map[string]string{
	"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY", "gemini": "GEMINI_API_KEY", "perplexity": "PERPLEXITY_API_KEY",
}

// readCouncilKeys takes the keys that the environment holds. They win over those of the file.
func (l *Loaded) readCouncilKeys(environment []string) {
	given := make(map[string]string)
	for _, line := range environment {
		name, value, _ := strings.Cut(line, "=")
		given[name] = value
	}
	for name, provider := range l.Settings.Council.Providers() {
		if value := given[councilVariables[name]]; value != "" {
			provider.Key, provider.KeyFile = council.Key(value), ""
			l.sources["council."+name+".key"] = Source{Environment: councilVariables[name]}
		}
	}
}

// checkCouncil reads the files of keys, and lets the council look at its settings.
func (l *Loaded) checkCouncil() {
	for name, provider := range l.Settings.Council.Providers() {
		path := "council." + name + ".key_file"
		switch {
		case provider.KeyFile == "":
		case provider.Key != "":
			l.problem(path, "key is set too; set only one of them")
		default:
			content, err := readBounded(provider.KeyFile)
			if err != nil {
				l.problem(path, err.Error())
				continue
			}
			provider.Key = council.Key(bytes.TrimRight(content, "\r\n"))
			if provider.Key == "" {
				l.problem(path, provider.KeyFile+" is empty; expected "+provider.Key.Expected())
			}
		}
		if provider.Key.Placeholder() {
			l.warn("council."+name+".key", "this is the placeholder of a printed configuration; the gateway will not start with it")
		}
	}
	if err := l.Settings.Council.Validate(); err != nil {
		l.join(err)
	}
}

// CouncilPlaceholder reports whether a provider's key is the placeholder of a printed configuration.
func (s *Settings) CouncilPlaceholder() bool {
	for _, provider := range s.Council.Providers() {
		if provider.Key.Placeholder() {
			return true
		}
	}
	return false
}
