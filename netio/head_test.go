package netio

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/polltest"
)

const headTestBytesMax = 2 << 10

// headCases are requests and what the desk must answer. The same table is run on the scan alone,
// cut at every byte, and over TCP. "@" in a request stands for CR LF.
var headCases = []struct {
	name    string
	request string
	status  int    // 200: it reaches the handler
	path    string // as the handler sees it, where that is to be checked
}{
	{"plain", "GET / HTTP/1.1@Host: h@@", 200, "/"},
	{"path and query", "GET /api/stream?channel=a:b&x=%2Fy HTTP/1.1@Host: h@@", 200, "/api/stream"},
	{"slash at the end", "GET /debug/pprof/ HTTP/1.1@Host: h@@", 200, "/debug/pprof/"},
	{"needed escape", "GET /a%20b/%C3%A9 HTTP/1.1@Host: h@@", 200, "/a b/é"},
	{"semicolon is its own path", "GET /events;x HTTP/1.1@Host: h@@", 200, "/events;x"},
	{"HTTP/1.0 without Host", "GET / HTTP/1.0@@", 200, "/"},
	{"empty line first", "@GET / HTTP/1.1@Host: h@@", 200, "/"},
	{"spaces around a value", "GET / HTTP/1.1@Host:  \t h \t@@", 200, "/"},
	{"IPv6 host", "GET / HTTP/1.1@Host: [::1]:80@@", 200, "/"},
	{"empty host", "GET / HTTP/1.1@Host:@@", 200, "/"},
	{"absolute-form", "GET http://h/a?b HTTP/1.1@Host: h@@", 200, "/a"},
	{"length zero on GET", "GET / HTTP/1.1@Host: h@Content-Length: 0@@", 200, "/"},
	{"repeated list header", "GET / HTTP/1.1@Host: h@Cookie: a=b@Cookie: c=d@@", 200, "/"},
	{"own method", "PURGE / HTTP/1.1@Host: h@@", 200, "/"},

	// A2
	{"long header line", "GET / HTTP/1.1@Host: h@X: " + strings.Repeat("x", headTestBytesMax) + "@@", 431, ""},
	{"many header lines", "GET / HTTP/1.1@Host: h@" + strings.Repeat("X: y@", 120) + "@", 431, ""},
	{"endless header name", "GET / HTTP/1.1@" + strings.Repeat("x", headTestBytesMax), 431, ""},
	{"long URI", "GET /" + strings.Repeat("x", headTestBytesMax) + " HTTP/1.1@Host: h@@", 414, ""},
	{"head one byte too long", overlongHead(headTestBytesMax + 1), 431, ""},
	{"head just short enough", overlongHead(headTestBytesMax), 200, "/"},

	// A3
	{"both lengths", "POST / HTTP/1.1@Host: h@Content-Length: 3@Transfer-Encoding: chunked@@0@@", 400, ""},
	{"both lengths, other order", "POST / HTTP/1.1@Host: h@Transfer-Encoding: chunked@Content-Length: 3@@0@@", 400, ""},
	{"two lengths", "POST / HTTP/1.1@Host: h@Content-Length: 3@Content-Length: 4@@abc", 400, ""},
	{"same length twice", "POST / HTTP/1.1@Host: h@Content-Length: 3@Content-Length: 3@@abc", 400, ""},
	{"list of lengths", "POST / HTTP/1.1@Host: h@Content-Length: 3, 3@@abc", 400, ""},
	{"signed length", "POST / HTTP/1.1@Host: h@Content-Length: +5@@abcde", 400, ""},
	{"negative length", "POST / HTTP/1.1@Host: h@Content-Length: -5@@", 400, ""},
	{"hex length", "POST / HTTP/1.1@Host: h@Content-Length: 0x5@@abcde", 400, ""},
	{"empty length", "POST / HTTP/1.1@Host: h@Content-Length:@@", 400, ""},
	{"length of 2^64", "POST / HTTP/1.1@Host: h@Content-Length: 18446744073709551616@@", 400, ""},
	{"length of 2^63-1", "POST / HTTP/1.1@Host: h@Content-Length: 9223372036854775807@@", 413, ""},
	{"chunked on HTTP/1.0", "POST / HTTP/1.0@Transfer-Encoding: chunked@@0@@", 400, ""},
	{"coding twice", "POST / HTTP/1.1@Host: h@Transfer-Encoding: chunked@Transfer-Encoding: chunked@@0@@", 400, ""},
	{"other coding", "POST / HTTP/1.1@Host: h@Transfer-Encoding: gzip, chunked@@0@@", 400, ""},
	{"coding with a tab trick", "POST / HTTP/1.1@Host: h@Transfer-Encoding: \x0bchunked@@0@@", 400, ""},
	{"body on GET", "GET / HTTP/1.1@Host: h@Content-Length: 3@@abc", 400, ""},
	{"chunked body on GET", "GET / HTTP/1.1@Host: h@Transfer-Encoding: chunked@@0@@", 400, ""},
	{"body on HEAD", "HEAD / HTTP/1.1@Host: h@Content-Length: 3@@abc", 400, ""},

	// A4
	{"space before the colon", "GET / HTTP/1.1@Host : h@@", 400, ""},
	{"folded header", "GET / HTTP/1.1@Host: h@X: a@ b@@", 400, ""},
	{"indented first header", "GET / HTTP/1.1@ Host: h@@", 400, ""},
	{"empty header name", "GET / HTTP/1.1@Host: h@: x@@", 400, ""},
	{"no colon", "GET / HTTP/1.1@Host: h@nonsense@@", 400, ""},
	{"bare CR", "GET / HTTP/1.1@Host: h@X: a\rb@@", 400, ""},
	{"bare LF", "GET / HTTP/1.1\nHost: h\n\n", 400, ""},
	{"LF in a header", "GET / HTTP/1.1@Host: h@X: a\nY: b@@", 400, ""},
	{"NUL in a value", "GET / HTTP/1.1@Host: h@X: a\x00b@@", 400, ""},
	{"NUL in a name", "GET / HTTP/1.1@Host: h@X\x00: b@@", 400, ""},
	{"DEL in a value", "GET / HTTP/1.1@Host: h@X: a\x7fb@@", 400, ""},
	{"non-ASCII name", "GET / HTTP/1.1@Host: h@Xé: b@@", 400, ""},

	// A5
	{"no Host", "GET / HTTP/1.1@@", 400, ""},
	{"two Hosts", "GET / HTTP/1.1@Host: h@Host: h@@", 400, ""},
	{"two Origins", "GET / HTTP/1.1@Host: h@Origin: http://a@Origin: http://b@@", 400, ""},
	{"two Authorizations", "GET / HTTP/1.1@Host: h@Authorization: Bearer a@authorization: Bearer b@@", 400, ""},
	{"two keys", "GET / HTTP/1.1@Host: h@Sec-WebSocket-Key: a@Sec-WebSocket-Key: a@@", 400, ""},
	{"two WebSocket versions", "GET / HTTP/1.1@Host: h@Sec-WebSocket-Version: 13@Sec-WebSocket-Version: 13@@", 400, ""},
	{"Host with a path", "GET / HTTP/1.1@Host: h/x@@", 400, ""},
	{"Host with a user", "GET / HTTP/1.1@Host: a@b@@", 400, ""},
	{"Host list", "GET / HTTP/1.1@Host: a, b@@", 400, ""},

	// A7
	{"HTTP/2 preface", "PRI * HTTP/2.0@@SM@@", 400, ""},
	{"HTTP/2.0", "GET / HTTP/2.0@Host: h@@", 505, ""},
	{"HTTP/1.2", "GET / HTTP/1.2@Host: h@@", 505, ""},
	{"HTTP/0.9", "GET /@", 400, ""},
	{"no version", "GET / HTTP@Host: h@@", 400, ""},
	{"TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, ""},
	{"PROXY v1", "PROXY TCP4 192.0.2.1 192.0.2.2 5000 80@GET / HTTP/1.1@Host: h@@", 400, ""},
	{"PROXY v2", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff\x7f\x00\x00\x01", 400, ""},
	{"random bytes", "\x8f\xe2\x00\x01\x99", 400, ""},
	{"random bytes that begin well", "A\x8f\xe2\x00\x01\x99", 400, ""},
	{"two spaces", "GET  / HTTP/1.1@Host: h@@", 400, ""},
	{"space at the end", "GET / HTTP/1.1 @Host: h@@", 400, ""},
	{"tab for space", "GET\t/ HTTP/1.1@Host: h@@", 400, ""},
	{"CONNECT", "CONNECT h:80 HTTP/1.1@Host: h:80@@", 400, ""},
	{"unknown Expect", "POST / HTTP/1.1@Host: h@Expect: gold@Content-Length: 1@@x", 417, ""},

	// A8
	{"empty segment", "GET //events HTTP/1.1@Host: h@@", 400, ""},
	{"escaped letter", "GET /%65vents HTTP/1.1@Host: h@@", 400, ""},
	{"dot segments", "GET /events/../admin HTTP/1.1@Host: h@@", 400, ""},
	{"dot segment at the end", "GET /events/.. HTTP/1.1@Host: h@@", 400, ""},
	{"single dot", "GET /./events HTTP/1.1@Host: h@@", 400, ""},
	{"escaped dots", "GET /events/%2e%2e/admin HTTP/1.1@Host: h@@", 400, ""},
	{"escaped slash", "GET /events%2fadmin HTTP/1.1@Host: h@@", 400, ""},
	{"escaped backslash", "GET /events%5cadmin HTTP/1.1@Host: h@@", 400, ""},
	{"backslash", `GET /events\admin HTTP/1.1@Host: h@@`, 400, ""},
	{"escaped NUL", "GET /events%00 HTTP/1.1@Host: h@@", 400, ""},
	{"escaped line end", "GET /a%0d%0aX:y HTTP/1.1@Host: h@@", 400, ""},
	{"half an escape", "GET /a%2 HTTP/1.1@Host: h@@", 400, ""},
	{"no hex in an escape", "GET /a?b=%zz HTTP/1.1@Host: h@@", 400, ""},
	{"fragment", "GET /a#b HTTP/1.1@Host: h@@", 400, ""},
	{"raw non-ASCII", "GET /é HTTP/1.1@Host: h@@", 400, ""},
	{"no leading slash", "GET events HTTP/1.1@Host: h@@", 400, ""},
	{"asterisk on GET", "GET * HTTP/1.1@Host: h@@", 400, ""},
	{"absolute-form of another host", "GET http://evil/admin HTTP/1.1@Host: h@@", 400, ""},
	{"absolute-form without a path", "GET http://h HTTP/1.1@Host: h@@", 400, ""},
	{"absolute-form with dots", "GET http://h/../admin HTTP/1.1@Host: h@@", 400, ""},
	{"absolute-form with a user", "GET http://u:p%40@h/ HTTP/1.1@Host: h@@", 400, ""},
	{"other scheme", "GET ftp://h/ HTTP/1.1@Host: h@@", 400, ""},
}

// overlongHead is a request whose head has the given length.
func overlongHead(length int) string {
	const begin, end = "GET / HTTP/1.1\r\nHost: h\r\nX: ", "\r\n\r\n"
	return begin + strings.Repeat("x", length-len(begin)-len(end)) + end
}

func headText(request string) string {
	if strings.Contains(request, "a@b") || strings.Contains(request, "%40@h") {
		// These hold an @ of their own.
		request = strings.NewReplacer("a@b", "a\x01b", "%40@h", "%40\x01h").Replace(request)
	}
	return strings.ReplaceAll(strings.ReplaceAll(request, "@", "\r\n"), "\x01", "@")
}

var headTestLimits = headLimits{bytesMax: headTestBytesMax, linesMax: 100, bodyBytesMax: 1 << 20}

// TestHeadScanResumes feeds each case in two parts, cut at every byte, and byte by byte: the
// outcome must not depend on how the bytes came.
func TestHeadScanResumes(t *testing.T) {
	for _, test := range headCases {
		t.Run(test.name, func(t *testing.T) {
			text := []byte(headText(test.request))
			var whole headScan
			wantEnd, wantFault := whole.advance(text, headTestLimits)
			if status := statusOf(wantFault); status != test.status {
				t.Fatalf("whole: status %d, want %d", status, test.status)
			}
			for cut := range text {
				var scan headScan
				end, fault := scan.advance(text[:cut], headTestLimits)
				if end == 0 && fault == nil {
					end, fault = scan.advance(text, headTestLimits)
				}
				if end != wantEnd || fault != wantFault {
					t.Fatalf("cut at %d: end %d, fault %v; want %d, %v", cut, end, fault, wantEnd, wantFault)
				}
			}
			var scan headScan
			end, fault := 0, (*deskFault)(nil)
			for n := 1; n <= len(text) && end == 0 && fault == nil; n++ {
				end, fault = scan.advance(text[:n], headTestLimits)
			}
			if end != wantEnd || fault != wantFault {
				t.Fatalf("byte by byte: end %d, fault %v; want %d, %v", end, fault, wantEnd, wantFault)
			}
		})
	}
}

func statusOf(fault *deskFault) int {
	if fault == nil {
		return 200
	}
	return fault.status
}

// TestHeadOverTCP sends each case to a desk, followed by a second request: after a refusal the
// connection must be closed and the second request unread.
func TestHeadOverTCP(t *testing.T) {
	const second = "GET /second HTTP/1.1\r\nHost: h\r\n\r\n"
	desk := newDesk(t, DeskOptions{
		MaxHeadBytes: headTestBytesMax,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("X-URI", r.RequestURI)
			fmt.Fprint(w, r.URL.Path)
		}),
	})
	bystander := dial(t, desk)
	for _, test := range headCases {
		t.Run(test.name, func(t *testing.T) {
			c := dial(t, desk)
			c.send(headText(test.request) + second)
			method, _, _ := strings.Cut(test.request, " ")
			got := c.answer(method)
			if got.StatusCode != test.status {
				t.Fatalf("status %d, want %d; body %q", got.StatusCode, test.status, got.body)
			}
			if test.status == 200 {
				if test.path != got.body || strings.HasPrefix(got.Header.Get("X-URI"), "http") {
					t.Errorf("path %q, want %q; URI %q", got.body, test.path, got.Header.Get("X-URI"))
				}
				return
			}
			if !got.Close || got.Header.Get("Content-Type") != "application/json" {
				t.Errorf("close %v, headers %v", got.Close, got.Header)
			}
			if method != "HEAD" && !strings.HasPrefix(got.body, `{"error":{"code":"`) {
				t.Errorf("body %q", got.body)
			}
			c.closed()
		})
	}
	bystander.send(second)
	if got := bystander.answer("GET"); got.StatusCode != 200 {
		t.Errorf("the bystander got %d", got.StatusCode)
	}
	polltest.Eventually(t, "the refused are gone", func() bool { return desk.Stats().Connections == 1 })
}

