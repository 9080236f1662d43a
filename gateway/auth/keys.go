package auth

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"strings"
	"sync"

	"github.com/golang-jwt/jwt/v5"
)

// The four algorithms that are understood, as RFC 7518 3.1 and RFC 8037 3.1 name them.
const (
	algorithmHS256 = "HS256"
	algorithmRS256 = "RS256"
	algorithmES256 = "ES256"
	algorithmEdDSA = "EdDSA"
)

// Bounds of keys.
const (
	// SecretBytesMin is the least length of an HMAC secret (RFC 7518 3.2: as long as the hash).
	SecretBytesMin = 32
	// rsaBitsMin is RFC 7518 3.3; rsaBitsMax bounds what one bad token may cost.
	rsaBitsMin = 2048
	rsaBitsMax = 8192
	// fileKeysMax is the number of keys in a PEM file: each of one algorithm is tried for a token.
	fileKeysMax = 8
)

// thumbprint identifies a key by its material.
type thumbprint [16]byte

// key is one verification key with the only algorithm that it may be used for. Immutable.
type key struct {
	algorithm string
	// material is what the algorithm's signing method takes.
	material any
	// macs keeps [keyedMAC]s of an HS256 secret; nil for other algorithms.
	macs *sync.Pool
	// id is the kid of a key from a key set, "" elsewhere.
	id    string
	thumb thumbprint
}

// newSecretKey checks an HMAC secret. Its thumbprint is a constant: there is one secret in the
// life of a Verifier, and no hash of it should stand in every identity.
func newSecretKey(secret []byte) (*key, error) {
	if len(secret) < SecretBytesMin {
		return nil, fmt.Errorf("the HMAC secret has %d bytes; HS256 needs at least %d (openssl rand -hex 32 makes one)", len(secret), SecretBytesMin)
	}
	if strings.HasPrefix(string(secret), "-----BEGIN") {
		return nil, errors.New("the HMAC secret is a PEM file; whoever knows a public key could sign with it: set it as the public key instead")
	}
	secret = bytes.Clone(secret)
	return &key{
		algorithm: algorithmHS256, material: secret, thumb: hashThumbprint([]byte(algorithmHS256)),
		macs: &sync.Pool{New: func() any { return &keyedMAC{Hash: hmac.New(sha256.New, secret)} }},
	}, nil
}

// keyedMAC is an HMAC that need not be keyed again, and room for its result.
type keyedMAC struct {
	hash.Hash
	sum [sha256.Size]byte
}

// made reports whether the key made signature over signed, by method, which is the one of its
// algorithm.
func (k *key) made(method jwt.SigningMethod, signed, signature []byte) bool {
	if k.macs == nil {
		return method.Verify(string(signed), signature, k.material) == nil
	}
	mac := k.macs.Get().(*keyedMAC) // as jwt.SigningMethodHS256 does it
	defer k.macs.Put(mac)
	mac.Reset()
	mac.Write(signed)
	return hmac.Equal(signature, mac.Sum(mac.sum[:0]))
}

// signerOf is the candidate that made the signature, nil if none did.
func signerOf(candidates []*key, method jwt.SigningMethod, signed, signature []byte) *key {
	for _, candidate := range candidates {
		if candidate.made(method, signed, signature) {
			return candidate
		}
	}
	return nil
}

// newPublicKey pins the algorithm by the type of the key.
func newPublicKey(public any) (*key, error) {
	made := &key{material: public}
	switch typed := public.(type) {
	case *rsa.PublicKey:
		if bits := typed.N.BitLen(); bits < rsaBitsMin || bits > rsaBitsMax {
			return nil, fmt.Errorf("an RSA key of %d bits; RS256 needs %d to %d", bits, rsaBitsMin, rsaBitsMax)
		}
		made.algorithm = algorithmRS256
	case *ecdsa.PublicKey:
		if typed.Curve != elliptic.P256() {
			return nil, fmt.Errorf("an EC key on curve %s; ES256 needs P-256", typed.Curve.Params().Name)
		}
		made.algorithm = algorithmES256
	case ed25519.PublicKey:
		made.algorithm = algorithmEdDSA
	default:
		return nil, fmt.Errorf("a key of type %T; RSA, EC P-256 and Ed25519 are understood", public)
	}
	encoded, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("encode the public key: %w", err)
	}
	made.thumb = hashThumbprint(encoded)
	return made, nil
}

func hashThumbprint(encoded []byte) (thumb thumbprint) {
	sum := sha256.Sum256(encoded)
	copy(thumb[:], sum[:])
	return thumb
}

// parsePEM reads 1 to [fileKeysMax] public keys; several let a key be replaced by the next.
func parsePEM(text []byte) ([]*key, error) {
	var keys []*key
	for rest := text; ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			if trailing := strings.TrimSpace(string(rest)); trailing != "" {
				return nil, fmt.Errorf("public key file: %d bytes that are no PEM block after %d keys; it must hold -----BEGIN PUBLIC KEY----- blocks and nothing else", len(trailing), len(keys))
			}
			break
		}
		if len(keys) == fileKeysMax {
			return nil, fmt.Errorf("public key file: more than %d keys", fileKeysMax)
		}
		parsed, err := parseBlock(block)
		if err != nil {
			return nil, fmt.Errorf("public key file, block %d: %w", len(keys)+1, err)
		}
		keys = append(keys, parsed)
	}
	if len(keys) == 0 {
		return nil, errors.New("public key file: empty; it must hold a -----BEGIN PUBLIC KEY----- block")
	}
	return keys, nil
}

func parseBlock(block *pem.Block) (*key, error) {
	var public any
	var err error
	switch {
	case block.Type == "PUBLIC KEY":
		public, err = x509.ParsePKIXPublicKey(block.Bytes)
	case block.Type == "RSA PUBLIC KEY":
		public, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return nil, errors.New("a private key, which verifying does not need; take its public half (openssl pkey -in FILE -pubout)")
	case block.Type == "CERTIFICATE":
		return nil, errors.New("a certificate; take the key out of it (openssl x509 -in FILE -pubkey -noout)")
	default:
		return nil, fmt.Errorf("a %q block; a PUBLIC KEY is needed", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("not a public key: %w", err)
	}
	return newPublicKey(public)
}
