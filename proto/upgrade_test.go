package proto

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// handshake is RFC 6455's own example (1.2) with changes: a line "Name: value" replaces the line
// of that name, "-Name" removes it, "+Name: value" adds one more.
func handshake(t testing.TB, requestLine string, changes ...string) *http.Request {
	t.Helper()
	lines := []string{
		"Host: server.example.com",
		"Upgrade: websocket",
		"Connection: Upgrade",
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
		"Sec-WebSocket-Version: 13",
	}
	for _, change := range changes {
		if added, ok := strings.CutPrefix(change, "+"); ok {
			lines = append(lines, added)
			continue
		}
		removed, gone := strings.CutPrefix(change, "-")
		name, _, _ := strings.Cut(removed, ":")
		lines = slices.DeleteFunc(lines, func(line string) bool { return strings.HasPrefix(line, name+":") })
		if !gone {
			lines = append(lines, change)
		}
	}
	text := requestLine + "\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n"
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const getWS = "GET /ws HTTP/1.1"

func TestCheckUpgradeGood(t *testing.T) {
	many := "a" + strings.Repeat(" ,  b", subprotocolsMax-1)
	cases := []struct {
		name         string
		changes      []string
		subprotocols int
	}{
		{"1.2 the example", nil, 0},
		{"4.2.1, 3 case of the token", []string{"Upgrade: WebSocket"}, 0},
		{"4.2.1, 3 upgrade to one of several", []string{"Upgrade: h2c, websocket"}, 0},
		{"4.2.1, 4 token in a list", []string{"Connection: keep-alive, uPGRADE"}, 0},
		{"4.2.1, 4 token in a second line", []string{"Connection: keep-alive", "+Connection: upgrade"}, 0},
		{"4.2.1, 8 subprotocols", []string{"Sec-WebSocket-Protocol: millrace.v1, bearer.a.b-_c"}, 2},
		{"4.2.1, 8 subprotocols in two lines", []string{"Sec-WebSocket-Protocol: a", "+Sec-WebSocket-Protocol: b"}, 2},
		{"9110, 5.6.1.2 empty elements", []string{"Sec-WebSocket-Protocol: , a,, b ,"}, 2},
		{"as many as allowed", []string{"Sec-WebSocket-Protocol: " + many}, subprotocolsMax},
		{"4.2.1, 9 extensions are not looked at", []string{"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=7, ;;"}, 0},
		{"no body, said so", []string{"Content-Length: 0"}, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			upgrade, failure := CheckUpgrade(handshake(t, getWS, c.changes...))
			if failure != nil {
				t.Fatal(failure)
			}
			if upgrade.Accept != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
				t.Errorf("accept %q", upgrade.Accept)
			}
			if len(upgrade.Subprotocols) != c.subprotocols {
				t.Errorf("subprotocols %q", upgrade.Subprotocols)
			}
		})
	}
}

