package proto

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// CommandKind is what a client asks for.
type CommandKind uint8

// The commands; their names in JSON are these words in small letters.
const (
	Subscribe CommandKind = iota + 1
	Unsubscribe
	Ping
	Refresh
	Publish
)

// String is the command's name in JSON.
func (k CommandKind) String() string {
	switch k {
	case Subscribe:
		return "subscribe"
	case Unsubscribe:
		return "unsubscribe"
	case Ping:
		return "ping"
	case Refresh:
		return "refresh"
	case Publish:
		return "publish"
	}
	return "unknown"
}

// RefBytesMax bounds a client's ref, in bytes of raw JSON.
const RefBytesMax = 64

// Command is one message of a client over WebSocket. It owns all that it refers to: nothing of
// it points into the text that it was parsed from.
type Command struct {
	Kind CommandKind
	// Channels are those of Subscribe and Unsubscribe, in the client's order and with its
	// repetitions, wildcards included; the one of Publish, never a wildcard.
	Channels []Channel
	// Since tells from where to replay, for each of Channels by its index: an id, "0" for the
	// beginning, or "" for live only. It is nil where the client gave none. Nothing is promised
	// of its content: see [ParseID].
	Since []string
	// Token is that of Refresh. It is for no log.
	Token string
	// Event is that of Publish: one whole JSON value, not yet judged by size.
	Event []byte
	// Ref is the client's mark, to be repeated in the answer: a JSON string or number as it came,
	// or nil.
	Ref []byte
}

// CommandError says what is wrong with a command; [AppendError] answers it.
type CommandError struct {
	// Code is CodeBadRequest, CodeBadChannel, CodeUnknownCommand or CodeTooManySubscriptions.
	Code string
	// Message says what was wrong and what is right. It repeats at most 64 bytes of a channel's
	// name, escaped, and nothing else of the command.
	Message string
	// Channel is the bad name, not escaped, where it is short enough to be one, else empty.
	Channel string
	// Ref is the command's ref where it had a good one.
	Ref []byte
}

func (e *CommandError) Error() string { return e.Code + ": " + e.Message }

func badCommand(message string) *CommandError {
	return &CommandError{Code: CodeBadRequest, Message: message}
}

// commandFields are the places of a command's members. Of several with one name the last counts,
// as with JSON.parse, for every check and every use.
type commandFields struct {
	typ, channel, channels, since, token, event, ref span
}

// ParseCommand reads one command: an object {"type":..} with the members that its kind needs.
// Members that are unknown are ignored, null is the same as absent (but in "event"). A channel is
// a name or an object ({"type":..,"id":..,"userId":..}) in "channel", or a list of those in
// "channels". No more than maxChannels of them are read (0 or less: no bound).
//
// text is only read, and linear time is spent on it.
func ParseCommand(text []byte, maxChannels int) (Command, *CommandError) {
	fields, failure := readFields(text)
	if failure != nil {
		return Command{}, failure
	}
	var command Command
	if command.Ref, failure = parseRef(fields.ref.of(text)); failure != nil {
		return Command{}, failure
	}
	if failure = command.parse(text, fields, maxChannels); failure != nil {
		failure.Ref = command.Ref
		return Command{}, failure
	}
	return command, nil
}

// readFields judges the whole text and finds the members.
func readFields(text []byte) (fields commandFields, failure *CommandError) {
	if !utf8.Valid(text) {
		return fields, badCommand("a command is UTF-8; it is not at byte " + strconv.Itoa(invalidUTF8(text)))
	}
	w := walkObject(text, 0)
	for w.next() {
		value := w.value
		absent := text[value.start] == 'n'
		if absent {
			value = span{}
		}
		switch w.name() {
		case "type":
			fields.typ = value
		case "channel":
			fields.channel = value
		case "channels":
			fields.channels = value
		case "since":
			fields.since = value
		case "token":
			fields.token = value
		case "event":
			fields.event = w.value
		case "ref":
			fields.ref = value
		}
	}
	if w.end(); w.problem != problemNone {
		return fields, badCommand("a command is one JSON object: " + jsonProblem(w.problem, w.position))
	}
	return fields, nil
}

func (c *Command) parse(text []byte, fields commandFields, maxChannels int) (failure *CommandError) {
	if c.Kind, failure = parseKind(fields.typ.of(text)); failure != nil {
		return failure
	}
	switch c.Kind {
	case Subscribe, Unsubscribe:
		if failure = c.parseChannels(text, fields, maxChannels); failure != nil {
			return failure
		}
		if c.Kind == Subscribe && !fields.since.missing() {
			return c.parseSince(fields.since.of(text), maxChannels)
		}
	case Publish:
		return c.parsePublish(text, fields)
	case Refresh:
		token, ok := stringValue(fields.token.of(text))
		if !ok || token == "" {
			return badCommand(`"token" of refresh must be a string that is not empty`)
		}
		c.Token = strings.Clone(token)
	case Ping:
	}
	return nil
}

func parseKind(raw []byte) (CommandKind, *CommandError) {
	name, ok := stringValue(raw)
	if !ok {
		return 0, badCommand(`"type" must be a string that names a command`)
	}
	for kind := Subscribe; kind <= Publish; kind++ {
		if name == kind.String() {
			return kind, nil
		}
	}
	return 0, &CommandError{
		Code:    CodeUnknownCommand,
		Message: `"type" must be subscribe, unsubscribe, ping, refresh or publish`,
	}
}

