package broker

import "strings"

// wireName is the name of a subscription in Redis. A Pattern's own last "*" stays one; all else
// in it is meant literally.
func (r *Redis) wireName(kind Kind, channel string) string {
	if kind != Pattern {
		return r.prefix + channel
	}
	return r.pattern + escapeGlob(strings.TrimSuffix(channel, "*")) + "*"
}

// ownName takes what wireName added away. It reports false for a name that is not ours.
func (r *Redis) ownName(kind Kind, wire string) (string, bool) {
	if kind != Pattern {
		return strings.CutPrefix(wire, r.prefix)
	}
	rest, ok := strings.CutPrefix(wire, r.pattern)
	if !ok || !strings.HasSuffix(rest, "*") {
		return "", false
	}
	return unescapeGlob(strings.TrimSuffix(rest, "*")) + "*", true
}

// globSpecial are the bytes that mean something in a pattern of Redis.
const globSpecial = `*?[]\^`

func escapeGlob(text string) string {
	if !strings.ContainsAny(text, globSpecial) {
		return text
	}
	var escaped strings.Builder
	for index := range len(text) {
		if strings.IndexByte(globSpecial, text[index]) >= 0 {
			escaped.WriteByte('\\')
		}
		escaped.WriteByte(text[index])
	}
	return escaped.String()
}

func unescapeGlob(text string) string {
	if !strings.Contains(text, `\`) {
		return text
	}
	var plain strings.Builder
	for index := 0; index < len(text); index++ {
		if text[index] == '\\' && index+1 < len(text) {
			index++
		}
		plain.WriteByte(text[index])
	}
	return plain.String()
}
