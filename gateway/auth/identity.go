package auth

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
	"unicode"
	"unicode/utf8"
)

// UserBytesMax is the length that a user's id may have.
const UserBytesMax = 256

// Identity is who a stream belongs to and what its token grants. It is immutable once made,
// shared by pointer and safe for concurrent use; every stream of one request or refresh may keep
// the same one.
type Identity struct {
	// User is the user's id, 1 to [UserBytesMax] bytes of UTF-8 without control characters;
	// empty if Anonymous.
	User string
	// Channels is what the claim "channels" grants: consulted where a namespace's access is token.
	Channels Patterns
	// Publish is what the claim "publish" grants.
	Publish Patterns
	// Admin is the claim "admin".
	Admin bool
	// Anonymous is true where no token was given.
	Anonymous bool
	// Expires is when the stream must close: the token's exp, or, where that had passed already
	// and the skew let the token in, the end of the skew. Zero: never.
	Expires time.Time
	// TokenHash stands for the token in the keys of caches: the first 16 bytes of its SHA-256;
	// zero without a token.
	TokenHash [16]byte

	// token is kept only under [Options.KeepToken], for webhooks that are to receive it.
	token string
	// key is the thumbprint of the key that verified the token; zero without a token.
	key thumbprint
}

var anonymous = &Identity{Anonymous: true}

// Anonymous is the identity of whoever gave no token. It is the same one for all.
func Anonymous() *Identity { return anonymous }

// Named is the identity of a user whose name is believed without proof, as a gateway without
// authentication believes ?userId=. An empty user is [Anonymous]. The error is a [*Refusal] with
// the code bad_request.
func Named(user string) (*Identity, error) {
	if user == "" {
		return anonymous, nil
	}
	if err := checkUser(user); err != nil {
		return nil, &Refusal{Reason: Credentials, message: "userId: " + err.Error()}
	}
	return &Identity{User: user}, nil
}

// Token gives the token that made this identity, or "" unless [Options.KeepToken] was set. It
// exists for webhooks that are to receive it; it must not be logged.
func (id *Identity) Token() string { return id.token }

// Format prints the user and hides the rest, whatever the verb, so that no token leaves by %+v.
func (id Identity) Format(state fmt.State, _ rune) {
	if id.Anonymous {
		_, _ = fmt.Fprint(state, "anonymous")
		return
	}
	_, _ = fmt.Fprintf(state, "user %q", id.User)
}

// LogValue logs the user.
func (id *Identity) LogValue() slog.Value {
	if id == nil || id.Anonymous {
		return slog.StringValue("anonymous")
	}
	return slog.StringValue(id.User)
}

// checkUser says what keeps user from being a user's id. The user's text is not in the error.
func checkUser(user string) error {
	if user == "" {
		return errors.New("the user's id is empty")
	}
	if len(user) > UserBytesMax {
		return fmt.Errorf("the user's id has %d bytes; at most %d are allowed", len(user), UserBytesMax)
	}
	if !utf8.ValidString(user) {
		return errors.New("the user's id is not valid UTF-8")
	}
	for _, character := range user {
		if unicode.IsControl(character) {
			return errors.New("the user's id holds a control character")
		}
	}
	return nil
}
