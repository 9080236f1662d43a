package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// answerBytesMax bounds what is read of a gateway's answer to a publish or of its error.
const answerBytesMax = 1 << 20

// refusal is a gateway's error answer.
type refusal struct {
	status     int
	code       string // of the answer's error; empty where it is none of a Millrace gateway
	message    string
	retryAfter time.Duration // zero where the gateway names none
}

// readRefusal reads an answer other than 2xx. The body is the caller's to close.
func readRefusal(response *http.Response) *refusal {
	refused := &refusal{status: response.StatusCode}
	if seconds, err := strconv.ParseUint(response.Header.Get("Retry-After"), 10, 16); err == nil {
		refused.retryAfter = time.Duration(seconds) * time.Second
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, answerBytesMax))
	var answer struct {
		Error struct{ Code, Message string }
	}
	if err == nil && json.Unmarshal(body, &answer) == nil {
		refused.code, refused.message = answer.Error.Code, answer.Error.Message
	}
	return refused
}

// Error says what the gateway said and what to do about it.
func (r *refusal) Error() string {
	var line strings.Builder
	fmt.Fprintf(&line, "the gateway answered %d", r.status)
	if r.code != "" {
		fmt.Fprintf(&line, " %s: %s", printable(r.code), printable(r.message))
	} else {
		fmt.Fprintf(&line, " %s", http.StatusText(r.status))
	}
	if advice := r.advice(); advice != "" {
		line.WriteString("; " + advice)
	}
	return line.String()
}

// advice says what to do, where that is known.
func (r *refusal) advice() string {
	switch {
	case r.code == "" && r.status/100 == 3:
		return "it wants to send us elsewhere, which is not followed: give the final address by --url"
	case r.code == "":
		return "is this the address of a Millrace gateway?"
	case r.status == http.StatusUnauthorized:
		return "give a valid token in $MILLRACE_TOKEN; `millrace token --sub USER` mints one for development"
	case r.status == http.StatusForbidden:
		return "the token must allow it (`millrace token --channels ... --publish ...`)"
	case r.retryAfter > 0:
		return fmt.Sprintf("try again in %s", r.retryAfter)
	default:
		return ""
	}
}

// passing says whether the same request may succeed later: the gateway, or the proxy before it,
// is restarting or overloaded.
func (r *refusal) passing() bool {
	switch r.status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusTooManyRequests:
		return true
	default:
		return false
	}
}