// TestGarbageIsAnsweredAtOnce: a client of another protocol waits for an answer, so it must not
// take until the deadline.
func TestGarbageIsAnsweredAtOnce(t *testing.T) {
	desk := newDesk(t, DeskOptions{HandshakeTimeout: time.Minute})
	c := dial(t, desk)
	c.send("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
	if got := c.answer("GET"); got.StatusCode != 400 || !strings.Contains(got.body, "TLS") {
		t.Errorf("status %d, body %q", got.StatusCode, got.body)
	}
}

func FuzzHeadScan(f *testing.F) {
	for _, test := range headCases {
		f.Add([]byte(headText(test.request)), 7)
	}
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		var whole, parts headScan
		wantEnd, wantFault := whole.advance(text, headTestLimits)
		cut = min(max(cut, 0), len(text))
		end, fault := parts.advance(text[:cut], headTestLimits)
		if end == 0 && fault == nil {
			end, fault = parts.advance(text, headTestLimits)
		}
		if end != wantEnd || fault != wantFault {
			t.Fatalf("in two parts: end %d, fault %v; whole: end %d, fault %v", end, fault, wantEnd, wantFault)
		}
		if end > headTestBytesMax || end > len(text) {
			t.Fatalf("end %d of %d bytes", end, len(text))
		}
		if end > 0 && fault == nil {
			agrees(t, text[whole.begin:end], whole)
		}
	})
}

