package auth

import (
	"bytes"
	"encoding/json"
	"math"
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

// claimSet is the top level of the claims. encoding/json matches the fields of a struct without
// regard to case, by which "Admin" would grant what "admin" grants; a map's keys are exact. Of a
// name that occurs twice the last counts (RFC 7519 4).
type claimSet map[string]json.RawMessage

// has reports whether the claim is there and not null.
func (c claimSet) has(name string) bool {
	raw, present := c[name]
	return present && !isNull(raw)
}

func isNull(raw []byte) bool { return bytes.Equal(raw, []byte("null")) }

// identify judges claims whose signature held. The identity is nil where they are refused.
func (v *Verifier) identify(text []byte) (*Identity, Reason) {
	var claims claimSet
	if err := json.Unmarshal(text, &claims); err != nil || claims == nil {
		return nil, Malformed
	}
	identity := &Identity{}
	if reason, good := v.checkTimes(claims, identity); !good {
		return nil, reason
	}
	if v.options.Audience != "" && !audienceHolds(claims["aud"], v.options.Audience) {
		return nil, Audience
	}
	if v.options.Issuer != "" {
		if issuer, good := decodeString(claims["iss"]); !good || issuer != v.options.Issuer {
			return nil, Issuer
		}
	}
	user, good := decodeUser(claims[v.options.UserClaim])
	if !good {
		return nil, Subject
	}
	identity.User = user
	if !decodeGrants(claims, identity) {
		return nil, Claims
	}
	return identity, 0
}

// checkTimes judges exp and nbf (RFC 7519 4.1.4, 4.1.5) and says when the stream has to end.
// A claim that is present and can't be read, null included, is refused and never "no limit".
func (v *Verifier) checkTimes(claims claimSet, identity *Identity) (Reason, bool) {
	now := v.now()
	if raw, present := claims["exp"]; present {
		expires, good := decodeDate(raw)
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
	if raw, present := claims["nbf"]; present {
		notBefore, good := decodeDate(raw)
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
func decodeDate(raw json.RawMessage) (time.Time, bool) {
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
func decodeString(raw json.RawMessage) (string, bool) {
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
func audienceHolds(raw json.RawMessage, want string) bool {
	if single, isString := decodeString(raw); isString {
		return single == want
	}
	var several []string
	if len(raw) == 0 || json.Unmarshal(raw, &several) != nil {
		return false
	}
	for _, audience := range several {
		if audience == want {
			return true
		}
	}
	return false
}

// decodeUser reads the user's id: a string, or a whole number of up to 18 digits as databases
// give them, which becomes its decimal digits.
func decodeUser(raw json.RawMessage) (string, bool) {
	if user, isString := decodeString(raw); isString {
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
func decodeGrants(claims claimSet, identity *Identity) bool {
	var good bool
	if identity.Channels, good = decodePatterns(claims, "channels"); !good {
		return false
	}
	if identity.Publish, good = decodePatterns(claims, "publish"); !good {
		return false
	}
	if claims.has("admin") {
		return json.Unmarshal(claims["admin"], &identity.Admin) == nil
	}
	return true
}

func decodePatterns(claims claimSet, name string) (Patterns, bool) {
	if !claims.has(name) {
		return Patterns{}, true
	}
	var list []string
	if err := json.Unmarshal(claims[name], &list); err != nil {
		return Patterns{}, false
	}
	patterns, err := ParsePatterns(list)
	return patterns, err == nil
}
