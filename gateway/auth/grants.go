package auth

import "encoding/binary"

// grantsFlags say what stands in grants behind them, in the order of the flags.
type grantsFlags uint8

const (
	grantsAdmin      grantsFlags = 1 << iota
	grantsEverything             // every channel
	grantsPublishAll             // publish on every channel
	grantsKey                    // the thumbprint of a key
	grantsChannels               // patterns
	grantsPublish                // patterns
	grantsToken                  // a token's hash, and the token or ""
)

// AppendGrants appends what a stream has to remember of its identity beside the user's id and the
// time of its end: what the claims grant and which key said so. Tokens that grant the same give the
// same bytes, so that they can be kept once for many streams. Only withToken do they hold what is
// each token's own: its hash and, where [Options.KeepToken] kept it, the token, which webhooks ask
// by. [Recall] reads them.
func (id *Identity) AppendGrants(to []byte, withToken bool) []byte {
	at := len(to)
	to = append(to, 0)
	var flags grantsFlags
	mark := func(flag grantsFlags, holds bool) bool {
		if holds {
			flags |= flag
		}
		return holds
	}
	mark(grantsAdmin, id.Admin)
	mark(grantsEverything, id.Channels.everything)
	mark(grantsPublishAll, id.Publish.everything)
	if mark(grantsKey, id.key != thumbprint{}) {
		to = append(to, id.key[:]...)
	}
	if mark(grantsChannels, len(id.Channels.sorted) > 0) {
		to = appendTexts(to, id.Channels.sorted)
	}
	if mark(grantsPublish, len(id.Publish.sorted) > 0) {
		to = appendTexts(to, id.Publish.sorted)
	}
	if mark(grantsToken, withToken && id.TokenHash != [16]byte{}) {
		to = append(to, id.TokenHash[:]...)
		to = appendText(to, id.token)
	}
	to[at] = byte(flags)
	return to
}

// Recall makes the identity of user again from what [Identity.AppendGrants] gave, but for Expires,
// which stays zero. The identity keeps grants, and grants that nobody made so are a panic.
func Recall(user, grants string) *Identity {
	id := &Identity{User: user}
	flags := grantsFlags(grants[0])
	rest := grants[1:]
	has := func(flag grantsFlags) bool { return flags&flag != 0 }
	id.Admin = has(grantsAdmin)
	id.Channels.everything, id.Publish.everything = has(grantsEverything), has(grantsPublishAll)
	if id.key = grantsThumbprint(grants); has(grantsKey) {
		rest = rest[len(id.key):]
	}
	if has(grantsChannels) {
		id.Channels.sorted, rest = cutTexts(rest)
	}
	if has(grantsPublish) {
		id.Publish.sorted, rest = cutTexts(rest)
	}
	if has(grantsToken) {
		rest = rest[copy(id.TokenHash[:], rest):]
		id.token, _ = cutText(rest)
	}
	return id
}

// grantsThumbprint is that of the key which verified the token; zero without one.
func grantsThumbprint(grants string) (thumb thumbprint) {
	if grantsFlags(grants[0])&grantsKey != 0 {
		copy(thumb[:], grants[1:])
	}
	return thumb
}

func appendTexts(to []byte, texts []string) []byte {
	to = binary.AppendUvarint(to, uint64(len(texts)))
	for _, text := range texts {
		to = appendText(to, text)
	}
	return to
}

func appendText(to []byte, text string) []byte {
	to = binary.AppendUvarint(to, uint64(len(text)))
	return append(to, text...)
}

func cutTexts(from string) (texts []string, rest string) {
	count, rest := cutNumber(from)
	texts = make([]string, count)
	for i := range texts {
		texts[i], rest = cutText(rest)
	}
	return texts, rest
}

func cutText(from string) (text, rest string) {
	length, rest := cutNumber(from)
	return rest[:length], rest[length:]
}

// cutNumber reads a number as binary.Uvarint does, from a string.
func cutNumber(from string) (number int, rest string) {
	for shift := 0; ; shift += 7 {
		last := from[0] < 0x80
		number |= int(from[0]&0x7f) << shift
		if from = from[1:]; last {
			return number, from
		}
	}
}

// AreGrants reports whether text is what [Identity.AppendGrants] makes, so that [Recall] takes it: for
// grants that another process kept.
func AreGrants(text string) bool {
	if text == "" {
		return false
	}
	flags, rest := grantsFlags(text[0]), text[1:]
	good := flags < grantsToken<<1
	skip := func(length int) {
		if good = good && length <= len(rest); good {
			rest = rest[length:]
		}
	}
	number := func() int {
		value, size := binary.Uvarint([]byte(rest[:min(len(rest), binary.MaxVarintLen64)]))
		good = good && size > 0 && value <= uint64(len(rest))
		skip(size)
		return int(value)
	}
	if flags&grantsKey != 0 {
		skip(len(thumbprint{}))
	}
	for _, patterns := range [...]grantsFlags{grantsChannels, grantsPublish} {
		if flags&patterns == 0 {
			continue
		}
		for count := number(); good && count > 0; count-- {
			skip(number())
		}
	}
	if flags&grantsToken != 0 {
		skip(len(Identity{}.TokenHash))
		skip(number())
	}
	return good && rest == ""
}
