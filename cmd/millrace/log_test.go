package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/settings"
)

// TestLogTellsDurationsWithTheirUnit: for people and for machines, whose lines are one JSON object each.
func TestLogTellsDurationsWithTheirUnit(t *testing.T) {
	for _, format := range []string{"text", "json", "auto"} {
		t.Run(format, func(t *testing.T) {
			var output strings.Builder
			logger := newLogger(&output, false, &settings.LogSettings{LogLevel: "info", LogFormat: format})
			logger.Info("drained", "took", 1500*time.Millisecond, "cut", 3)
			logger.Debug("not to be heard")
			line := output.String()
			if format == "text" {
				if !strings.Contains(line, "drained took=1.5s cut=3") {
					t.Errorf("it wrote %q", line)
				}
				return
			}
			var said struct {
				Level, Msg, Took string
				Cut              int
			}
			if err := json.Unmarshal([]byte(line), &said); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			if said.Level != "INFO" || said.Msg != "drained" || said.Took != "1.5s" || said.Cut != 3 {
				t.Errorf("it wrote %q", line)
			}
		})
	}
}
