package hostile

import (
	"os"
	"strings"
	"testing"
)

// limits are the limits that the list of abuse cases names by letters, and the settings that they
// are. What is no setting stands in the second table of the page, by the words given here.
var limits = map[string]string{
	"H": "`--max-header-bytes`", "Ht": "`--handshake-timeout`", "F, M": "`--max-message-bytes`", "S": "`--max-subscriptions`",
	"Q": "`--max-queue-bytes`", "Q, by age": "`--max-queue-age`", "no progress": "`--progress-timeout`", "C": "`--max-connections`",
	"Cip": "`--max-connections-per-address`", "streams of a user": "`--max-connections-per-user`", "commands": "`--commands-per-second`",
	"events": "`--max-event-bytes`", "replays": "`--max-replay-bytes`", "D": "`--drain-timeout`",
	"Hn": "header lines of a request", "connections that are no streams": "connections that are not streams",
	"descriptors kept back": "descriptors that clients never get", "requests in flight": "requests being worked on", "an unfinished message": "a WebSocket message that was begun",
	"silence": "silence of a WebSocket", "tokens": "length of a token", "lines of the log": "lines of the log that wait",
}

// TestDefaults: every limit that is named has a row on the page of settings, and a default that is on.
func TestDefaults(t *testing.T) {
	text, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for letter, words := range limits {
		found := false
		for line := range strings.Lines(string(text)) {
			cells := strings.Split(line, "|")
			if len(cells) < 4 || !strings.HasPrefix(strings.TrimSpace(cells[1]), words) {
				continue
			}
			found = true
			value := strings.Trim(cells[2], " `")
			if strings.HasPrefix(words, "`--") {
				value = strings.Trim(cells[3], " `")
			}
			if value == "" || value == "none" || strings.HasPrefix(value, "0") {
				t.Errorf("%s (%s) is off by default: %q", letter, words, value)
			}
		}
		if !found {
			t.Errorf("%s (%s) has no row in docs/configuration.md", letter, words)
		}
	}
}
