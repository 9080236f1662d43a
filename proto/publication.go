package proto

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Publication is one event that somebody wants to publish.
type Publication struct {
	Channel Channel
	Event   []byte // one JSON value in UTF-8, as it was written
}

// ErrTooManyPublications is, by errors.Is, the error of [ParsePublications] for a list that is too long.
var ErrTooManyPublications = errors.New("too many events")

// The problems of a body that is not what [ParsePublications] reads.
var (
	errPublicationsForm = errors.New(`the body must be {"channel":C,"event":{..}} or an array of these`)
	errNoPublication    = errors.New("the array holds no event")
)

// ParsePublications reads the body of a request to publish: an object {"channel":C,"event":E}, or a
// list of up to most of those. A channel is a name or an object ({"type":..,"id":..,"userId":..}); it may
// be a wildcard. Members that are unknown are ignored.
//
// All of body is judged, in linear time, before anything is returned; an error says what is wrong and
// where. It wraps [ErrBadChannel] or [ErrTooManyPublications] if that is what is wrong. body is only
// read, and nothing of it is referred to.
func ParsePublications(body []byte, most int) ([]Publication, error) {
	if !utf8.Valid(body) {
		return nil, fmt.Errorf("the body is not UTF-8 at byte %d", invalidUTF8(body))
	}
	start := skipSpace(body, 0)
	switch {
	case start == len(body):
		return nil, errPublicationsForm
	case body[start] == '{':
		members := walkObject(body, start)
		one, err := readPublication(&members)
		if broken := wholeBody(&members); broken != nil {
			return nil, broken
		}
		if err != nil {
			return nil, fmt.Errorf("event 0: %w", err)
		}
		return []Publication{one}, nil
	case body[start] == '[':
		return parsePublicationList(body, start, most)
	}
	return nil, errPublicationsForm
}

func parsePublicationList(body []byte, start, most int) ([]Publication, error) {
	var all []Publication
	var err error
	count := 0
	list := walkList(body, start)
	for ; list.next(); count++ {
		if err != nil || count >= most {
			continue // only whether it is JSON, and how many there are
		}
		var one Publication
		members := walkObject(body, list.value.start)
		if one, err = readPublication(&members); err != nil {
			err = fmt.Errorf("event %d: %w", count, err)
		}
		all = append(all, one)
	}
	if broken := wholeBody(&list); broken != nil {
		return nil, broken
	}
	switch {
	case count > most:
		return nil, fmt.Errorf("%w: %d are more than %d; publish fewer at a time", ErrTooManyPublications, count, most)
	case count == 0:
		return nil, errNoPublication
	case err != nil:
		return nil, err
	}
	return all, nil
}

// wholeBody says what is wrong with a body, all of whose value has been walked: it is not JSON, or more
// follows.
func wholeBody(w *walker) error {
	if w.end(); w.problem != problemNone {
		return errors.New("the body is not JSON: " + jsonProblem(w.problem, w.position))
	}
	return nil
}

// readPublication walks one publication to its end.
func readPublication(members *walker) (one Publication, err error) {
	var channel, event []byte
	for members.next() {
		switch value := members.value.of(members.text); members.name() {
		case "channel":
			channel = value
		case "event":
			event = value
		}
	}
	switch {
	case members.problem != problemNone:
		return one, errPublicationsForm
	case channel == nil:
		return one, fmt.Errorf(`%w: "channel" is missing`, ErrBadChannel)
	case event == nil:
		return one, errors.New(`"event" is missing`)
	}
	one.Event = bytes.Clone(event)
	one.Channel, _, err = channelValue(channel)
	return one, err
}
