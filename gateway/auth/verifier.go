package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// TokenBytesMax is the length that a token may have; a longer one is refused unread.
	TokenBytesMax = 8 << 10
	// Skew is how far the clocks of who signs and who verifies may differ: a token is good until
	// exp + Skew and from nbf - Skew on.
	Skew = 30 * time.Second
	// keyIDBytesMax bounds the kid of a token.
	keyIDBytesMax = 256
)

// Options says whose tokens are believed. At least one of HMACSecret, PublicKeyPEM and JWKSURL
// must be set. HMACSecret may stand beside either of the others, as when one moves from a secret
// to keys: it alone answers for HS256, and they never do. PublicKeyPEM and JWKSURL together are
// refused, because both would answer for the same algorithms.
type Options struct {
	// HMACSecret verifies HS256; at least [SecretBytesMin] bytes, all of which count, a line end
	// included. It is copied.
	HMACSecret []byte
	// PublicKeyPEM verifies RS256 (2048 to 8192 bits), ES256 (P-256) or EdDSA (Ed25519), by the
	// type of the key. Up to eight PUBLIC KEY blocks, for rotation. The kid of a token is ignored.
	PublicKeyPEM []byte
	// JWKSURL is the http or https address of a key set (RFC 7517). It is fetched in the
	// background; while it is out of reach, tokens whose key is not yet known are refused.
	JWKSURL string
	// Audience, where set, must be aud or one of its values. Where it is empty aud is ignored.
	Audience string
	// Issuer, where set, must be iss, byte for byte.
	Issuer string
	// UserClaim names the claim that is the user's id, a string or a whole number. Default "sub".
	UserClaim string
	// RequireExpiry refuses tokens without exp, which are otherwise good for ever.
	RequireExpiry bool
	// KeepToken keeps the token in the identity, for webhooks that are to receive it.
	KeepToken bool

	// Transport fetches the key set; nil is a transport of the package's own.
	Transport http.RoundTripper
	// Logger is told of the key set's failures and recoveries. Nil: slog.Default().
	Logger *slog.Logger
	// Now is the wall clock that exp and nbf are judged by. Nil: time.Now.
	Now func() time.Time
}

// Configured reports whether any method of authentication is set.
func (o *Options) Configured() bool {
	return len(o.HMACSecret) > 0 || len(o.PublicKeyPEM) > 0 || o.JWKSURL != ""
}

// Verifier verifies tokens. It is safe for concurrent use.
type Verifier struct {
	parser  *jwt.Parser
	options Options
	now     func() time.Time

	// static holds the secret's and the file's keys by algorithm; never written after New.
	static map[string][]*key
	// headers are those of good tokens; see verifyUsual.
	headers knownHeaders
	// remote is the key set at JWKSURL, or nil. It answers for every algorithm but HS256.
	remote *remoteKeys
}

// New makes a Verifier. The error says which setting is wrong and what would be right. A key set
// is fetched by one goroutine that ends with ctx; New does not wait for it.
func New(ctx context.Context, options Options) (*Verifier, error) {
	if !options.Configured() {
		return nil, errors.New("authentication: no method is set; set an HMAC secret, a public key or the URL of a key set")
	}
	if len(options.PublicKeyPEM) > 0 && options.JWKSURL != "" {
		return nil, errors.New("authentication: a public key file and a key set URL would answer for the same algorithms; set one of them")
	}
	verifier := &Verifier{options: options, now: options.Now, static: map[string][]*key{}}
	if verifier.now == nil {
		verifier.now = time.Now
	}
	if verifier.options.UserClaim == "" {
		verifier.options.UserClaim = "sub"
	}
	if err := verifier.addStaticKeys(); err != nil {
		return nil, err
	}
	if options.JWKSURL != "" {
		remote, err := newRemoteKeys(ctx, options.JWKSURL, options.Transport, options.Logger, defaultPace)
		if err != nil {
			return nil, err
		}
		verifier.remote = remote
	}
	verifier.parser = jwt.NewParser(
		jwt.WithStrictDecoding(),      // one token, one spelling: TokenHash is a cache key
		jwt.WithoutClaimsValidation(), // the claims are kept raw and judged after the signature
	)
	return verifier, nil
}

func (v *Verifier) addStaticKeys() error {
	if len(v.options.HMACSecret) > 0 {
		secret, err := newSecretKey(v.options.HMACSecret)
		if err != nil {
			return err
		}
		v.static[secret.algorithm] = []*key{secret}
		v.options.HMACSecret = nil
	}
	if len(v.options.PublicKeyPEM) > 0 {
		keys, err := parsePEM(v.options.PublicKeyPEM)
		if err != nil {
			return err
		}
		for _, parsed := range keys {
			v.static[parsed.algorithm] = append(v.static[parsed.algorithm], parsed)
		}
		v.options.PublicKeyPEM = nil
	}
	return nil
}

// Verify says whose token it is. Every error is a [*Refusal]. It may wait for a key set to be
// fetched, at most until ctx ends or five seconds have passed, so it is never called on a loop.
// Nothing that the token's claims say is believed, or allocated for, before its signature holds.
func (v *Verifier) Verify(ctx context.Context, token string) (*Identity, error) {
	if len(token) > TokenBytesMax {
		return nil, refuseToken(TooLong)
	}
	if !isCompact(token) {
		return nil, refuseToken(Malformed)
	}
	identity, refusal := v.verifyUsual(ctx, token)
	if identity == nil && refusal == nil {
		identity, refusal = v.verifyAny(ctx, token)
	}
	if refusal != nil {
		return nil, refusal
	}
	if v.options.KeepToken {
		identity.token = strings.Clone(token)
	}
	return identity, nil
}

