package auth

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// outcome is all that Verify says of a token.
type outcome struct {
	Refused Reason // accepted: not at all
	User    string
	Admin   bool
	Expires int64 // nanoseconds
	Hash    [16]byte
	Token   string
	Key     thumbprint
	Lists   [2][]string
}

func outcomeOf(identity *Identity, err error) outcome {
	var refusal *Refusal
	if errors.As(err, &refusal) {
		return outcome{Refused: refusal.Reason}
	}
	return outcome{
		Refused: accepted, User: identity.User, Admin: identity.Admin, Expires: identity.Expires.UnixNano(),
		Hash: identity.TokenHash, Token: identity.token, Key: identity.key,
		Lists: [2][]string{identity.Channels.List(), identity.Publish.List()},
	}
}

// usualHeader is the header of the tokens in these tests.
const usualHeader = `{"alg":"HS256","typ":"JWT"}`

// bothWays verifies a token by the library alone and by a verifier that knows the usual header.
func bothWays(t *testing.T, options Options, token string) (library, usual outcome) {
	t.Helper()
	options.HMACSecret = testSecret
	verifier := newVerifier(t, options)
	library = outcomeOf(verifier.Verify(t.Context(), token))
	verifier = newVerifier(t, options)
	prime := options
	prime.Audience, prime.Issuer, prime.RequireExpiry, prime.UserClaim = "", "", false, "sub"
	primer := newVerifier(t, prime)
	if _, err := primer.Verify(t.Context(), segments(usualHeader, `{"sub":"a"}`, signHS256(testSecret))); err != nil {
		t.Fatal(err)
	}
	verifier.headers.table.Store(primer.headers.table.Load())
	return library, outcomeOf(verifier.Verify(t.Context(), token))
}

// usualForms are claims in forms that one of the two ways might take for others.
var usualForms = map[string]string{
	"space everywhere":        " {\t\"sub\" : \"a\" ,\n\"channels\" : [ \"x:1\" , \"y:*\" ] , \"admin\" : true }\r\n",
	"escape in a name":        `{"s\u0075b":"a"}`,
	"escaped name behind":     `{"sub":"a","su\u0062":"b"}`,
	"escaped admin":           `{"sub":"a","adm\u0069n":true}`,
	"names beyond ASCII":      `{"sub":"a","süb":"b"}`,
	"a name that is no UTF-8": "{\"sub\":\"a\",\"s\xffb\":\"b\"}",
	"a user that is no UTF-8": "{\"sub\":\"a\xff\"}",
	"a user beyond ASCII":     `{"sub":"Ωmega"}`,
	"escape in the user":      `{"sub":"\u0061"}`,
	"half a surrogate":        `{"sub":"\ud800"}`,
	"sub twice":               `{"sub":"a","sub":"b"}`,
	"sub twice, last null":    `{"sub":"a","sub":null}`,
	"admin in another case":   `{"sub":"a","ADMIN":true}`,
	"admin twice":             `{"sub":"a","admin":true,"admin":false}`,
	"quote in a pattern":      `{"sub":"a","channels":["x\":1"]}`,
	"escaped pattern":         `{"sub":"a","channels":["x\u003a1"]}`,
	"list in a list":          `{"sub":"a","channels":[["x:1"]]}`,
	"empty lists":             `{"sub":"a","channels":[],"publish":[ ]}`,
	"everything nested":       `{"realm":{"roles":["x",{"sub":"b"}]},"sub":"a"}`,
	"comma at the end":        `{"sub":"a",}`,
	"comma in a list's end":   `{"sub":"a","channels":["x:1",]}`,
	"two commas in a list":    `{"sub":"a","channels":["x:1",,"x:2"]}`,
	"control in a string":     "{\"sub\":\"a\x01\"}",
	"zero before a number":    `{"sub":"a","exp":01900000000}`,
	"number with a plus":      `{"sub":"a","exp":+1900000000}`,
	"text behind":             `{"sub":"a"} x`,
	"empty object":            `{}`,
	"empty name":              `{"":"b","sub":"a"}`,
	"byte order mark":         "\ufeff{\"sub\":\"a\"}",
	"nothing":                 ``,
}

