package auth

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// numericDateMax is the last second of the year 9999 (RFC 3339's last year). A later date is a
// mistake, milliseconds taken for seconds most likely, and not a token that is good for ever.
const numericDateMax = 253402300799

// rawClaims takes the claims from the parser as they are, so that nothing in them costs anything
// before the signature holds.
type rawClaims struct {
	jwt.RegisteredClaims // only for the interface; never filled
	text                 []byte
}

// UnmarshalJSON keeps the text.
func (r *rawClaims) UnmarshalJSON(text []byte) error {
	r.text = append(r.text[:0], text...)
	return nil
}

// claims are the claims that count, each as raw JSON; nil where it is absent. Of a name that occurs
// twice the last counts (RFC 7519 4), and names are matched exactly: encoding/json would match the
// fields of a struct without regard to case, by which "Admin" would grant what "admin" grants.
type claims struct {
	expires, notBefore, audience, issuer, user, channels, publish, admin []byte
}

// set keeps the value of a claim that counts.
func (c *claims) set(name string, value []byte, userClaim string) {
	switch name {
	case "exp":
		c.expires = value
	case "nbf":
		c.notBefore = value
	case "aud":
		c.audience = value
	case "iss":
		c.issuer = value
	case "channels":
		c.channels = value
	case "publish":
		c.publish = value
	case "admin":
		c.admin = value
	}
	if name == userClaim { // which may be one of the above
		c.user = value
	}
}

// readClaims reads a text that the parser found to be JSON. good is false unless it is an object.
func readClaims(text []byte, userClaim string) (read claims, good bool) {
	var all map[string]json.RawMessage // whose names are exact
	if err := json.Unmarshal(text, &all); err != nil || all == nil {
		return claims{}, false
	}
	for name, value := range all {
		read.set(name, value, userClaim)
	}
	return read, true
}

func isNull(raw []byte) bool { return bytes.Equal(raw, []byte("null")) }

// grants reports whether a claim is there and not null.
func grants(raw []byte) bool { return raw != nil && !isNull(raw) }

// identify judges claims whose signature held, and keeps nothing of them. The identity is nil
// where they are refused.
func (v *Verifier) identify(read *claims) (*Identity, Reason) {
	identity := &Identity{}
	if reason, good := v.checkTimes(read, identity); !good {
		return nil, reason
	}
	if v.options.Audience != "" && !audienceHolds(read.audience, v.options.Audience) {
		return nil, Audience
	}
	if v.options.Issuer != "" && !isString(read.issuer, v.options.Issuer) {
		return nil, Issuer
	}
	user, good := decodeUser(read.user)
	if !good {
		return nil, Subject
	}
	identity.User = user
	if !decodeGrants(read, identity) {
		return nil, Claims
	}
	return identity, 0
}

// checkTimes judges exp and nbf (RFC 7519 4.1.4, 4.1.5) and says when the stream has to end.
// A claim that is present and can't be read, null included, is refused and never "no limit".
func (v *Verifier) checkTimes(read *claims, identity *Identity) (Reason, bool) {
	now := v.now()
	if read.expires != nil {
		expires, good := decodeDate(read.expires)
		if !good {
			return Claims, false
		}
		if !now.Before(expires.Add(Skew)) {
			return Expired, false
		}
		if identity.Expires = expires; !now.Before(expires) {
			identity.Expires = expires.Add(Skew)
		}
	} else if v.options.RequireExpiry {
		return Claims, false
	}
	if read.notBefore != nil {
		notBefore, good := decodeDate(read.notBefore)
		if !good {
			return Claims, false
		}
		if now.Add(Skew).Before(notBefore) {
			return NotYetValid, false
		}
	}
	return 0, true
}

// decodeDate reads a NumericDate (RFC 7519 2): a JSON number of seconds, possibly with a fraction.
func decodeDate(raw []byte) (time.Time, bool) {
	if len(raw) == 0 || (raw[0] != '-' && (raw[0] < '0' || raw[0] > '9')) {
		return time.Time{}, false
	}
	seconds, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || seconds < 0 || seconds > numericDateMax {
		return time.Time{}, false
	}
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)), true
}

// decodeString reads a JSON string.
func decodeString(raw []byte) (string, bool) {
	if len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	if plain := raw[1 : len(raw)-1]; isPlain(plain) {
		return string(plain), true
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return "", false
	}
	return text, true
}

// isString reports whether raw is the JSON string want.
func isString(raw []byte, want string) bool {
	if len(raw) > 1 && string(raw[1:len(raw)-1]) == want && raw[0] == '"' && isPlain(raw[1:len(raw)-1]) {
		return true
	}
	text, good := decodeString(raw)
	return good && text == want
}

// isPlain reports whether a JSON string's inside stands for itself: ASCII without escapes.
func isPlain(inside []byte) bool {
	for _, b := range inside {
		if b < ' ' || b > '~' || b == '\\' {
			return false
		}
	}
	return true
}

// audienceHolds reports whether aud (RFC 7519 4.1.3: a string or an array of strings) names want.
func audienceHolds(raw []byte, want string) bool {
	if len(raw) > 0 && raw[0] == '"' {
		return isString(raw, want)
	}
	several, isList := decodeStrings(raw)
	return isList && slices.Contains(several, want)
}

// decodeStrings reads an array of strings, raw being JSON or empty.
func decodeStrings(raw []byte) (list []string, isList bool) {
	if list, plain := plainStrings(raw); plain {
		return list, true
	}
	if len(raw) == 0 || json.Unmarshal(raw, &list) != nil {
		return nil, false
	}
	return list, true
}

// plainStrings reads an array of strings that stand for themselves, which is most of them, and
// gives up on any other. raw is JSON or empty.
func plainStrings(raw []byte) (list []string, plain bool) {
	if len(raw) == 0 || raw[0] != '[' {
		return nil, false
	}
	for rest := raw[1:]; ; {
		rest = bytes.TrimLeft(rest, ", \t\r\n")
		if rest[0] == ']' {
			return list, true
		}
		if rest[0] != '"' {
			return nil, false
		}
		end := 1 + bytes.IndexByte(rest[1:], '"')
		if !isPlain(rest[1:end]) {
			return nil, false // a quote behind a backslash is no end
		}
		list = append(list, string(rest[1:end]))
		rest = rest[end+1:]
	}
}

// decodeUser reads the user's id: a string, or a whole number of up to 18 digits as databases
// give them, which becomes its decimal digits.
func decodeUser(raw []byte) (string, bool) {
	if user, good := decodeString(raw); good {
		return user, checkUser(user) == nil
	}
	if len(raw) == 0 || len(raw) > 18 {
		return "", false
	}
	for _, digit := range raw {
		if digit < '0' || digit > '9' {
			return "", false
		}
	}
	return string(raw), true
}

// decodeGrants reads channels, publish and admin. Absent or null grants nothing.
func decodeGrants(read *claims, identity *Identity) bool {
	var good bool
	if identity.Channels, good = decodePatterns(read.channels); !good {
		return false
	}
	if identity.Publish, good = decodePatterns(read.publish); !good {
		return false
	}
	if grants(read.admin) {
		return json.Unmarshal(read.admin, &identity.Admin) == nil
	}
	return true
}

func decodePatterns(raw []byte) (Patterns, bool) {
	if !grants(raw) {
		return Patterns{}, true
	}
	list, isList := decodeStrings(raw)
	if !isList {
		return Patterns{}, false
	}
	patterns, err := ParsePatterns(list)
	return patterns, err == nil
}
