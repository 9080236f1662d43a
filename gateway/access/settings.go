package access

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// setter puts one decoded value into a namespace; its error says what was expected.
type setter func(namespace *Namespace, value any) error

var namespaceSetters = map[string]setter{
	"mode": func(n *Namespace, value any) error { return setString((*string)(&n.Mode), value, "events") },
	"access": func(n *Namespace, value any) error {
		return setString((*string)(&n.Access), value, "user")
	},
	"parts":       func(n *Namespace, value any) error { return setInteger(&n.Parts, value) },
	"wildcard":    func(n *Namespace, value any) error { return setBoolean(&n.Wildcard, value) },
	"sharded":     func(n *Namespace, value any) error { return setBoolean(&n.Sharded, value) },
	"local_first": func(n *Namespace, value any) error { return setBoolean(&n.LocalFirst, value) },
	"on_denied": func(n *Namespace, value any) error {
		return setString((*string)(&n.OnDenied), value, "error")
	},
	"webhook": func(n *Namespace, value any) error {
		if _, isMap := value.(map[string]any); !isMap {
			return errors.New("expected settings below it, such as url: https://HOST/PATH")
		}
		n.Webhook = &Webhook{}
		return nil
	},
}

var webhookSetters = map[string]setter{
	"url":           func(n *Namespace, value any) error { return setString(&n.Webhook.URL, value, "https://HOST/PATH") },
	"timeout":       func(n *Namespace, value any) error { return setDuration(&n.Webhook.Timeout, value) },
	"max_age":       func(n *Namespace, value any) error { return setDuration(&n.Webhook.MaxAge, value) },
	"forward_token": func(n *Namespace, value any) error { return setBoolean(&n.Webhook.ForwardToken, value) },
}

// Keys gives the settings that a namespace knows, sorted.
func Keys() []string { return slices.Sorted(maps.Keys(namespaceSetters)) }

// WebhookKeys gives the settings that a namespace's webhook knows, sorted.
func WebhookKeys() []string { return slices.Sorted(maps.Keys(webhookSetters)) }

// Decode makes the namespace of the type name from settings as a YAML or JSON decoder gives them
// (string, bool, int, int64, uint64, float64, map[string]any) and validates it. The error joins a
// [*SettingError] for everything that is wrong; an unknown key is an error that names the known.
func Decode(name string, settings map[string]any) (Namespace, error) {
	var namespace Namespace
	problems := apply(name, "", &namespace, settings, namespaceSetters)
	if below, isMap := settings["webhook"].(map[string]any); isMap {
		problems = append(problems, apply(name, "webhook.", &namespace, below, webhookSetters)...)
	}
	if len(problems) == 0 {
		return namespace, namespace.Validate(name)
	}
	return namespace, errors.Join(problems...)
}

// apply hands each value to its key's setter, in the order of the keys.
func apply(name, prefix string, namespace *Namespace, settings map[string]any, setters map[string]setter) (problems []error) {
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		set, known := setters[key]
		if !known {
			problems = append(problems, settingError(name, prefix+printable(key), "unknown setting; the known ones are %s",
				strings.Join(slices.Sorted(maps.Keys(setters)), ", ")))
			continue
		}
		if err := set(namespace, settings[key]); err != nil {
			problems = append(problems, settingError(name, prefix+key, "%s", err))
		}
	}
	return problems
}

func setString(target *string, value any, example string) error {
	text, isString := value.(string)
	if !isString {
		return fmt.Errorf("expected a word, such as %s", example)
	}
	*target = text
	return nil
}

func setBoolean(target *bool, value any) error {
	boolean, isBoolean := value.(bool)
	if !isBoolean {
		return errors.New("expected true or false")
	}
	*target = boolean
	return nil
}

func setInteger(target *int, value any) error {
	switch number := value.(type) {
	case int:
		*target = number
	case int64:
		*target = int(number)
	case uint64:
		*target = int(min(number, 1<<31))
	case float64:
		if number != float64(int(number)) {
			return errors.New("expected a whole number, such as 2")
		}
		*target = int(number)
	default:
		return errors.New("expected a number, such as 2")
	}
	return nil
}

func setDuration(target *time.Duration, value any) error {
	text, isString := value.(string)
	if !isString {
		return errors.New("expected a duration with its unit, such as 2s or 500ms")
	}
	duration, err := time.ParseDuration(text)
	if err != nil || duration <= 0 {
		return errors.New("expected a duration of more than 0 with its unit, such as 2s or 500ms")
	}
	*target = duration
	return nil
}
