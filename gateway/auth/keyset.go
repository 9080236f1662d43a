package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/MicahParks/jwkset"
)

// Bounds of a key set.
const (
	keySetBytesMax = 512 << 10
	keySetKeysMax  = 100
	// anonymousKeysMax is how many keys of one algorithm are tried for a token without a kid.
	anonymousKeysMax = 4
)

// keySet is what one fetch brought. Immutable.
type keySet struct {
	byID        map[string][]*key
	byAlgorithm map[string][]*key
	thumbs      map[thumbprint]struct{}
	// skipped counts the keys that are no use here: for encrypting, symmetric, of other algorithms.
	skipped int
}

// lookup finds the keys for a token's kid and algorithm. known tells of a kid whose key is pinned
// to another algorithm, for which nothing need be fetched.
func (s *keySet) lookup(keyID, algorithm string) (keys []*key, known bool) {
	if s == nil {
		return nil, false
	}
	if keyID == "" {
		keys = s.byAlgorithm[algorithm]
		return keys[:min(len(keys), anonymousKeysMax)], len(keys) > 0
	}
	for _, candidate := range s.byID[keyID] {
		if candidate.algorithm == algorithm {
			keys = append(keys, candidate)
		}
	}
	return keys[:min(len(keys), anonymousKeysMax)], len(s.byID[keyID]) > 0
}

// parseKeySet reads a JWK Set (RFC 7517 5). Keys that are no use here are left out, as the RFC
// asks; a text that is no key set is an error.
func parseKeySet(text []byte) (*keySet, error) {
	var document struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &document); err != nil {
		return nil, errors.New("the answer is not a JSON object with an array \"keys\"")
	}
	if document.Keys == nil {
		return nil, errors.New("the answer has no array \"keys\"")
	}
	if len(document.Keys) > keySetKeysMax {
		return nil, fmt.Errorf("the answer has %d keys; at most %d are taken", len(document.Keys), keySetKeysMax)
	}
	set := &keySet{byID: map[string][]*key{}, byAlgorithm: map[string][]*key{}, thumbs: map[thumbprint]struct{}{}}
	for _, raw := range document.Keys {
		parsed, err := parseJWK(raw)
		if err != nil {
			set.skipped++
			continue
		}
		if parsed.id != "" {
			set.byID[parsed.id] = append(set.byID[parsed.id], parsed)
		}
		set.byAlgorithm[parsed.algorithm] = append(set.byAlgorithm[parsed.algorithm], parsed)
		set.thumbs[parsed.thumb] = struct{}{}
	}
	return set, nil
}

// parseJWK takes a public key for verifying and pins its algorithm: by its type and curve, which
// its own "alg", where it has one, must agree with. Private halves and certificates are not read,
// and nothing that they point at (x5u) is fetched.
func parseJWK(raw json.RawMessage) (*key, error) {
	var wire jwkset.JWKMarshal
	if err := json.Unmarshal(raw, &wire); err != nil {
		return nil, errors.New("not a JWK")
	}
	if wire.KTY == jwkset.KtyOct {
		return nil, errors.New("a symmetric key that a URL gives away is no secret")
	}
	if wire.USE != "" && wire.USE != jwkset.UseSig { // RFC 7517 4.2
		return nil, errors.New("not for signatures")
	}
	if wire.KEYOPS != nil && !slices.Contains(wire.KEYOPS, jwkset.KeyOpsVerify) { // RFC 7517 4.3
		return nil, errors.New("not for verifying")
	}
	if len(wire.KID) > keyIDBytesMax {
		return nil, errors.New("kid too long")
	}
	public := jwkset.JWKMarshal{KTY: wire.KTY, CRV: wire.CRV, X: wire.X, Y: wire.Y, N: wire.N, E: wire.E}
	parsed, err := jwkset.NewJWKFromMarshal(public, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil {
		return nil, fmt.Errorf("not a public key: %w", err)
	}
	made, err := newPublicKey(parsed.Key())
	if err != nil {
		return nil, err
	}
	if wire.ALG != "" && wire.ALG.String() != made.algorithm { // RFC 7517 4.4
		return nil, errors.New("for another algorithm")
	}
	made.id = wire.KID
	return made, nil
}