// verifyAny verifies a token of whatever form, by the library, and remembers the header of one
// that is good.
func (v *Verifier) verifyAny(ctx context.Context, token string) (*Identity, *Refusal) {
	var raw rawClaims
	var signer *key
	parsed, err := v.parser.ParseWithClaims(token, &raw, func(unverified *jwt.Token) (any, error) {
		candidates, refusal := v.candidatesFor(ctx, unverified)
		if refusal != nil {
			return nil, refusal
		}
		signed := unverified.Raw[:strings.LastIndexByte(unverified.Raw, '.')]
		if signer = pick(candidates, unverified.Method, []byte(signed), unverified.Signature); signer == nil {
			return nil, refuseToken(Signature)
		}
		return signer.material, nil
	})
	if err != nil {
		return nil, refuseToken(reasonOf(err))
	}
	read, good := readClaims(raw.text, v.options.UserClaim)
	if !good {
		return nil, refuseToken(Malformed)
	}
	identity, reason := v.identify(&read)
	if identity == nil {
		return nil, refuseToken(reason)
	}
	identity.key = signer.thumb
	identity.TokenHash = hashToken([]byte(token))
	keyID, _ := headerKeyID(parsed.Header) // candidatesFor has found it good
	v.headers.remember(token[:strings.IndexByte(token, '.')], header{method: parsed.Method, keyID: keyID})
	return identity, nil
}

func hashToken(token []byte) (hash [16]byte) {
	sum := sha256.Sum256(token)
	copy(hash[:], sum[:])
	return hash
}

// isCompact reports whether token has the form of RFC 7515 3.1: three parts of base64url. (Five
// are a JWE, which is no use here.) Go's decoder would pass over line ends, and a token would have
// more than one spelling.
func isCompact(token string) bool {
	dots := 0
	for position := range len(token) {
		switch b := token[position]; {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', b == '-', b == '_':
		case b == '.':
			dots++
		default:
			return false
		}
	}
	return dots == 2
}

// Trusted reports whether the key that verified an identity's token is still among the keys, so
// that a sweep can close the streams of a key that was rotated out; the identity is given by its
// grants (see [Identity.AppendGrants]). While the key set is out of reach, the keys last seen
// count. It allocates nothing and may be called on a loop.
func (v *Verifier) Trusted(grants string) bool {
	thumb := grantsThumbprint(grants)
	for _, keys := range v.static {
		for _, candidate := range keys {
			if candidate.thumb == thumb {
				return true
			}
		}
	}
	return v.remote != nil && v.remote.holds(thumb)
}

// Ready reports whether every key that is known to be needed is here: false while a key set at a URL
// was never fetched.
func (v *Verifier) Ready() bool { return v.remote == nil || v.remote.current.Load() != nil }

// candidatesFor finds the keys that may verify the token, by its header alone. Of the header only
// alg and kid are looked at: jku, jwk, x5u and x5c (RFC 7515 4.1) are what an attacker writes.
func (v *Verifier) candidatesFor(ctx context.Context, unverified *jwt.Token) ([]*key, *Refusal) {
	if _, critical := unverified.Header["crit"]; critical {
		return nil, refuseToken(Algorithm)
	}
	keyID, reason := headerKeyID(unverified.Header)
	if reason != nil {
		return nil, reason
	}
	return v.candidates(ctx, keyID, unverified.Method.Alg())
}

// candidates finds the keys for a header's kid and alg.
func (v *Verifier) candidates(ctx context.Context, keyID, algorithm string) ([]*key, *Refusal) {
	if keys := v.static[algorithm]; len(keys) > 0 {
		return keys, nil
	}
	switch algorithm {
	case algorithmRS256, algorithmES256, algorithmEdDSA:
		if v.remote != nil {
			return v.remote.find(ctx, keyID, algorithm)
		}
	}
	return nil, refuseToken(Algorithm)
}

func headerKeyID(header map[string]any) (string, *Refusal) {
	value, present := header["kid"]
	if !present {
		return "", nil
	}
	keyID, isString := value.(string)
	if !isString || keyID == "" || len(keyID) > keyIDBytesMax {
		return "", refuseToken(Malformed)
	}
	return keyID, nil
}

// pick is the candidate that made the signature, nil if none did. A single one is not tried: the
// parser does that.
func pick(candidates []*key, method jwt.SigningMethod, signed, signature []byte) *key {
	if len(candidates) == 1 {
		return candidates[0]
	}
	return signerOf(candidates, method, signed, signature)
}

// reasonOf sorts the parser's errors.
func reasonOf(err error) Reason {
	var refusal *Refusal
	switch {
	case errors.As(err, &refusal):
		return refusal.Reason
	case errors.Is(err, jwt.ErrTokenMalformed):
		return Malformed
	case errors.Is(err, jwt.ErrTokenUnverifiable): // an alg that is absent, or that nobody knows
		return Algorithm
	default:
		return Signature
	}
}
