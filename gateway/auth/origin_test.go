package auth

import (
	"bytes"
	"crypto/tls"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// originCases has cross-site requests in all disguises; TestCheckOrigin says who is allowed.
var originCases = map[string]struct {
	source Source
	host   string
	peer   string
	lines  []string
	want   Reason // ReasonCount: accepted
}{
	"no origin":                         {want: ReasonCount},
	"own":                               {lines: []string{"Origin: https://gate.example"}, want: ReasonCount},
	"own over http":                     {lines: []string{"Origin: http://gate.example"}, want: ReasonCount},
	"own in upper case":                 {lines: []string{"Origin: HTTPS://GATE.EXAMPLE"}, want: ReasonCount},
	"own with the default port":         {lines: []string{"Origin: https://gate.example:443"}, want: ReasonCount},
	"own, host with the default port":   {host: "gate.example:443", lines: []string{"Origin: https://gate.example"}, want: ReasonCount},
	"own with a port":                   {host: "gate.example:8080", lines: []string{"Origin: http://gate.example:8080"}, want: ReasonCount},
	"own by address":                    {host: "[::1]:8080", lines: []string{"Origin: http://[0:0::1]:8080"}, want: ReasonCount},
	"other port":                        {host: "gate.example:8080", lines: []string{"Origin: http://gate.example:8081"}, want: OriginForeign},
	"no port where the host has one":    {host: "gate.example:8080", lines: []string{"Origin: http://gate.example"}, want: OriginForeign},
	"port of the other scheme":          {lines: []string{"Origin: https://gate.example:80"}, want: OriginForeign},
	"other scheme":                      {lines: []string{"Origin: ftp://gate.example"}, want: OriginForeign},
	"other scheme, same site":           {lines: []string{"Origin: http://gate.example", "Sec-Fetch-Site: cross-site"}, want: OriginForeign},
	"other port, says the browser":      {lines: []string{"Origin: http://gate.example", "Sec-Fetch-Site: same-site"}, want: OriginForeign},
	"own, says the browser":             {lines: []string{"Origin: https://gate.example", "Sec-Fetch-Site: same-origin"}, want: ReasonCount},
	"scheme known from a proxy":         {peer: "10.1.1.1:9", lines: []string{"Origin: https://gate.example", "X-Forwarded-Proto: https"}, want: ReasonCount},
	"scheme known from a proxy, other":  {peer: "10.1.1.1:9", lines: []string{"Origin: http://gate.example", "X-Forwarded-Proto: https"}, want: OriginForeign},
	"scheme from who is not believed":   {peer: "11.1.1.1:9", lines: []string{"Origin: http://gate.example", "X-Forwarded-Proto: https"}, want: ReasonCount},
	"foreign":                           {lines: []string{"Origin: https://evil.example"}, want: OriginForeign},
	"foreign with a good name in front": {lines: []string{"Origin: https://good.example.evil.example"}, want: OriginForeign},
	"foreign with a good name behind":   {lines: []string{"Origin: https://evilgood.example"}, want: OriginForeign},
	"foreign with a good name as user":  {lines: []string{"Origin: https://good.example@evil.example"}, want: OriginForeign},
	"subdomain":                         {lines: []string{"Origin: https://a.gate.example"}, want: OriginForeign},
	"trailing dot":                      {lines: []string{"Origin: https://gate.example."}, want: OriginForeign},
	"null":                              {lines: []string{"Origin: null"}, want: OriginForeign},
	"empty":                             {lines: []string{"Origin: "}, want: OriginForeign},
	"star":                              {lines: []string{"Origin: *"}, want: OriginForeign},
	"with a path":                       {lines: []string{"Origin: https://gate.example/"}, want: OriginForeign},
	"with a query":                      {lines: []string{"Origin: https://gate.example?x"}, want: OriginForeign},
	"without a scheme":                  {lines: []string{"Origin: gate.example"}, want: OriginForeign},
	"with port 0":                       {lines: []string{"Origin: https://gate.example:0"}, want: OriginForeign},
	"with port 443 in another form":     {lines: []string{"Origin: https://gate.example:0443"}, want: OriginForeign},
	"with an empty port":                {lines: []string{"Origin: https://gate.example:"}, want: OriginForeign},
	"with port 65979, which is 443":     {lines: []string{"Origin: https://gate.example:65979"}, want: OriginForeign},
	"with letters that look alike":      {lines: []string{"Origin: https://gаte.example"}, want: OriginForeign},
	"two":                               {lines: []string{"Origin: https://gate.example", "Origin: https://gate.example"}, want: OriginForeign},
	"two in one":                        {lines: []string{"Origin: https://gate.example https://evil.example"}, want: OriginForeign},
	"too long":                          {lines: []string{"Origin: https://" + strings.Repeat("a", 300)}, want: OriginForeign},
	"allowed":                           {lines: []string{"Origin: https://good.example"}, want: ReasonCount},
	"allowed, cross-site":               {lines: []string{"Origin: https://good.example", "Sec-Fetch-Site: cross-site"}, want: ReasonCount},
	"allowed with the default port":     {lines: []string{"Origin: https://Good.Example:443"}, want: ReasonCount},
	"allowed with its port":             {lines: []string{"Origin: http://dev.example:3000"}, want: ReasonCount},
	"allowed but for the scheme":        {lines: []string{"Origin: http://good.example"}, want: OriginForeign},
	"allowed but for the port":          {lines: []string{"Origin: https://good.example:8443"}, want: OriginForeign},
	"allowed address":                   {lines: []string{"Origin: https://[2001:db8:0::1]"}, want: ReasonCount},
	"allowed application":               {lines: []string{"Origin: capacitor://localhost"}, want: ReasonCount},
	"cookie and own":                    {source: SourceCookie, lines: []string{"Origin: https://gate.example"}, want: ReasonCount},
	"cookie and allowed":                {source: SourceCookie, lines: []string{"Origin: https://good.example"}, want: ReasonCount},
	"cookie and foreign":                {source: SourceCookie, lines: []string{"Origin: https://evil.example"}, want: OriginForeign},
	"cookie and nothing":                {source: SourceCookie, want: OriginMissing},
	"cookie and same origin":            {source: SourceCookie, lines: []string{"Sec-Fetch-Site: same-origin"}, want: ReasonCount},
	"cookie and same site":              {source: SourceCookie, lines: []string{"Sec-Fetch-Site: same-site"}, want: OriginMissing},
	"cookie and the address bar":        {source: SourceCookie, lines: []string{"Sec-Fetch-Site: none"}, want: OriginMissing},
	"query and nothing":                 {source: SourceQuery, want: ReasonCount},
}

func TestCheckOrigin(t *testing.T) {
	allowed := must(ParseOrigins([]string{"https://good.example", "http://dev.example:3000", "https://[2001:DB8::1]", "capacitor://localhost"}))
	trusted := must(ParseProxies([]string{"10.0.0.0/8"}))
	for name, test := range originCases {
		t.Run(name, func(t *testing.T) {
			r := request(t, "/ws", test.lines...)
			r.RemoteAddr = test.peer
			if test.host != "" {
				r.Host = test.host
			}
			err := CheckOrigin(r, test.source, allowed, trusted)
			if test.want == ReasonCount {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			wantRefusal(t, err, test.want, "bad_origin")
		})
	}
	overTLS := request(t, "/ws", "Origin: http://gate.example")
	overTLS.TLS = &tls.ConnectionState{}
	wantRefusal(t, CheckOrigin(overTLS, SourceNone, Origins{}, Proxies{}), OriginForeign, "bad_origin")
}

func TestParseOriginsRefuses(t *testing.T) {
	for _, text := range []string{
		"", "*", "null", "https://*.good.example", "good.example", "//good.example", "https://", "https://good.example/", "https://good.example/path",
		"https://user@good.example", "https://good.example:99999", "https://good.example:", "https://[::1", "https://[1.2.3.4]", "https://[fe80::1%25eth0]",
		"https://bücher.example", "1https://good.example", "https ://good.example", "https://good example", "https://good.example:+80",
	} {
		if _, err := ParseOrigins([]string{"https://ok.example", text}); err == nil {
			t.Errorf("%q is taken for an origin", text)
		} else if !strings.Contains(err.Error(), "allowed origin") || !strings.Contains(err.Error(), "write scheme://host") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestGuard keeps pages out of a gateway without authentication.
func TestGuard(t *testing.T) {
	json := "Content-Type: application/json; charset=utf-8"
	for name, test := range map[string]struct {
		guard      Guard
		host       string
		publishing bool
		lines      []string
		want       Reason
		code       string
	}{
		"localhost":                    {host: "localhost:8080", want: ReasonCount},
		"LOCALHOST":                    {host: "LOCALHOST", want: ReasonCount},
		"subdomain of localhost":       {host: "app.localhost:8080", want: ReasonCount},
		"127.0.0.1":                    {host: "127.0.0.1:8080", want: ReasonCount},
		"127.9.9.9":                    {host: "127.9.9.9", want: ReasonCount},
		"::1":                          {host: "[::1]:8080", want: ReasonCount},
		"own page":                     {host: "localhost:8080", lines: []string{"Origin: http://localhost:8080"}, want: ReasonCount},
		"allowed page":                 {guard: Guard{Allowed: must(ParseOrigins([]string{"http://localhost:5173"}))}, host: "localhost:8080", lines: []string{"Origin: http://localhost:5173"}, want: ReasonCount},
		"publishing":                   {host: "localhost", publishing: true, lines: []string{json}, want: ReasonCount},
		"rebound name":                 {host: "evil.example:8080", want: HostForeign, code: "bad_origin"},
		"rebound name with its origin": {host: "evil.example:8080", lines: []string{"Origin: http://evil.example:8080"}, want: HostForeign, code: "bad_origin"},
		"name with localhost in front": {host: "localhost.evil.example", want: HostForeign, code: "bad_origin"},
		"name that ends in localhost":  {host: "evillocalhost", want: HostForeign, code: "bad_origin"},
		"address of the network":       {host: "192.168.1.1", want: HostForeign, code: "bad_origin"},
		"0.0.0.0":                      {host: "0.0.0.0:8080", want: HostForeign, code: "bad_origin"},
		"short address":                {host: "127.1", want: HostForeign, code: "bad_origin"},
		"no host":                      {host: "", want: HostForeign, code: "bad_origin"},
		"two hosts":                    {host: "localhost,evil.example", want: HostForeign, code: "bad_origin"},
		"another page of the machine":  {host: "localhost:8080", lines: []string{"Origin: http://localhost:3000"}, want: OriginForeign, code: "bad_origin"},
		"localhost is not 127.0.0.1":   {host: "localhost:8080", lines: []string{"Origin: http://127.0.0.1:8080"}, want: OriginForeign, code: "bad_origin"},
		"foreign page":                 {host: "localhost:8080", lines: []string{"Origin: https://evil.example"}, want: OriginForeign, code: "bad_origin"},
		"page without origin":          {host: "localhost:8080", lines: []string{"Origin: null"}, want: OriginForeign, code: "bad_origin"},
		"X-Forwarded-For":              {host: "localhost", lines: []string{"X-Forwarded-For: 127.0.0.1"}, want: Forwarded, code: "bad_origin"},
		"X-Forwarded-Prefix":           {host: "localhost", lines: []string{"x-forwarded-prefix: /"}, want: Forwarded, code: "bad_origin"},
		"X-Real-IP":                    {host: "localhost", lines: []string{"X-Real-IP: 127.0.0.1"}, want: Forwarded, code: "bad_origin"},
		"Forwarded":                    {host: "localhost", lines: []string{"Forwarded: for=1.2.3.4"}, want: Forwarded, code: "bad_origin"},
		"Via":                          {host: "localhost", lines: []string{"Via: 1.1 proxy"}, want: Forwarded, code: "bad_origin"},
		"publishing a form":            {host: "localhost", publishing: true, lines: []string{"Content-Type: application/x-www-form-urlencoded"}, want: MediaType, code: "unsupported_media_type"},
		"publishing plain text":        {host: "localhost", publishing: true, lines: []string{"Content-Type: text/plain; application/json"}, want: MediaType, code: "unsupported_media_type"},
		"publishing without a type":    {host: "localhost", publishing: true, want: MediaType, code: "unsupported_media_type"},
		"publishing with two types":    {host: "localhost", publishing: true, lines: []string{json, "Content-Type: text/plain"}, want: MediaType, code: "unsupported_media_type"},
		"insecure: any host":           {guard: Guard{AnyHost: true}, host: "gate.example", lines: []string{"X-Forwarded-For: 1.2.3.4"}, want: ReasonCount},
		"insecure: own page":           {guard: Guard{AnyHost: true}, host: "gate.example", lines: []string{"Origin: https://gate.example"}, want: ReasonCount},
		"insecure: foreign page":       {guard: Guard{AnyHost: true}, host: "gate.example", lines: []string{"Origin: https://evil.example"}, want: OriginForeign, code: "bad_origin"},
		"insecure: publishing a form":  {guard: Guard{AnyHost: true}, host: "gate.example", publishing: true, want: MediaType, code: "unsupported_media_type"},
	} {
		t.Run(name, func(t *testing.T) {
			r := request(t, "/ws", test.lines...)
			r.Host = test.host
			err := test.guard.Check(r, test.publishing)
			if test.want == ReasonCount {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			wantRefusal(t, err, test.want, test.code)
		})
	}
}

// TestCORS: an origin that is not listed is never reflected.
func TestCORS(t *testing.T) {
	allowed := must(ParseOrigins([]string{"https://good.example"}))
	for name, test := range map[string]struct {
		lines []string
		want  string
	}{
		"no origin":   {nil, ""},
		"allowed":     {[]string{"Origin: https://good.example"}, "https://good.example"},
		"foreign":     {[]string{"Origin: https://evil.example"}, ""},
		"null":        {[]string{"Origin: null"}, ""},
		"two allowed": {[]string{"Origin: https://good.example", "Origin: https://good.example"}, ""},
		"own":         {[]string{"Origin: https://gate.example"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			header := http.Header{"Vary": {"accept-encoding"}}
			r := request(t, "/api/stream", test.lines...)
			allowed.CORS(header, r)
			allowed.CORS(header, r)
			if got := header.Get("Access-Control-Allow-Origin"); got != test.want {
				t.Errorf("allows %q, want %q", got, test.want)
			}
			if got := header.Get("Access-Control-Allow-Credentials") == "true"; got != (test.want != "") {
				t.Errorf("with credentials: %v", got)
			}
			if got := header["Vary"]; !slices.Equal(got, []string{"accept-encoding", "Origin"}) {
				t.Errorf("Vary is %q", got)
			}
			// By hand the same is said.
			fresh := http.Header{}
			allowed.CORS(fresh, r)
			var lines bytes.Buffer
			_ = fresh.Write(&lines)
			if got := string(allowed.AppendCORS(nil, r)); got != lines.String() {
				t.Errorf("lines by hand are %q, want %q", got, lines.String())
			}
		})
	}
}

func TestPreflight(t *testing.T) {
	allowed := must(ParseOrigins([]string{"https://good.example"}))
	for origin, want := range map[string]bool{"https://good.example": true, "https://evil.example": false} {
		r := request(t, "/api/publish", "Origin: "+origin, "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization")
		r.Method = http.MethodOptions
		header := http.Header{}
		allowed.Preflight(header, r, "GET", "POST")
		if got := header.Get("Access-Control-Allow-Headers"); (got == "Authorization, Last-Event-ID, Content-Type") != want {
			t.Errorf("%s: headers %q", origin, got)
		}
		if got := header.Get("Access-Control-Allow-Methods"); (got == "GET, POST") != want {
			t.Errorf("%s: methods %q", origin, got)
		}
		if got := strings.Join(header["Vary"], ", "); got != "Origin, Access-Control-Request-Method, Access-Control-Request-Headers" {
			t.Errorf("%s: Vary is %q", origin, got)
		}
	}
}

// FuzzOrigin holds that no Origin passes for a Host unless one can be made from the other, and
// that an origin read is one that reads back.
func FuzzOrigin(f *testing.F) {
	for _, seed := range [][2]string{
		{"https://gate.example", "gate.example"},
		{"http://[::1]:80", "[::1]"},
		{"https://a@b", "b"},
		{"null", "null"},
		{"https://gate.example:443", "GATE.example"},
		{"http://gate.example.", "gate.example"},
		{"https://gate.example/", "gate.example"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, text, host string) {
		r := &http.Request{Host: host, Header: http.Header{"Origin": {text}}}
		if CheckOrigin(r, SourceCookie, Origins{}, Proxies{}) != nil {
			return
		}
		parsed, err := parseOrigin(text)
		if err != nil {
			t.Fatalf("%q passes for %q but is no origin", text, host)
		}
		name, port, err := parseHost(host, defaultPort(parsed.scheme))
		if err != nil || name != parsed.host || port != parsed.port {
			t.Fatalf("%q passes for %q", text, host)
		}
		if strings.ContainsAny(text, "/?#@ \t\r\n*,") && strings.ContainsAny(strings.SplitN(text, "://", 2)[1], "/?#@ \t\r\n*,") {
			t.Fatalf("%q passes with more in it than an origin", text)
		}
	})
}