func TestCheckUpgradeRefuses(t *testing.T) {
	upgradeHeader := http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}}
	cases := []struct {
		name, line string
		changes    []string
		status     int
		code       string
		header     http.Header
	}{
		{"4.1 POST", "POST /ws HTTP/1.1", nil, 405, CodeMethodNotAllowed, http.Header{"Allow": {"GET"}}},
		{"4.1 HEAD", "HEAD /ws HTTP/1.1", nil, 405, CodeMethodNotAllowed, http.Header{"Allow": {"GET"}}},
		{"4.2.1, 1 HTTP/1.0", "GET /ws HTTP/1.0", nil, 505, CodeVersionUnsupported, nil},
		{"4.2.1, 2 empty Host", getWS, []string{"Host:"}, 400, CodeBadRequest, nil},
		{"4.2.1, 3 no Upgrade", getWS, []string{"-Upgrade"}, 426, CodeUpgradeRequired, upgradeHeader},
		{"4.2.1, 3 another Upgrade", getWS, []string{"Upgrade: websockets"}, 426, CodeUpgradeRequired, upgradeHeader},
		{"4.2.1, 4 no Connection", getWS, []string{"-Connection"}, 426, CodeUpgradeRequired, upgradeHeader},
		{"4.2.1, 4 Connection: keep-alive", getWS, []string{"Connection: keep-alive"}, 426, CodeUpgradeRequired, upgradeHeader},
		{"4.2.1, 6 version 12", getWS, []string{"Sec-WebSocket-Version: 12"}, 426, CodeUpgradeRequired, upgradeHeader},
		{"4.2.1, 6 version 013", getWS, []string{"Sec-WebSocket-Version: 013"}, 426, CodeUpgradeRequired, upgradeHeader},
		{"4.2.1, 6 versions in a list", getWS, []string{"Sec-WebSocket-Version: 13, 8"}, 426, CodeUpgradeRequired, upgradeHeader},
		{"4.2.1, 6 no version", getWS, []string{"-Sec-WebSocket-Version"}, 426, CodeUpgradeRequired, upgradeHeader},
		{"two versions", getWS, []string{"+Sec-WebSocket-Version: 13"}, 400, CodeBadRequest, nil},
		{"4.2.1, 5 no key", getWS, []string{"-Sec-WebSocket-Key"}, 400, CodeBadRequest, nil},
		{"two keys", getWS, []string{"+Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}, 400, CodeBadRequest, nil},
		{"4.2.1, 5 24 characters of no base64", getWS, []string{"Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!!!"}, 400, CodeBadRequest, nil},
		{"4.2.1, 5 key of 18 bytes", getWS, []string{"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZWFi"}, 400, CodeBadRequest, nil},
		{"4.2.1, 5 key of 15 bytes", getWS, []string{"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j"}, 400, CodeBadRequest, nil},
		{"4.2.1, 5 key of 17 bytes", getWS, []string{"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZWE="}, 400, CodeBadRequest, nil},
		{"4.2.1, 5 key of base64url", getWS, []string{"Sec-WebSocket-Key: ____IHNhbXBsZSBub25jZQ=="}, 400, CodeBadRequest, nil},
		{"4.2.1, 5 empty key", getWS, []string{"Sec-WebSocket-Key:"}, 400, CodeBadRequest, nil},
		{"a body", getWS, []string{"Content-Length: 5"}, 400, CodeBadRequest, nil},
		{"a body in chunks", getWS, []string{"Transfer-Encoding: chunked"}, 400, CodeBadRequest, nil},
		{"4.2.1, 8 subprotocol is no token", getWS, []string{"Sec-WebSocket-Protocol: secret token"}, 400, CodeBadRequest, nil},
		{"4.2.1, 8 subprotocol in quotes", getWS, []string{`Sec-WebSocket-Protocol: "secret"`}, 400, CodeBadRequest, nil},
		{"too many subprotocols", getWS, []string{"Sec-WebSocket-Protocol: secret" + strings.Repeat(",b", subprotocolsMax)}, 400, CodeBadRequest, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			upgrade, failure := CheckUpgrade(handshake(t, c.line, c.changes...))
			if failure == nil {
				t.Fatalf("taken: %+v", upgrade)
			}
			if failure.Status != c.status || failure.Code != c.code {
				t.Errorf("%v", failure)
			}
			if diff := cmp.Diff(c.header, failure.Header); diff != "" {
				t.Error(diff)
			}
			if upgrade.Accept != "" || failure.Message == "" || strings.Contains(failure.Error(), "secret") {
				t.Errorf("%+v, %v", upgrade, failure)
			}
		})
	}
}