// parseRef returns a copy of a good ref.
func parseRef(raw []byte) ([]byte, *CommandError) {
	switch {
	case len(raw) == 0:
		return nil, nil
	case raw[0] != asciiQuoted && raw[0] != '-' && !isDigit(raw[0]):
		return nil, badCommand(`"ref" must be a string or a number`)
	case len(raw) > RefBytesMax:
		return nil, badCommand(`"ref" must not be longer than 64 bytes`)
	}
	return bytes.Clone(raw), nil
}

// parseChannels reads "channel" or "channels", and stops at the first that is one too many.
func (c *Command) parseChannels(text []byte, fields commandFields, maxChannels int) *CommandError {
	switch {
	case fields.channel.missing() && fields.channels.missing():
		return badCommand(`"channel" or "channels" is missing`)
	case !fields.channel.missing() && !fields.channels.missing():
		return badCommand(`"channel" and "channels" exclude each other`)
	case !fields.channel.missing():
		return c.addChannel(fields.channel.of(text), maxChannels)
	}
	w := walkList(text, fields.channels.start)
	for w.next() {
		if failure := c.addChannel(w.value.of(text), maxChannels); failure != nil {
			return failure
		}
	}
	switch {
	case w.problem != problemNone:
		return badCommand(`"channels" must be a list of channels`)
	case len(c.Channels) == 0:
		return badCommand(`"channels" must not be empty`)
	}
	return nil
}

// addChannel reads one channel, a name or an object.
func (c *Command) addChannel(raw []byte, maxChannels int) *CommandError {
	if maxChannels > 0 && len(c.Channels) >= maxChannels {
		return &CommandError{
			Code:    CodeTooManySubscriptions,
			Message: "more channels than the " + strconv.Itoa(maxChannels) + " allowed",
		}
	}
	channel, given, err := channelValue(raw)
	if err != nil {
		return &CommandError{Code: CodeBadChannel, Message: err.Error(), Channel: given}
	}
	c.Channels = append(c.Channels, channel)
	return nil
}

// channelValue reads a channel, a name or an object, raw being good JSON. given is a copy of the name
// if it is one that is not too long. Every error wraps [ErrBadChannel].
func channelValue(raw []byte) (channel Channel, given string, err error) {
	name, ok := stringValue(raw)
	if !ok {
		channel, err = parseChannelObject(raw)
		return channel, "", err
	}
	if len(name) <= ChannelBytesMax {
		name = strings.Clone(name)
		given = name
	}
	channel, err = ParseChannel(name)
	return channel, given, err
}

// errChannelForm says what a channel looks like in JSON.
var errChannelForm = fmt.Errorf(`%w: it must be a string "type:id" or an object {"type":..,"id":..,"userId":..} of strings`, ErrBadChannel)

// parseChannelObject reads {"type":..,"id":..,"userId":..}, raw being good JSON.
func parseChannelObject(raw []byte) (Channel, error) {
	var typ, id, userID string
	w := walkObject(raw, 0)
	for w.next() {
		var target *string
		switch w.name() {
		case "type":
			target = &typ
		case "id":
			target = &id
		case "userId":
			target = &userID
		default:
			continue
		}
		value := w.value.of(raw)
		content, ok := stringValue(value)
		switch {
		case ok && content == "":
			return Channel{}, errChannelForm
		case !ok && value[0] != 'n':
			return Channel{}, errChannelForm
		}
		*target = content
	}
	if w.problem != problemNone {
		return Channel{}, errChannelForm
	}
	return NewChannel(typ, id, userID)
}

// parsePublish reads the one channel and the event.
func (c *Command) parsePublish(text []byte, fields commandFields) *CommandError {
	failure := c.parseChannels(text, fields, 1)
	switch {
	case failure != nil && failure.Code == CodeTooManySubscriptions:
		return badCommand("publish takes one channel at a time")
	case failure != nil:
		return failure
	case c.Channels[0].Wildcard():
		return &CommandError{
			Code: CodeBadChannel, Message: "publish needs one channel, not a wildcard",
			Channel: c.Channels[0].Name(),
		}
	case fields.event.missing():
		return badCommand(`"event" of publish is missing`)
	}
	c.Event = bytes.Clone(fields.event.of(text))
	return nil
}

// sinceBytesMax is how much of a position is kept: one byte more than an id can have, so that a
// longer one is still seen to be none.
const sinceBytesMax = EventIDBytesMax + 1

// parseSince reads one position for all channels, or an object of positions by channel.
func (c *Command) parseSince(raw []byte, maxChannels int) *CommandError {
	if raw[0] != '{' {
		position, ok := sinceValue(raw)
		if !ok {
			return badCommand(`"since" must be an id, or an object of ids by channel`)
		}
		c.Since = make([]string, len(c.Channels))
		for i := range c.Since {
			c.Since[i] = position
		}
		return nil
	}
	positions := make(map[string]string, len(c.Channels))
	w := walkObject(raw, 0)
	for entries := 0; w.next(); entries++ {
		if maxChannels > 0 && entries >= maxChannels {
			return badCommand(`"since" names more channels than the ` + strconv.Itoa(maxChannels) + " allowed")
		}
		position, ok := sinceValue(w.value.of(raw))
		if !ok {
			return badCommand(`"since" must hold ids, which are strings`)
		}
		positions[w.name()] = position
	}
	c.Since = make([]string, len(c.Channels))
	for i, channel := range c.Channels {
		c.Since[i] = positions[channel.name]
	}
	return nil
}

// sinceValue returns a copy of a position: a string, or a number as it is written, or "" for null.
func sinceValue(raw []byte) (string, bool) {
	position, ok := stringValue(raw)
	switch {
	case ok:
	case raw[0] == 'n':
		return "", true
	case raw[0] == '-' || isDigit(raw[0]):
		position = view(raw)
	default:
		return "", false
	}
	return strings.Clone(position[:min(len(position), sinceBytesMax)]), true
}
