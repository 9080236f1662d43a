package main

import (
	"io"
	"log/slog"
	"time"

	"github.com/lmittmann/tint"

	"github.com/millrace/millrace/internal/settings"
)

// newLogger makes the logger that the settings ask for. Text is for people: short times, colours
// on a terminal only. JSON is for machines. Both write durations with their unit.
func newLogger(output io.Writer, terminal bool, configured *settings.LogSettings) *slog.Logger {
	// The settings were checked: the name is one of slog's.
	var level slog.Level
	if err := level.UnmarshalText([]byte(configured.LogLevel)); err != nil {
		level = slog.LevelInfo
	}
	if configured.LogFormat == "text" || configured.LogFormat == "auto" && terminal {
		return slog.New(tint.NewTextHandler(output, &tint.Options{
			Level: level, TimeFormat: time.TimeOnly, NoColor: !terminal,
		}))
	}
	return slog.New(slog.NewJSONHandler(output, &slog.HandlerOptions{Level: level, ReplaceAttr: withUnit}))
}

// withUnit writes a duration as the settings do, 1.5s: slog's JSON has a number of nanoseconds, of which
// nothing in the line says the unit.
func withUnit(_ []string, attribute slog.Attr) slog.Attr {
	if attribute.Value.Kind() == slog.KindDuration {
		attribute.Value = slog.StringValue(attribute.Value.Duration().String())
	}
	return attribute
}
