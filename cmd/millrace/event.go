package main

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/millrace/millrace/internal/settings"
	"github.com/millrace/millrace/proto"
)

// checkPayload makes sure that a payload is an event that a gateway will hand on, so that a
// mistake is told here and not in a counter of the gateway.
func checkPayload(channel proto.Channel, payload []byte, limit settings.Size) error {
	if limit > 0 && len(payload) > int(limit) {
		return fmt.Errorf("the event has %d bytes; max-event-bytes allows %d", len(payload), int(limit))
	}
	if _, err := proto.NewEvent(channel, "", payload); err != nil {
		return fmt.Errorf("not an event: %w", err)
	}
	return nil
}

// parseChannels parses the names of a command line.
func parseChannels(names []string) ([]proto.Channel, error) {
	channels := make([]proto.Channel, 0, len(names))
	for _, name := range names {
		channel, err := proto.ParseChannel(name)
		if err != nil {
			return nil, usageError{err}
		}
		channels = append(channels, channel)
	}
	return channels, nil
}

// printable writes control characters as \u escapes, so that nothing that came over a wire
// commands the terminal. The C1 controls and the marks that turn the direction of text count too.
func printable(text string) string {
	if strings.IndexFunc(text, isCommand) < 0 {
		return text
	}
	var safe strings.Builder
	for _, character := range text {
		if isCommand(character) {
			fmt.Fprintf(&safe, `\u%04x`, character)
			continue
		}
		safe.WriteRune(character)
	}
	return safe.String()
}

func isCommand(character rune) bool {
	return unicode.IsControl(character) || unicode.Is(unicode.Bidi_Control, character) || character == unicode.ReplacementChar
}