// FuzzCheckUpgrade holds a handshake that is taken to RFC 6455, 4.2.1, looked at in another way, and
// what is refused to an answer that says why.
func FuzzCheckUpgrade(f *testing.F) {
	for _, line := range []string{getWS, "POST /ws HTTP/1.1", "GET /ws HTTP/1.0"} {
		f.Add(line, "server.example.com", "websocket", "Upgrade", "dGhlIHNhbXBsZSBub25jZQ==", "13", "millrace.v1, bearer.a")
	}
	f.Add(getWS, "", "h2c, WebSocket", "keep-alive , uPGRADE", "____IHNhbXBsZSBub25jZQ==", "13, 8", "a b")
	f.Add(getWS, "h", "websocket\t", ",,Upgrade", "dGhlIHNhbXBsZSBub25jZQ=\n", " 13", ",,,")
	f.Fuzz(func(t *testing.T, line, host, upgrade, connection, key, version, subprotocol string) {
		text := line + "\r\nHost: " + host + "\r\nUpgrade: " + upgrade + "\r\nConnection: " + connection + "\r\nSec-WebSocket-Key: " + key +
			"\r\nSec-WebSocket-Version: " + version + "\r\nSec-WebSocket-Protocol: " + subprotocol + "\r\n\r\n"
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
		if err != nil {
			return
		}
		found, failure := CheckUpgrade(r)
		if failure != nil {
			if !slices.Contains([]int{400, 405, 426, 505}, failure.Status) || failure.Code == "" || failure.Message == "" ||
				failure.Status == 426 && failure.Header.Get("Sec-WebSocket-Version") != "13" {
				t.Fatalf("%q is refused with %+v", text, failure)
			}
			return
		}
		holds := func(name, token string) bool {
			list := strings.ToLower(strings.Join(r.Header.Values(name), ","))
			return slices.ContainsFunc(strings.Split(list, ","), func(one string) bool { return strings.TrimSpace(one) == token })
		}
		decoded, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-WebSocket-Key"))
		if err != nil || len(decoded) != 16 || r.Method != http.MethodGet || !r.ProtoAtLeast(1, 1) || r.Host == "" ||
			!holds("Upgrade", "websocket") || !holds("Connection", "upgrade") || r.Header.Get("Sec-WebSocket-Version") != "13" {
			t.Fatalf("%q is taken", text)
		}
		if len(found.Accept) != base64.StdEncoding.EncodedLen(sha1.Size) || len(found.Subprotocols) > subprotocolsMax {
			t.Fatalf("%q: %+v", text, found)
		}
		for _, one := range found.Subprotocols {
			if one == "" || strings.ContainsAny(one, " \t,;=\"\r\n") {
				t.Fatalf("%q: the subprotocol %q is no token", text, one)
			}
		}
	})
}

// TestCheckUpgradeLinear: what ate quadratic time elsewhere is refused or read at once.
func TestCheckUpgradeLinear(t *testing.T) {
	const size = 1 << 20
	for name, value := range map[string]string{
		"commas": strings.Repeat(",", size), "spaces": strings.Repeat(" ", size) + "a",
		"commas and spaces": strings.Repeat(" , ", size/3), "names": strings.Repeat("a , ", size/4),
	} {
		r := handshake(t, getWS)
		r.Header["Sec-Websocket-Protocol"] = []string{value}
		r.Header["Connection"] = []string{value, "upgrade"}
		start := time.Now()
		_, _ = CheckUpgrade(r)
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: %v", name, took)
		}
	}
}

func TestAppendSwitchingProtocols(t *testing.T) {
	got := string(AppendSwitchingProtocols([]byte("x"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "millrace.v1", []byte("Vary: Origin\r\n")))
	want := "xHTTP/1.1 101 Switching Protocols\r\n" +
		"Upgrade: websocket\r\n" +
		"Connection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" +
		"Sec-WebSocket-Protocol: millrace.v1\r\n" +
		"Vary: Origin\r\n\r\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got = string(AppendSwitchingProtocols(nil, "a", "", nil)); strings.Contains(got, "Protocol:") || !strings.HasSuffix(got, "\r\n\r\n") {
		t.Errorf("%q", got)
	}
}
