package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

var (
	testSecret = []byte("0123456789abcdef0123456789abcdef")
	testNow    = time.Unix(1_800_000_000, 0)
)

// testKeys makes one key of each kind, once: RSA is slow to make.
var testKeys = sync.OnceValue(func() (keys struct {
	rsa     *rsa.PrivateKey
	ec      *ecdsa.PrivateKey
	ed25519 ed25519.PrivateKey
},
) {
	keys.rsa = must(rsa.GenerateKey(rand.Reader, 2048))
	keys.ec = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	_, keys.ed25519, _ = ed25519.GenerateKey(rand.Reader)
	return keys
})

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func publicPEM(public any) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(public))})
}

// segments builds a token by hand: the header and the claims are JSON as given, sign makes the
// signature of what stands before it.
func segments(header, claims string, sign func(signed string) []byte) string {
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(header)) + "." + encode([]byte(claims))
	return signed + "." + encode(sign(signed))
}

func signHS256(secret []byte) func(string) []byte {
	return func(signed string) []byte { return must(jwt.SigningMethodHS256.Sign(signed, secret)) }
}

func signWith(method jwt.SigningMethod, private any) func(string) []byte {
	return func(signed string) []byte { return must(method.Sign(signed, private)) }
}

// hs256 is a good token but for what claims say.
func hs256(claims string) string {
	return segments(`{"alg":"HS256","typ":"JWT"}`, claims, signHS256(testSecret))
}

func newVerifier(t testing.TB, options Options) *Verifier {
	t.Helper()
	if options.Now == nil {
		options.Now = func() time.Time { return testNow }
	}
	verifier, err := New(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	return verifier
}

// wantReason checks that err is a refusal for reason whose text gives nothing away.
func wantReason(t *testing.T, err error, reason Reason) {
	t.Helper()
	var refusal *Refusal
	if !errors.As(err, &refusal) {
		t.Fatalf("error is %v, want a refusal for %s", err, reason)
	}
	if refusal.Reason != reason {
		t.Fatalf("reason is %s, want %s", refusal.Reason, reason)
	}
	if refusal.Error() != "unauthorized" || refusal.Code() != "unauthorized" || refusal.Status() != 401 {
		t.Fatalf("the client would read %d %s %q, which tells more than unauthorized", refusal.Status(), refusal.Code(), refusal.Error())
	}
}

func TestNewSaysWhatIsWrong(t *testing.T) {
	keys := testKeys()
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(keys.ec))})
	small := must(rsa.GenerateKey(rand.Reader, 1024))
	p384 := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	for name, test := range map[string]struct {
		options Options
		want    string
	}{
		"no method":             {Options{}, "no method is set"},
		"secret too short":      {Options{HMACSecret: []byte("short")}, "has 5 bytes; HS256 needs at least 32"},
		"secret is a PEM":       {Options{HMACSecret: publicPEM(keys.ec.Public())}, "is a PEM file"},
		"file and URL":          {Options{PublicKeyPEM: publicPEM(keys.ec.Public()), JWKSURL: "https://a.example/k"}, "set one of them"},
		"private key":           {Options{PublicKeyPEM: private}, "a private key"},
		"certificate":           {Options{PublicKeyPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}})}, "-pubkey"},
		"other block":           {Options{PublicKeyPEM: pem.EncodeToMemory(&pem.Block{Type: "DH PARAMETERS", Bytes: []byte{1}})}, `"DH PARAMETERS" block`},
		"no PEM":                {Options{PublicKeyPEM: []byte("ssh-rsa AAAA")}, "no PEM block"},
		"text behind the key":   {Options{PublicKeyPEM: append(publicPEM(keys.ec.Public()), "rest"...)}, "after 1 keys"},
		"empty file":            {Options{PublicKeyPEM: []byte("\n")}, "empty"},
		"broken block":          {Options{PublicKeyPEM: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte{1}})}, "block 1: not a public key"},
		"RSA too small":         {Options{PublicKeyPEM: publicPEM(small.Public())}, "1024 bits"},
		"wrong curve":           {Options{PublicKeyPEM: publicPEM(p384.Public())}, "curve P-384"},
		"too many keys":         {Options{PublicKeyPEM: slices.Repeat(publicPEM(keys.ec.Public()), 9)}, "more than 8"},
		"URL without scheme":    {Options{JWKSURL: "a.example/keys"}, "https://HOST/PATH"},
		"URL of another scheme": {Options{JWKSURL: "file:///etc/passwd"}, "https://HOST/PATH"},
		"URL with a password":   {Options{JWKSURL: "https://u:hunter2@a.example/"}, "take it out"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(t.Context(), test.options)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error is %v, want one with %q", err, test.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Fatalf("the error holds a password: %v", err)
			}
		})
	}
}

