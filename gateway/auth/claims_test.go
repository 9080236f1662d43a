package auth

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// accepted stands in a table for no refusal.
const accepted = ReasonCount

// fromNow is a NumericDate so many seconds from the tests' now.
func fromNow(seconds int64) int64 { return testNow.Unix() + seconds }

// claimCases has every claim that is read, in good forms and bad.
var claimCases = map[string]struct {
	options Options
	claims  string
	want    Reason
}{
	"exp ahead":                {Options{}, fmt.Sprintf(`{"sub":"a","exp":%d}`, fromNow(60)), accepted},
	"exp just past":            {Options{}, fmt.Sprintf(`{"sub":"a","exp":%d}`, fromNow(-29)), accepted},
	"exp past the skew":        {Options{}, fmt.Sprintf(`{"sub":"a","exp":%d}`, fromNow(-30)), Expired},
	"exp long past":            {Options{}, `{"sub":"a","exp":1}`, Expired},
	"exp zero":                 {Options{}, `{"sub":"a","exp":0}`, Expired},
	"exp negative":             {Options{}, `{"sub":"a","exp":-1}`, Claims},
	"exp with a fraction":      {Options{}, fmt.Sprintf(`{"sub":"a","exp":%d.75}`, fromNow(60)), accepted},
	"exp with an exponent":     {Options{}, `{"sub":"a","exp":1.9e9}`, accepted},
	"exp a string":             {Options{}, fmt.Sprintf(`{"sub":"a","exp":"%d"}`, fromNow(60)), Claims},
	"exp null":                 {Options{}, `{"sub":"a","exp":null}`, Claims},
	"exp true":                 {Options{}, `{"sub":"a","exp":true}`, Claims},
	"exp an array":             {Options{}, `{"sub":"a","exp":[9999999999]}`, Claims},
	"exp in 9999":              {Options{}, `{"sub":"a","exp":253402300799}`, accepted},
	"exp in 10000":             {Options{}, `{"sub":"a","exp":253402300800}`, Claims},
	"exp beyond int64":         {Options{}, `{"sub":"a","exp":1e300}`, Claims},
	"exp beyond float64":       {Options{}, `{"sub":"a","exp":1e999}`, Claims},
	"exp in milliseconds":      {Options{}, `{"sub":"a","exp":1800000060000}`, Claims},
	"exp absent":               {Options{}, `{"sub":"a"}`, accepted},
	"exp absent, required":     {Options{RequireExpiry: true}, `{"sub":"a"}`, Claims},
	"exp in another case":      {Options{RequireExpiry: true}, fmt.Sprintf(`{"sub":"a","EXP":%d}`, fromNow(60)), Claims},
	"exp twice, the last past": {Options{}, fmt.Sprintf(`{"sub":"a","exp":%d,"exp":1}`, fromNow(60)), Expired},
	"nbf past":                 {Options{}, fmt.Sprintf(`{"sub":"a","nbf":%d}`, fromNow(-60)), accepted},
	"nbf within the skew":      {Options{}, fmt.Sprintf(`{"sub":"a","nbf":%d}`, fromNow(30)), accepted},
	"nbf ahead":                {Options{}, fmt.Sprintf(`{"sub":"a","nbf":%d}`, fromNow(31)), NotYetValid},
	"nbf a string":             {Options{}, `{"sub":"a","nbf":"0"}`, Claims},
	"iat is not judged":        {Options{}, fmt.Sprintf(`{"sub":"a","iat":%d}`, fromNow(1e6)), accepted},

	"aud not asked for":      {Options{}, `{"sub":"a","aud":"x"}`, accepted},
	"aud a string":           {Options{Audience: "x"}, `{"sub":"a","aud":"x"}`, accepted},
	"aud in a list":          {Options{Audience: "x"}, `{"sub":"a","aud":["y","x"]}`, accepted},
	"aud wrong":              {Options{Audience: "x"}, `{"sub":"a","aud":"y"}`, Audience},
	"aud longer":             {Options{Audience: "x"}, `{"sub":"a","aud":["xx","X",""]}`, Audience},
	"aud absent":             {Options{Audience: "x"}, `{"sub":"a"}`, Audience},
	"aud null":               {Options{Audience: "x"}, `{"sub":"a","aud":null}`, Audience},
	"aud a number":           {Options{Audience: "1"}, `{"sub":"a","aud":1}`, Audience},
	"iss right":              {Options{Issuer: "https://i"}, `{"sub":"a","iss":"https://i"}`, accepted},
	"iss with a slash":       {Options{Issuer: "https://i"}, `{"sub":"a","iss":"https://i/"}`, Issuer},
	"iss absent":             {Options{Issuer: "https://i"}, `{"sub":"a"}`, Issuer},
	"iss a list":             {Options{Issuer: "https://i"}, `{"sub":"a","iss":["https://i"]}`, Issuer},
	"sub absent":             {Options{}, `{"exp":1900000000}`, Subject},
	"sub empty":              {Options{}, `{"sub":""}`, Subject},
	"sub null":               {Options{}, `{"sub":null}`, Subject},
	"sub in another case":    {Options{}, `{"Sub":"a"}`, Subject},
	"sub a whole number":     {Options{}, `{"sub":42}`, accepted},
	"sub a fraction":         {Options{}, `{"sub":4.2}`, Subject},
	"sub negative":           {Options{}, `{"sub":-4}`, Subject},
	"sub a huge number":      {Options{}, `{"sub":1000000000000000000}`, Subject},
	"sub with a line end":    {Options{}, `{"sub":"a\nb"}`, Subject},
	"sub with NUL":           {Options{}, `{"sub":"a\u0000"}`, Subject},
	"sub too long":           {Options{}, `{"sub":"` + strings.Repeat("a", 257) + `"}`, Subject},
	"user claim":             {Options{UserClaim: "uid"}, `{"sub":"x","uid":"a"}`, accepted},
	"user claim absent":      {Options{UserClaim: "uid"}, `{"sub":"x"}`, Subject},
	"channels":               {Options{}, `{"sub":"a","channels":["x:1","y:*","z:1:2","*"]}`, accepted},
	"channels null":          {Options{}, `{"sub":"a","channels":null}`, accepted},
	"channels a string":      {Options{}, `{"sub":"a","channels":"*"}`, Claims},
	"channels an object":     {Options{}, `{"sub":"a","channels":{}}`, Claims},
	"channels of numbers":    {Options{}, `{"sub":"a","channels":[1]}`, Claims},
	"channels holding null":  {Options{}, `{"sub":"a","channels":[null]}`, Claims},
	"channels with a prefix": {Options{}, `{"sub":"a","channels":["user:1*"]}`, Claims},
	"publish with a prefix":  {Options{}, `{"sub":"a","publish":["user:1*"]}`, Claims},
	"admin true":             {Options{}, `{"sub":"a","admin":true}`, accepted},
	"admin null":             {Options{}, `{"sub":"a","admin":null}`, accepted},
	"admin a string":         {Options{}, `{"sub":"a","admin":"true"}`, Claims},
	"admin a number":         {Options{}, `{"sub":"a","admin":1}`, Claims},
}

