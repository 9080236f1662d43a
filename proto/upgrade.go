package proto

import (
	"crypto/sha1"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
)

// websocketGUID is mixed into the accept key (RFC 6455, 1.3).
const websocketGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

const (
	// subprotocolsMax bounds how many subprotocols a client may offer.
	subprotocolsMax = 256
	// websocketKeyBytes is the size of the decoded Sec-WebSocket-Key (RFC 6455, 4.1).
	websocketKeyBytes = 16
)

// Upgrade is a good WebSocket handshake, to be answered with [AppendSwitchingProtocols].
type Upgrade struct {
	// Accept is the value for Sec-WebSocket-Accept.
	Accept string
	// Subprotocols are those that the client offers, in its order. They may hold a token: they
	// are not for logs.
	Subprotocols []string
}

// UpgradeError is a refused WebSocket handshake, as an answer over HTTP.
type UpgradeError struct {
	// Status is the HTTP status: 400, 405, 426 or 505.
	Status int
	// Code and Message are the error as a client reads it.
	Code, Message string
	// Header is what the answer must carry besides, or nil.
	Header http.Header
}

func (e *UpgradeError) Error() string {
	return "websocket handshake: " + strconv.Itoa(e.Status) + " " + e.Code + ": " + e.Message
}

func badUpgrade(message string) *UpgradeError {
	return &UpgradeError{Status: http.StatusBadRequest, Code: CodeBadRequest, Message: message}
}

func upgradeRequired(message string) *UpgradeError {
	return &UpgradeError{
		Status: http.StatusUpgradeRequired, Code: CodeUpgradeRequired, Message: message,
		Header: http.Header{
			"Connection":            {"Upgrade"}, // RFC 9110, 7.8
			"Upgrade":               {"websocket"},
			"Sec-Websocket-Version": {"13"}, // RFC 6455, 4.4
		},
	}
}

// CheckUpgrade judges a WebSocket handshake by RFC 6455, 4.2.1. Extensions are for
// [NegotiateDeflate]. Origin, Host and subprotocols are the caller's to judge. It takes linear time
// and keeps strings of the request.
func CheckUpgrade(r *http.Request) (Upgrade, *UpgradeError) {
	if r.Method != http.MethodGet { // RFC 6455, 4.1: "MUST be GET"
		return Upgrade{}, &UpgradeError{
			Status: http.StatusMethodNotAllowed, Code: CodeMethodNotAllowed,
			Message: "a WebSocket is opened with GET",
			Header:  http.Header{"Allow": {http.MethodGet}},
		}
	}
	if r.ProtoMajor != 1 || r.ProtoMinor < 1 { // RFC 6455, 4.2.1, 1
		return Upgrade{}, &UpgradeError{
			Status: http.StatusHTTPVersionNotSupported, Code: CodeVersionUnsupported,
			Message: "a WebSocket is opened over HTTP/1.1",
		}
	}
	if r.Host == "" { // RFC 6455, 4.2.1, 2
		return Upgrade{}, badUpgrade("the Host header is missing")
	}
	if r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
		return Upgrade{}, badUpgrade("a WebSocket handshake has no body")
	}
	if !listHolds(r.Header["Upgrade"], "websocket") { // RFC 6455, 4.2.1, 3
		return Upgrade{}, upgradeRequired("this address speaks WebSocket: Upgrade: websocket is missing")
	}
	if !listHolds(r.Header["Connection"], "upgrade") { // RFC 6455, 4.2.1, 4
		return Upgrade{}, upgradeRequired("this address speaks WebSocket: Connection: Upgrade is missing")
	}
	versions := r.Header["Sec-Websocket-Version"]
	if len(versions) > 1 {
		return Upgrade{}, badUpgrade("Sec-WebSocket-Version is given more than once")
	}
	if len(versions) == 0 || versions[0] != "13" { // RFC 6455, 4.2.1, 6 and 4.4
		return Upgrade{}, upgradeRequired("Sec-WebSocket-Version must be 13")
	}
	accept, failure := acceptKey(r.Header["Sec-Websocket-Key"])
	if failure != nil {
		return Upgrade{}, failure
	}
	subprotocols, failure := parseSubprotocols(r.Header["Sec-Websocket-Protocol"])
	if failure != nil {
		return Upgrade{}, failure
	}
	return Upgrade{Accept: accept, Subprotocols: subprotocols}, nil
}

// acceptKey proves that the handshake was understood (RFC 6455, 4.2.1, 5 and 4.2.2, 5.4).
func acceptKey(keys []string) (string, *UpgradeError) {
	if len(keys) != 1 {
		return "", badUpgrade("Sec-WebSocket-Key must be given once")
	}
	key := keys[0]
	// Decode skips line ends, hence the second check.
	var decoded [websocketKeyBytes + 2]byte
	if len(key) != base64.StdEncoding.EncodedLen(websocketKeyBytes) || strings.ContainsAny(key, "\r\n") {
		return "", badUpgrade("Sec-WebSocket-Key must be 16 bytes in base64")
	}
	size, err := base64.StdEncoding.Decode(decoded[:], []byte(key))
	if err != nil || size != websocketKeyBytes {
		return "", badUpgrade("Sec-WebSocket-Key must be 16 bytes in base64")
	}
	sum := sha1.Sum([]byte(key + websocketGUID))
	return base64.StdEncoding.EncodeToString(sum[:]), nil
}

// listHolds reports whether a header's comma lists (RFC 9110, 5.6.1) hold token, whatever its case.
func listHolds(values []string, token string) bool {
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.Trim(part, " \t"), token) {
				return true
			}
		}
	}
	return false
}

// tokenByte marks the bytes of tokens (RFC 9110, 5.6.2).
var tokenByte = byteSet("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")

// parseSubprotocols reads the subprotocols that a client offers (RFC 6455, 4.2.1, 8).
func parseSubprotocols(values []string) ([]string, *UpgradeError) {
	var subprotocols []string
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			part = strings.Trim(part, " \t")
			if part == "" { // RFC 9110, 5.6.1.2: empty elements are ignored
				continue
			}
			if len(subprotocols) == subprotocolsMax {
				return nil, badUpgrade("more than 256 subprotocols in Sec-WebSocket-Protocol")
			}
			for i := range len(part) {
				if !tokenByte[part[i]] {
					return nil, badUpgrade("a subprotocol in Sec-WebSocket-Protocol is not a token")
				}
			}
			subprotocols = append(subprotocols, part)
		}
	}
	return subprotocols, nil
}

// AppendSwitchingProtocols appends the answer to a good handshake (RFC 6455, 4.2.2, 5).
// subprotocol is one of those offered, or empty for none. extra, which may be nil, are more
// header lines, each with its CR LF.
func AppendSwitchingProtocols(dst []byte, accept, subprotocol string, extra []byte) []byte {
	dst = append(dst, "HTTP/1.1 101 Switching Protocols\r\n"+
		"Upgrade: websocket\r\n"+
		"Connection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: "...)
	dst = append(dst, accept...)
	dst = append(dst, '\r', '\n')
	if subprotocol != "" {
		dst = append(dst, "Sec-WebSocket-Protocol: "...)
		dst = append(dst, subprotocol...)
		dst = append(dst, '\r', '\n')
	}
	dst = append(dst, extra...)
	return append(dst, '\r', '\n')
}