func TestVerifyEachAlgorithm(t *testing.T) {
	keys := testKeys()
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&keys.rsa.PublicKey)})
	for name, test := range map[string]struct {
		options Options
		method  jwt.SigningMethod
		private any
	}{
		"HS256":            {Options{HMACSecret: testSecret}, jwt.SigningMethodHS256, testSecret},
		"RS256":            {Options{PublicKeyPEM: publicPEM(keys.rsa.Public())}, jwt.SigningMethodRS256, keys.rsa},
		"RS256 PKCS1":      {Options{PublicKeyPEM: pkcs1}, jwt.SigningMethodRS256, keys.rsa},
		"ES256":            {Options{PublicKeyPEM: publicPEM(keys.ec.Public())}, jwt.SigningMethodES256, keys.ec},
		"EdDSA":            {Options{PublicKeyPEM: publicPEM(keys.ed25519.Public())}, jwt.SigningMethodEdDSA, keys.ed25519},
		"secret and file":  {Options{HMACSecret: testSecret, PublicKeyPEM: publicPEM(keys.ec.Public())}, jwt.SigningMethodHS256, testSecret},
		"second of a file": {Options{PublicKeyPEM: append(publicPEM(must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)).Public()), publicPEM(keys.ec.Public())...)}, jwt.SigningMethodES256, keys.ec},
	} {
		t.Run(name, func(t *testing.T) {
			verifier := newVerifier(t, test.options)
			token := segments(`{"alg":"`+test.method.Alg()+`","kid":"../../etc/passwd","jku":"http://127.0.0.1:1/","x5u":"http://127.0.0.1:1/"}`,
				`{"sub":"ada"}`, signWith(test.method, test.private))
			identity, err := verifier.Verify(t.Context(), token)
			if err != nil {
				t.Fatal(err)
			}
			if identity.User != "ada" || identity.Anonymous || !identity.Expires.IsZero() || identity.TokenHash == [16]byte{} {
				t.Fatalf("identity is wrong: %+v", identity)
			}
			if !verifier.Trusted(grantsOf(identity)) {
				t.Fatal("the key that just verified the token is not trusted")
			}
			if verifier.Trusted(grantsOf(&Identity{key: thumbprint{1}})) {
				t.Fatal("a key that nobody has is trusted")
			}
		})
	}
}