// agrees checks that net/http reads a head as the scan does, if it takes it at all.
func agrees(t *testing.T, head []byte, scan headScan) {
	request, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	if err != nil {
		return
	}
	length := max(scan.contentLength, 0)
	if scan.chunked {
		length = -1
	}
	if request.ContentLength != length || (len(request.TransferEncoding) > 0) != scan.chunked {
		t.Errorf("net/http: length %d, coding %v; scan: %d, chunked %v", request.ContentLength, request.TransferEncoding, length, scan.chunked)
	}
	if request.ProtoMinor != scan.minor || request.ProtoMajor != 1 {
		t.Errorf("net/http: %s; scan: 1.%d", request.Proto, scan.minor)
	}
	for _, segment := range strings.Split(request.URL.Path, "/") {
		if segment == "." || segment == ".." {
			t.Errorf("net/http: path %q", request.URL.Path)
		}
	}
	if request.Method == "GET" && scan.hasBody() {
		t.Error("a GET with a body was let through")
	}
}

func TestHeadScanAllocatesNothing(t *testing.T) {
	head := []byte("POST /api/publish?a=b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\nOrigin: http://h\r\n\r\n")
	if n := testing.AllocsPerRun(100, func() {
		var scan headScan
		if end, fault := scan.advance(head, headTestLimits); end != len(head) || fault != nil {
			t.Fatal(end, fault)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkHeadScan(b *testing.B) {
	head := []byte("GET /ws HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nConnection: Upgrade\r\nCache-Control: no-cache\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36\r\n" +
		"Upgrade: websocket\r\nOrigin: http://127.0.0.1:8080\r\nSec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate, br\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	b.SetBytes(int64(len(head)))
	for b.Loop() {
		var scan headScan
		scan.advance(head, headTestLimits)
	}
}
