package auth

import (
	"bufio"
	"errors"
	"net/http"
	"strings"
	"testing"
)

// request reads one as a client would send it: the request line's target, then header lines.
func request(t testing.TB, target string, lines ...string) *http.Request {
	t.Helper()
	text := "GET " + target + " HTTP/1.1\r\nHost: gate.example\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n"
	if len(lines) == 0 {
		text = "GET " + target + " HTTP/1.1\r\nHost: gate.example\r\n\r\n"
	}
	read, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
	if err != nil {
		t.Fatal(err)
	}
	return read
}

// wantRefusal checks reason and code of err, and that its text holds no token.
func wantRefusal(t *testing.T, err error, reason Reason, code string) {
	t.Helper()
	var refusal *Refusal
	if !errors.As(err, &refusal) {
		t.Fatalf("error is %v, want a refusal for %s", err, reason)
	}
	if refusal.Reason != reason || refusal.Code() != code {
		t.Fatalf("refused for %s with %s, want %s with %s", refusal.Reason, refusal.Code(), reason, code)
	}
	if strings.Contains(err.Error(), "s3cret") {
		t.Fatalf("the error holds a token: %v", err)
	}
}

func TestFromRequest(t *testing.T) {
	for name, test := range map[string]struct {
		target string
		lines  []string
		want   Credential
	}{
		"nothing":                   {"/ws", nil, Credential{}},
		"header":                    {"/ws", []string{"Authorization: Bearer a.b.c"}, Credential{"a.b.c", SourceHeader, ""}},
		"header in lower case":      {"/ws", []string{"authorization: bearer  a.b.c"}, Credential{"a.b.c", SourceHeader, ""}},
		"header of a proxy":         {"/ws?token=t", []string{"Authorization: Basic dTpw"}, Credential{"t", SourceQuery, ""}},
		"subprotocol":               {"/ws", []string{"Sec-WebSocket-Protocol: millrace.v1, bearer.a.b.c"}, Credential{"a.b.c", SourceSubprotocol, Subprotocol}},
		"subprotocol on two lines":  {"/ws", []string{"Sec-WebSocket-Protocol: bearer.a.b.c", "Sec-WebSocket-Protocol: x,millrace.v1"}, Credential{"a.b.c", SourceSubprotocol, Subprotocol}},
		"subprotocol without token": {"/ws", []string{"Sec-WebSocket-Protocol: millrace.v1"}, Credential{"", SourceNone, Subprotocol}},
		"other subprotocols":        {"/ws", []string{"Sec-WebSocket-Protocol: graphql-ws, mqtt"}, Credential{}},
		"200 subprotocols":          {"/ws", []string{"Sec-WebSocket-Protocol: " + strings.Repeat("x ,  ", 200) + "millrace.v1"}, Credential{"", SourceNone, Subprotocol}},
		"query":                     {"/ws?a=1&token=a.b.c&b=2", nil, Credential{"a.b.c", SourceQuery, ""}},
		"query escaped":             {"/ws?%74oken=a%2Eb.c", nil, Credential{"a.b.c", SourceQuery, ""}},
		"query twice the same":      {"/ws?token=t&token=t", nil, Credential{"t", SourceQuery, ""}},
		"query empty":               {"/ws?token=", nil, Credential{}},
		"query of another name":     {"/ws?mytoken=a&token_=b&Token=c", nil, Credential{}},
		"cookie":                    {"/ws", []string{"Cookie: a=b; millrace_token=a.b.c"}, Credential{"a.b.c", SourceCookie, ""}},
		"cookie twice the same":     {"/ws", []string{"Cookie: millrace_token=t; millrace_token=t"}, Credential{"t", SourceCookie, ""}},
		"cookie empty":              {"/ws", []string{"Cookie: millrace_token="}, Credential{}},
		"cookie beside a header":    {"/ws", []string{"Cookie: millrace_token=old", "Authorization: Bearer new"}, Credential{"new", SourceHeader, ""}},
		"two cookies and a query":   {"/ws?token=new", []string{"Cookie: millrace_token=a; millrace_token=b"}, Credential{"new", SourceQuery, ""}},
		"the same token three ways": {"/ws?token=t", []string{"Authorization: Bearer t", "Sec-WebSocket-Protocol: millrace.v1,bearer.t"}, Credential{"t", SourceHeader, Subprotocol}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := FromRequest(request(t, test.target, test.lines...))
			if err != nil {
				t.Fatal(err)
			}
			if got != test.want {
				t.Fatalf("found %q from %v, subprotocol %q; want %q from %v, subprotocol %q",
					got.Token, got.Source, got.Subprotocol, test.want.Token, test.want.Source, test.want.Subprotocol)
			}
		})
	}
}

func TestFromRequestRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		target string
		lines  []string
	}{
		"two headers":                  {"/", []string{"Authorization: Bearer s3cret", "Authorization: Bearer s3cret"}},
		"bearer without a token":       {"/", []string{"Authorization: Bearer"}},
		"two tokens in a header":       {"/", []string{"Authorization: Bearer s3cret s3cret"}},
		"tokens in a list":             {"/", []string{"Authorization: Bearer s3cret,s3cret"}},
		"header and query differ":      {"/?token=s3cret1", []string{"Authorization: Bearer s3cret2"}},
		"header and protocol differ":   {"/", []string{"Authorization: Bearer s3cret2", "Sec-WebSocket-Protocol: millrace.v1, bearer.s3cret1"}},
		"protocol and query differ":    {"/?token=s3cret2", []string{"Sec-WebSocket-Protocol: millrace.v1, bearer.s3cret1"}},
		"two queries":                  {"/?token=s3cret1&token=s3cret2", nil},
		"two queries, one empty":       {"/?token=&token=s3cret2", nil},
		"broken escape":                {"/?token=s3cret%zz", nil},
		"two subprotocols":             {"/", []string{"Sec-WebSocket-Protocol: millrace.v1, bearer.s3cret1, bearer.s3cret2"}},
		"empty subprotocol token":      {"/", []string{"Sec-WebSocket-Protocol: millrace.v1, bearer."}},
		"nothing that can be answered": {"/", []string{"Sec-WebSocket-Protocol: bearer.s3cret1"}},
		"two cookies":                  {"/", []string{"Cookie: millrace_token=s3cret1; millrace_token=s3cret2"}},
		"two cookies on two lines":     {"/", []string{"Cookie: millrace_token=s3cret1", "Cookie: millrace_token=s3cret2"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := FromRequest(request(t, test.target, test.lines...))
			wantRefusal(t, err, Credentials, "bad_request")
		})
	}
}

// FuzzToken holds three things for any bytes as a token: no panic, no acceptance of what was not
// signed, and nothing of the token in the error.
func FuzzToken(f *testing.F) {
	good := hs256(`{"sub":"ada","exp":1900000000,"channels":["a:*"]}`)
	for _, seed := range []string{good, good + ".", "..", strings.Repeat(".", 9000), strings.Replace(good, "e", "E", 1), "eyJhbGciOiJub25lIn0.e30."} {
		f.Add(seed)
	}
	verifier := must(New(f.Context(), Options{HMACSecret: testSecret, PublicKeyPEM: publicPEM(testKeys().ec.Public())}))
	f.Fuzz(func(t *testing.T, token string) {
		identity, err := verifier.Verify(t.Context(), token)
		if (identity == nil) == (err == nil) {
			t.Fatal("neither or both of an identity and an error")
		}
		if err != nil && err.Error() != "unauthorized" {
			t.Fatalf("the error says %q", err)
		}
		if err == nil && token != good {
			t.Fatalf("accepted %q, which nobody signed", token)
		}
	})
}