// TestVerifyRefusesAlgorithms: the token's header must not choose the verifier.
func TestVerifyRefusesAlgorithms(t *testing.T) {
	keys := testKeys()
	claims := `{"sub":"ada"}`
	rsaPEM, ecPEM := publicPEM(keys.rsa.Public()), publicPEM(keys.ec.Public())
	rsaDER := must(x509.MarshalPKIXPublicKey(keys.rsa.Public()))
	nothing := func(string) []byte { return nil }
	hmacOf := func(method *jwt.SigningMethodHMAC, secret []byte) func(string) []byte {
		return signWith(method, secret)
	}
	for name, test := range map[string]struct {
		options Options
		token   string
		want    Reason
	}{
		"none":                       {Options{HMACSecret: testSecret}, segments(`{"alg":"none"}`, claims, nothing), Algorithm},
		"NONE":                       {Options{HMACSecret: testSecret}, segments(`{"alg":"NONE"}`, claims, nothing), Algorithm},
		"missing":                    {Options{HMACSecret: testSecret}, segments(`{"typ":"JWT"}`, claims, nothing), Algorithm},
		"a number":                   {Options{HMACSecret: testSecret}, segments(`{"alg":256}`, claims, nothing), Algorithm},
		"lower case":                 {Options{HMACSecret: testSecret}, segments(`{"alg":"hs256"}`, claims, signHS256(testSecret)), Algorithm},
		"HS512":                      {Options{HMACSecret: testSecret}, segments(`{"alg":"HS512"}`, claims, hmacOf(jwt.SigningMethodHS512, testSecret)), Algorithm},
		"HS256 by RSA PEM":           {Options{PublicKeyPEM: rsaPEM}, segments(`{"alg":"HS256"}`, claims, signHS256(rsaPEM)), Algorithm},
		"HS256 by RSA DER":           {Options{PublicKeyPEM: rsaPEM}, segments(`{"alg":"HS256"}`, claims, signHS256(rsaDER)), Algorithm},
		"HS256 by EC PEM":            {Options{PublicKeyPEM: ecPEM}, segments(`{"alg":"HS256"}`, claims, signHS256(ecPEM)), Algorithm},
		"HS256 by PEM beside secret": {Options{HMACSecret: testSecret, PublicKeyPEM: rsaPEM}, segments(`{"alg":"HS256"}`, claims, signHS256(rsaPEM)), Signature},
		"RS384":                      {Options{PublicKeyPEM: rsaPEM}, segments(`{"alg":"RS384"}`, claims, signWith(jwt.SigningMethodRS384, keys.rsa)), Algorithm},
		"PS256":                      {Options{PublicKeyPEM: rsaPEM}, segments(`{"alg":"PS256"}`, claims, signWith(jwt.SigningMethodPS256, keys.rsa)), Algorithm},
		"RS256 for an EC key":        {Options{PublicKeyPEM: ecPEM}, segments(`{"alg":"RS256"}`, claims, signWith(jwt.SigningMethodRS256, keys.rsa)), Algorithm},
		"ES256 with r=s=0":           {Options{PublicKeyPEM: ecPEM}, segments(`{"alg":"ES256"}`, claims, func(string) []byte { return make([]byte, 64) }), Signature},
		"ES256 in DER":               {Options{PublicKeyPEM: ecPEM}, segments(`{"alg":"ES256"}`, claims, func(signed string) []byte { return must(keys.ec.Sign(rand.Reader, digest(signed), crypto.SHA256)) }), Signature},
		"no signature":               {Options{HMACSecret: testSecret}, segments(`{"alg":"HS256"}`, claims, nothing), Signature},
		"cut signature":              {Options{HMACSecret: testSecret}, segments(`{"alg":"HS256"}`, claims, func(s string) []byte { return signHS256(testSecret)(s)[:16] }), Signature},
		"another secret":             {Options{HMACSecret: testSecret}, segments(`{"alg":"HS256"}`, claims, signHS256([]byte(strings.Repeat("x", 32)))), Signature},
		"crit":                       {Options{HMACSecret: testSecret}, segments(`{"alg":"HS256","crit":["exp"]}`, claims, signHS256(testSecret)), Algorithm},
		"crit empty":                 {Options{HMACSecret: testSecret}, segments(`{"alg":"HS256","crit":[]}`, claims, signHS256(testSecret)), Algorithm},
		"crit null":                  {Options{HMACSecret: testSecret}, segments(`{"alg":"HS256","crit":null}`, claims, signHS256(testSecret)), Algorithm},
		"jwk in the header": {Options{PublicKeyPEM: ecPEM}, segments(`{"alg":"EdDSA","jwk":{"kty":"OKP","crv":"Ed25519","x":"`+
			base64.RawURLEncoding.EncodeToString(keys.ed25519.Public().(ed25519.PublicKey))+`"}}`, claims, signWith(jwt.SigningMethodEdDSA, keys.ed25519)), Algorithm},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newVerifier(t, test.options).Verify(t.Context(), test.token)
			wantReason(t, err, test.want)
		})
	}
}