// TestUsualAgrees: the short way says of every token what the library says.
func TestUsualAgrees(t *testing.T) {
	for name, claims := range usualForms {
		t.Run(name, func(t *testing.T) {
			library, usual := bothWays(t, Options{KeepToken: true}, hs256(claims))
			if difference := cmp.Diff(library, usual); difference != "" {
				t.Fatalf("library and short way differ:\n%s", difference)
			}
		})
	}
	for name, test := range claimCases {
		t.Run(name, func(t *testing.T) {
			library, usual := bothWays(t, test.options, hs256(test.claims))
			if difference := cmp.Diff(library, usual); difference != "" {
				t.Fatalf("library and short way differ:\n%s", difference)
			}
		})
	}
}

// TestUsualIsTaken: the second token of an issuer goes the short way, and only a good one opens it.
func TestUsualIsTaken(t *testing.T) {
	verifier := newVerifier(t, Options{HMACSecret: testSecret})
	forged := segments(usualHeader, `{"sub":"a"}`, signHS256([]byte("another secret of 32 bytes or so")))
	_, err := verifier.Verify(t.Context(), forged)
	wantReason(t, err, Signature)
	if verifier.headers.table.Load() != nil {
		t.Fatal("the header of a forged token is remembered")
	}
	good := hs256(`{"sub":"a"}`)
	if identity, refusal := verifier.verifyUsual(t.Context(), good); identity != nil || refusal != nil {
		t.Fatal("a header was known before any token was good")
	}
	if _, err := verifier.Verify(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	if identity, _ := verifier.verifyUsual(t.Context(), hs256(`{"sub":"b"}`)); identity == nil || identity.User != "b" {
		t.Fatal("the second token of an issuer does not go the short way")
	}
	_, err = verifier.Verify(t.Context(), forged)
	wantReason(t, err, Signature)
}

// TestKnownHeadersAreBounded: neither long nor many headers fill the memory.
func TestKnownHeadersAreBounded(t *testing.T) {
	var known knownHeaders
	for number := range 10 * knownHeadersMax {
		known.remember("header "+strconv.Itoa(number), header{})
		if size := len(*known.table.Load()); size > knownHeadersMax {
			t.Fatalf("%d headers are remembered", size)
		}
	}
	known.remember(string(make([]byte, knownHeaderBytesMax+1)), header{})
	if _, found := known.find(string(make([]byte, knownHeaderBytesMax+1))); found {
		t.Fatal("a long header is remembered")
	}
	if _, found := known.find("header " + strconv.Itoa(10*knownHeadersMax-1)); !found {
		t.Fatal("the newest header is not remembered")
	}
}

// verifyAllocationsMax is the identity and its user.
const verifyAllocationsMax = 2

// TestVerifyAllocations holds what a good token of a known issuer costs, which is most of what
// its verification costs beside the signature.
func TestVerifyAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector drops what pools keep")
	}
	verifier := newVerifier(t, Options{HMACSecret: testSecret, Audience: "gate", Issuer: "https://id.example"})
	token := hs256(fmt.Sprintf(`{"sub":"user-12345","iss":"https://id.example","aud":"gate","iat":1,"exp":%d}`, fromNow(600)))
	ctx := context.Background()
	average := testing.AllocsPerRun(1000, func() {
		if _, err := verifier.Verify(ctx, token); err != nil {
			t.Fatal(err)
		}
	})
	if average > verifyAllocationsMax {
		t.Fatalf("a token costs %.1f allocations, want at most %d", average, verifyAllocationsMax)
	}
}

// FuzzVerify: whatever the claims, and whatever becomes of the token on its way, the short way
// says what the library says.
func FuzzVerify(f *testing.F) {
	for _, claims := range usualForms {
		f.Add(claims, uint16(0), byte(0), "sub")
	}
	for _, test := range claimCases {
		f.Add(test.claims, uint16(1), byte(0), "uid")
	}
	f.Add(`{"sub":"a"}`, uint16(80), byte('A'), "sub")
	f.Add(`{"sub":"a"}`, uint16(60), byte('.'), "sub")
	f.Fuzz(func(t *testing.T, claims string, place uint16, with byte, userClaim string) {
		token := []byte(hs256(claims))
		if with != 0 {
			token[int(place)%len(token)] = with
		}
		options := Options{UserClaim: userClaim, KeepToken: true}
		if place%2 == 1 {
			options.Audience, options.Issuer, options.RequireExpiry = "x", "https://i", true
		}
		library, usual := bothWays(t, options, string(token))
		if difference := cmp.Diff(library, usual); difference != "" {
			t.Fatalf("library and short way differ on %q:\n%s", token, difference)
		}
	})
}
