package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/millrace/millrace/proto"
)

// printed is one event as tail shows it.
type printed struct {
	channel, id, event string
	data               []byte
}

// Widths of the columns: they grow with what is printed, up to these.
const (
	channelWidthMax = 48
	eventWidthMax   = 24
)

// Escape sequences (ECMA-48, 8.3.117) for what a person should tell apart at a glance.
const (
	colourOff    = "\x1b[0m"
	colourDim    = "\x1b[2m"
	colourRed    = "\x1b[31m"
	colourYellow = "\x1b[33m"
	colourCyan   = "\x1b[36m"
)

// printer writes events to standard output, and what happens to the stream to standard error.
// One goroutine uses it.
type printer struct {
	output, notes            io.Writer
	json, colour             bool
	channelWidth, eventWidth int
	now                      func() time.Time
}

func newPrinter(world *process, asJSON bool, channels []proto.Channel) *printer {
	made := &printer{
		output: world.stdout, notes: world.stderr, json: asJSON, now: time.Now,
		colour: isTerminal(world.stdout) && world.variable("NO_COLOR") == "", eventWidth: len("message"),
	}
	for _, channel := range channels {
		made.channelWidth = max(made.channelWidth, min(len(channel.Name()), channelWidthMax))
	}
	return made
}

// note says something about the stream itself.
func (p *printer) note(format string, arguments ...any) {
	fmt.Fprintf(p.notes, "millrace: "+format+"\n", arguments...)
}

// print writes one event.
func (p *printer) print(event printed) error {
	if p.json {
		return p.printJSON(event)
	}
	var line bytes.Buffer
	p.paint(&line, colourDim, p.now().Format("15:04:05.000"))
	line.WriteString("  ")
	p.channelWidth = column(p.channelWidth, event.channel, channelWidthMax)
	p.eventWidth = column(p.eventWidth, event.event, eventWidthMax)
	p.paint(&line, colourCyan, pad(printable(event.channel), p.channelWidth))
	line.WriteString("  ")
	colour := ""
	switch event.event {
	case "gap", "deleted":
		colour = colourYellow
	case "server_error":
		colour = colourRed
	}
	p.paint(&line, colour, pad(printable(event.event), p.eventWidth))
	line.WriteString("  ")
	p.paint(&line, colour, printable(oneLine(event.data)))
	line.WriteByte('\n')
	_, err := p.output.Write(line.Bytes())
	return err
}

// printJSON writes the event's data as the JSON value that it is, or as a text if it is none.
func (p *printer) printJSON(event printed) error {
	data := json.RawMessage(event.data)
	if !json.Valid(data) {
		text, err := json.Marshal(string(event.data))
		if err != nil {
			return fmt.Errorf("print an event: %w", err)
		}
		data = text
	}
	line, err := json.Marshal(struct {
		Channel string          `json:"channel"`
		ID      string          `json:"id"`
		Event   string          `json:"event"`
		Data    json.RawMessage `json:"data"`
	}{event.channel, event.id, event.event, data})
	if err != nil {
		return fmt.Errorf("print an event: %w", err)
	}
	_, err = p.output.Write(append(line, '\n'))
	return err
}

// paint writes text in a colour, where there are colours.
func (p *printer) paint(line *bytes.Buffer, colour, text string) {
	if !p.colour || colour == "" {
		line.WriteString(text)
		return
	}
	line.WriteString(colour + text + colourOff)
}

// column gives the width of a column that has to hold text too.
func column(width int, text string, most int) int {
	return max(width, min(utf8.RuneCountInString(text), most))
}

// pad fills text up with spaces.
func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}

// oneLine writes JSON without line breaks; what is no JSON stays as it is.
func oneLine(data []byte) string {
	var compact bytes.Buffer
	if json.Compact(&compact, data) != nil {
		return string(data)
	}
	return compact.String()
}