func digest(signed string) []byte {
	hash := crypto.SHA256.New()
	hash.Write([]byte(signed))
	return hash.Sum(nil)
}

// TestVerifyRefusesForms: what is no JWT, and what is too much of one.
func TestVerifyRefusesForms(t *testing.T) {
	good := hs256(`{"sub":"ada"}`)
	header := func(text string) string { return segments(text, `{"sub":"ada"}`, signHS256(testSecret)) }
	parts := strings.Split(good, ".")
	for name, test := range map[string]struct {
		token string
		want  Reason
	}{
		"empty":                       {"", Malformed},
		"a million dots":              {strings.Repeat(".", 1_000_000), TooLong},
		"a mebibyte":                  {strings.Repeat("a", 1<<20), TooLong},
		"one byte too long":           {strings.Repeat("a", TokenBytesMax+1), TooLong},
		"only dots":                   {"..", Malformed},
		"dots to the limit":           {strings.Repeat(".", TokenBytesMax), Malformed},
		"one part":                    {parts[0], Malformed},
		"two parts":                   {parts[0] + "." + parts[1], Malformed},
		"four parts":                  {good + ".", Malformed},
		"a JWE has five":              {strings.Repeat("YQ.", 4) + "YQ", Malformed},
		"not base64":                  {"*." + parts[1] + "." + parts[2], Malformed},
		"padding":                     {parts[0] + "=." + parts[1] + "." + parts[2], Malformed},
		"a line end inside":           {parts[0] + "\n." + parts[1] + "." + parts[2], Malformed},
		"a line end in the signature": {good[:len(good)-4] + "\n" + good[len(good)-4:], Malformed},
		"a space before":              {" " + good, Malformed},
		"stray bits at the end":       {good[:len(good)-1] + string(good[len(good)-1]+1), Malformed},
		"header is no JSON":           {header(`alg`), Malformed},
		"header is an array":          {header(`[]`), Malformed},
		"header is null":              {header(`null`), Algorithm},
		"claims are no JSON":          {hs256(`sub`), Malformed},
		"claims are an array":         {hs256(`[]`), Malformed},
		"claims are null":             {hs256(`null`), Malformed},
		"claims are a token":          {hs256(`"` + good + `"`), Malformed},
		"claims with a tail":          {hs256(`{"sub":"ada"}{}`), Malformed},
		"claims 8,000 deep":           {hs256(strings.Repeat("[", 4000)), Malformed},
		"kid is a number":             {header(`{"alg":"HS256","kid":1}`), Malformed},
		"kid is empty":                {header(`{"alg":"HS256","kid":""}`), Malformed},
		"kid is long":                 {header(`{"alg":"HS256","kid":"` + strings.Repeat("k", 257) + `"}`), Malformed},
		"alg twice, the last bad":     {header(`{"alg":"HS256","alg":"none"}`), Algorithm},
		"30,000 channels":             {hs256(`{"sub":"ada","channels":["` + strings.Repeat(`a:b","`, 30_000) + `a:b"]}`), TooLong},
		"1,001 channels":              {hs256(`{"sub":"ada","channels":["` + strings.Repeat(`*","`, 1000) + `*"]}`), Claims},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newVerifier(t, Options{HMACSecret: testSecret}).Verify(t.Context(), test.token)
			wantReason(t, err, test.want)
		})
	}
}

func TestVerifyFillsIdentity(t *testing.T) {
	verifier := newVerifier(t, Options{HMACSecret: testSecret, UserClaim: "uid"})
	identity, err := verifier.Verify(t.Context(), hs256(`{"uid":"ada","Admin":true,"channels":["job:*","job:*","a:b"],"publish":["*"],"exp":1800000060.5}`))
	if err != nil {
		t.Fatal(err)
	}
	if identity.Admin {
		t.Error("the claim Admin counted as admin")
	}
	if got := identity.Channels.List(); !slices.Equal(got, []string{"a:b", "job:*"}) {
		t.Errorf("channels are %q", got)
	}
	if got := identity.Publish.List(); !slices.Equal(got, []string{"*"}) {
		t.Errorf("publish is %q", got)
	}
	if want := testNow.Add(60*time.Second + 500*time.Millisecond); !identity.Expires.Equal(want) {
		t.Errorf("expires %v, want %v", identity.Expires, want)
	}
	if identity.Token() != "" {
		t.Error("the token was kept though nobody asked for it")
	}
	late, err := verifier.Verify(t.Context(), hs256(`{"uid":"ada","exp":1799999990,"admin":true}`))
	if err != nil {
		t.Fatal(err)
	}
	if want := testNow.Add(20 * time.Second); !late.Expires.Equal(want) {
		t.Errorf("a token within the skew expires %v, want the skew's end %v", late.Expires, want)
	}
	if !late.Admin {
		t.Error("admin is not set")
	}
}

