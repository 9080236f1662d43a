package proto

import "strconv"

// What the gateway says, as JSON: put it into a frame with [AppendFrame] or into an event with
// [AppendSSE]. All of these append one object on one line, with every string escaped, and keep
// nothing of their arguments. ref is the client's own mark as raw JSON ([Command.Ref]); where it
// is empty there is no "ref".

// AppendConnected appends the greeting. An anonymous user, userID "", is null.
func AppendConnected(dst []byte, clientID, userID string, channels []Channel) []byte {
	size := len(`{"type":"connected","clientId":"","userId":"","channels":[]}`) + len(clientID) + len(userID)
	for _, channel := range channels {
		size += len(channel.name) + len(`"",`)
	}
	dst = append(grow(dst, size), `{"type":"connected","clientId":`...)
	dst = appendQuoted(dst, clientID)
	dst = append(dst, `,"userId":`...)
	if userID == "" {
		dst = append(dst, "null"...)
	} else {
		dst = appendQuoted(dst, userID)
	}
	dst = append(dst, `,"channels":[`...)
	for i, channel := range channels {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendQuoted(dst, channel.name)
	}
	return append(dst, ']', '}')
}

// AppendSubscribed appends that every event on channel published from here on arrives.
func AppendSubscribed(dst []byte, channel string, ref []byte) []byte {
	return appendAnswer(dst, `{"type":"subscribed","channel":`, channel, ref)
}

// AppendUnsubscribed appends that no event on channel arrives from here on.
func AppendUnsubscribed(dst []byte, channel string, ref []byte) []byte {
	return appendAnswer(dst, `{"type":"unsubscribed","channel":`, channel, ref)
}

// appendAnswer appends an object of a head, a channel and a ref.
func appendAnswer(dst []byte, head, channel string, ref []byte) []byte {
	dst = append(dst, head...)
	dst = appendQuoted(dst, channel)
	return appendRef(dst, ref)
}

// appendRef closes an object, with a ref in it where there is one.
func appendRef(dst, ref []byte) []byte {
	if len(ref) > 0 {
		dst = append(dst, `,"ref":`...)
		dst = append(dst, ref...)
	}
	return append(dst, '}')
}

// AppendPublished appends that what the client published was taken. ids name it; an empty one, of
// an id that is not known yet, becomes null. distributed is false where only the streams of this
// process got it.
func AppendPublished(dst []byte, ids []string, distributed bool, ref []byte) []byte {
	dst = append(dst, `{"type":"published","ids":[`...)
	for i, id := range ids {
		if i > 0 {
			dst = append(dst, ',')
		}
		if id == "" {
			dst = append(dst, "null"...)
			continue
		}
		dst = appendQuoted(dst, id)
	}
	dst = append(dst, `],"distributed":`...)
	dst = strconv.AppendBool(dst, distributed)
	return appendRef(dst, ref)
}

// AppendPong appends the answer to the command ping.
func AppendPong(dst, ref []byte) []byte {
	return appendRef(append(dst, `{"type":"pong"`...), ref)
}

// AppendRefreshed appends the answer to a refresh whose token is believed.
func AppendRefreshed(dst, ref []byte) []byte {
	return appendRef(append(dst, `{"type":"refresh"`...), ref)
}

// AppendError appends what was wrong with a command. channel may be empty.
func AppendError(dst []byte, code, message, channel string, ref []byte) []byte {
	dst = append(dst, `{"type":"error","code":`...)
	dst = appendQuoted(dst, code)
	dst = append(dst, `,"message":`...)
	dst = appendQuoted(dst, message)
	if channel != "" {
		dst = append(dst, `,"channel":`...)
		dst = appendQuoted(dst, channel)
	}
	return appendRef(dst, ref)
}

// AppendGap appends that events on channel may be missing after the event with the id after,
// which is left out where it is empty or longer than [EventIDBytesMax]: an echo of what a client
// claimed has a bound too.
func AppendGap(dst []byte, channel, after string, reason GapReason) []byte {
	dst = append(dst, `{"type":"gap","channel":`...)
	dst = appendQuoted(dst, channel)
	if after != "" && len(after) <= EventIDBytesMax {
		dst = append(dst, `,"after":`...)
		dst = appendQuoted(dst, after)
	}
	dst = append(dst, `,"reason":"`...)
	dst = append(dst, reason.String()...)
	return append(dst, '"', '}')
}

// AppendReplayed appends that the count events before it were a replay of channel's past.
func AppendReplayed(dst []byte, channel string, count int) []byte {
	dst = append(dst, `{"type":"replayed","channel":`...)
	dst = appendQuoted(dst, channel)
	dst = append(dst, `,"count":`...)
	dst = strconv.AppendInt(dst, int64(count), 10)
	return append(dst, '}')
}

// AppendDeleted appends that channel has no value any more.
func AppendDeleted(dst []byte, channel string) []byte {
	return appendAnswer(dst, `{"type":"deleted","channel":`, channel, nil)
}

// AppendBatch appends several events of one channel in one; each payload is whole JSON.
func AppendBatch(dst []byte, channel string, payloads [][]byte) []byte {
	dst = append(dst, `{"type":"batch","channel":`...)
	dst = appendQuoted(dst, channel)
	dst = append(dst, `,"events":[`...)
	for i, payload := range payloads {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, payload...)
	}
	return append(dst, ']', '}')
}

// AppendComplete appends the end of a finished stream. data is whole JSON, or empty for none.
func AppendComplete(dst, data []byte) []byte {
	dst = append(dst, `{"type":"complete"`...)
	if len(data) > 0 {
		dst = append(dst, `,"data":`...)
		dst = append(dst, data...)
	}
	return append(dst, '}')
}

// AppendServerError appends the data of the event server_error, for streams that have no other
// way to be told.
func AppendServerError(dst []byte, code, message string) []byte {
	dst = append(dst, `{"code":`...)
	dst = appendQuoted(dst, code)
	dst = append(dst, `,"message":`...)
	dst = appendQuoted(dst, message)
	return append(dst, '}')
}