func TestVerifyClaims(t *testing.T) {
	for name, test := range claimCases {
		t.Run(name, func(t *testing.T) {
			test.options.HMACSecret = testSecret
			identity, err := newVerifier(t, test.options).Verify(t.Context(), hs256(test.claims))
			if test.want == accepted {
				if err != nil {
					t.Fatalf("refused: %v", err.(*Refusal).Reason)
				}
				if identity.User != "a" && identity.User != "42" {
					t.Fatalf("user is %q", identity.User)
				}
				return
			}
			wantReason(t, err, test.want)
		})
	}
}

func TestMintMakesWhatVerifyTakes(t *testing.T) {
	token, err := Mint(testSecret, MintClaims{
		User: "ada", UserClaim: "uid", Channels: []string{"job:*"}, Publish: []string{"job:1"}, Admin: true,
		TTL: time.Minute, Audience: "gate", Issuer: "me", Now: testNow,
	})
	if err != nil {
		t.Fatal(err)
	}
	verifier := newVerifier(t, Options{HMACSecret: testSecret, UserClaim: "uid", Audience: "gate", Issuer: "me", RequireExpiry: true})
	identity, err := verifier.Verify(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	if identity.User != "ada" || !identity.Admin || !identity.Expires.Equal(testNow.Add(time.Minute)) ||
		!identity.Channels.Match("job:7", "job") || !identity.Publish.Match("job:1", "job") {
		t.Fatalf("claims were lost: %v", identity)
	}
	for name, test := range map[string]struct {
		secret []byte
		claims MintClaims
		want   string
	}{
		"short secret": {[]byte("x"), MintClaims{User: "a"}, "at least 32"},
		"no user":      {testSecret, MintClaims{}, "empty"},
		"bad pattern":  {testSecret, MintClaims{User: "a", Channels: []string{"a:b", "a"}}, "channels: pattern 2"},
		"negative TTL": {testSecret, MintClaims{User: "a", TTL: -1}, "negative"},
		"too long":     {testSecret, MintClaims{User: "a", Publish: slices.Repeat([]string{"a:" + strings.Repeat("b", 100)}, 200)}, "at most 8192"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Mint(test.secret, test.claims); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error is %v, want one with %q", err, test.want)
			}
		})
	}
}