// TestTokenStaysHidden: whatever is printed, no token is in it.
func TestTokenStaysHidden(t *testing.T) {
	token := hs256(`{"sub":"ada"}`)
	identity, err := newVerifier(t, Options{HMACSecret: testSecret, KeepToken: true}).Verify(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	if identity.Token() != token {
		t.Fatal("the token was not kept")
	}
	credential := Credential{Token: token, Source: SourceQuery}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d"} {
		for _, value := range []any{identity, *identity, credential, &credential} {
			if printed := fmt.Sprintf(verb, value); strings.Contains(printed, token[:10]) || strings.Contains(printed, "ZXlK") {
				t.Errorf("%s of %T prints %s", verb, value, printed)
			}
		}
	}
	if encoded, _ := json.Marshal(identity); strings.Contains(string(encoded), token) {
		t.Error("the token is in the identity's JSON")
	}
}

func TestNamed(t *testing.T) {
	if identity, err := Named(""); err != nil || identity != Anonymous() {
		t.Fatalf("no name is %v, %v", identity, err)
	}
	if identity, err := Named("123"); err != nil || identity.User != "123" || identity.Anonymous {
		t.Fatalf("123 is %v, %v", identity, err)
	}
	_, err := Named("a\r\nb")
	var refusal *Refusal
	if !errors.As(err, &refusal) || refusal.Code() != "bad_request" || strings.Contains(err.Error(), "\n") {
		t.Fatalf("a name with a line end: %v", err)
	}
}

func TestReasonsAreNamed(t *testing.T) {
	names := map[string]Reason{}
	for reason := range ReasonCount {
		names[reason.String()] = reason
		if refusal := (&Refusal{Reason: reason}); refusal.Status() < 400 || refusal.LogValue().String() != reason.String() {
			t.Errorf("%s has status %d", reason, refusal.Status())
		}
	}
	if len(names) != int(ReasonCount) {
		t.Fatalf("%d names for %d reasons: %v", len(names), ReasonCount, slices.Sorted(maps.Keys(names)))
	}
}

func BenchmarkVerify(b *testing.B) {
	keys := testKeys()
	claims := fmt.Sprintf(`{"sub":"user-12345","iss":"https://id.example","aud":"gate","iat":%d,"exp":%d,"channels":["job_progress:*","alerts:12345"]}`, testNow.Unix(), testNow.Unix()+600)
	for _, test := range []struct {
		method  jwt.SigningMethod
		private any
		options Options
	}{
		{jwt.SigningMethodHS256, testSecret, Options{HMACSecret: testSecret}},
		{jwt.SigningMethodRS256, keys.rsa, Options{PublicKeyPEM: publicPEM(keys.rsa.Public())}},
		{jwt.SigningMethodES256, keys.ec, Options{PublicKeyPEM: publicPEM(keys.ec.Public())}},
		{jwt.SigningMethodEdDSA, keys.ed25519, Options{PublicKeyPEM: publicPEM(keys.ed25519.Public())}},
	} {
		b.Run(test.method.Alg(), func(b *testing.B) {
			test.options.Audience, test.options.Issuer = "gate", "https://id.example"
			verifier := newVerifier(b, test.options)
			token := segments(`{"alg":"`+test.method.Alg()+`","typ":"JWT"}`, claims, signWith(test.method, test.private))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := verifier.Verify(context.Background(), token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
