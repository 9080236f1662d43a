package auth

import (
	"context"
	"encoding/base64"
	"maps"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/golang-jwt/jwt/v5"

	"github.com/millrace/millrace/proto"
)

// Bounds of what is remembered of headers.
const (
	knownHeadersMax     = 64
	knownHeaderBytesMax = 512
)

// header is what counts of a token's header.
type header struct {
	method jwt.SigningMethod
	keyID  string
}

// knownHeaders remembers the first parts of tokens that were good. An issuer writes the same one
// into all of its tokens, so it need not be decoded and parsed again for each. Only who holds a
// key can put one in. The zero value is empty and ready.
type knownHeaders struct {
	table atomic.Pointer[map[string]header] // never written once it is there
	mutex sync.Mutex                        // held to replace the table
}

func (k *knownHeaders) find(part string) (known header, found bool) {
	if table := k.table.Load(); table != nil {
		known, found = (*table)[part]
	}
	return known, found
}

// remember adds a header. A full table is forgotten: what is in use comes back at once.
func (k *knownHeaders) remember(part string, known header) {
	if len(part) > knownHeaderBytesMax {
		return
	}
	k.mutex.Lock()
	defer k.mutex.Unlock()
	next := make(map[string]header, 1)
	if table := k.table.Load(); table != nil && len(*table) < knownHeadersMax {
		maps.Copy(next, *table)
	}
	next[strings.Clone(part)] = known
	k.table.Store(&next)
}

// scratch is what decoding a token takes.
type scratch struct{ token, claims, signature []byte }

var scratches = sync.Pool{New: func() any { return &scratch{} }}

// strictBase64 takes one spelling only, as the parser does.
var strictBase64 = base64.RawURLEncoding.Strict()

// verifyUsual verifies a compact token whose header is known, whose parts are base64url and whose
// claims are an object with names that need no decoding: what all tokens of an issuer are. It
// gives neither identity nor refusal for any other, which the library then judges: a token is
// never refused here for its form. What it does by itself is what the library does with such a
// token, at a sixth of the cost (docs/decisions/0012); FuzzVerify holds the two together.
func (v *Verifier) verifyUsual(ctx context.Context, token string) (*Identity, *Refusal) {
	headerEnd := strings.IndexByte(token, '.')
	known, found := v.headers.find(token[:headerEnd])
	if !found {
		return nil, nil
	}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	s.token = append(s.token[:0], token...)
	signedEnd := strings.LastIndexByte(token, '.')
	var err error
	if s.claims, err = strictBase64.AppendDecode(s.claims[:0], s.token[headerEnd+1:signedEnd]); err != nil {
		return nil, nil
	}
	if s.signature, err = strictBase64.AppendDecode(s.signature[:0], s.token[signedEnd+1:]); err != nil {
		return nil, nil
	}
	read, usual := scanClaims(s.claims, v.options.UserClaim)
	if !usual {
		return nil, nil
	}
	candidates, refusal := v.candidates(ctx, known.keyID, known.method.Alg())
	if refusal != nil {
		return nil, refusal
	}
	signer := signerOf(candidates, known.method, s.token[:signedEnd], s.signature)
	if signer == nil {
		return nil, refuseToken(Signature)
	}
	identity, reason := v.identify(&read)
	if identity == nil {
		return nil, refuseToken(reason)
	}
	identity.key = signer.thumb
	identity.TokenHash = hashToken(s.token)
	return identity, nil
}

// scanClaims finds the claims that count where text is a JSON object whose names are plain. They
// refer to text.
func scanClaims(text []byte, userClaim string) (read claims, usual bool) {
	usual = true
	isObject := proto.Members(text, func(name, value []byte) {
		if usual = usual && isPlain(name); usual {
			read.set(string(name), value, userClaim)
		}
	})
	return read, usual && isObject
}
