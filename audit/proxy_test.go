package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

const message = ">3\r\n$7\r\nmessage\r\n$8\r\nevents:1\r\n$2\r\n{}\r\n"

// TestAppendValue cuts what Redis says into whole values, which must come out as they went in.
func TestAppendValue(t *testing.T) {
	values := []string{
		"+OK\r\n", "-ERR no\r\n", ":5\r\n", "_\r\n", "#t\r\n", ",1.5\r\n", "$-1\r\n", "$0\r\n\r\n", "$4\r\na\r\nb\r\n", "*0\r\n", "*-1\r\n",
		"*2\r\n$1\r\na\r\n*1\r\n:1\r\n", "%1\r\n+a\r\n*1\r\n:2\r\n", "~1\r\n+a\r\n", message, ">2\r\n$10\r\ninvalidate\r\n*1\r\n$5\r\nlog:1\r\n",
	}
	reader := bufio.NewReader(strings.NewReader(strings.Join(values, "")))
	for _, want := range values {
		got, err := appendValue(nil, reader)
		if err != nil || string(got) != want {
			t.Errorf("%q became %q, %v", want, got, err)
		}
	}
	if _, err := appendValue(nil, reader); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	for _, bad := range []string{"x\r\n", "*x\r\n", "$x\r\n", "%x\r\n"} {
		if _, err := appendValue(nil, bufio.NewReader(strings.NewReader(bad))); !errors.Is(err, errValue) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestProxySwallows loses one message of many, and nothing else.
func TestProxySwallows(t *testing.T) {
	canary := strings.Replace(message, "$8\r\nevents:1", "$17\r\n__millrace:canary", 1)
	var from, to bytes.Buffer
	const rounds = 2 * swallowEvery
	for range rounds {
		from.WriteString(message + "+OK\r\n" + canary)
	}
	var p proxy
	p.carry(&to, &from)
	if got := strings.Count(to.String(), message); got != rounds-2 || p.swallowed.Load() != 2 {
		t.Errorf("%d of %d messages came through, %d are counted as swallowed", got, rounds, p.swallowed.Load())
	}
	if answers, canaries := strings.Count(to.String(), "+OK\r\n"), strings.Count(to.String(), canary); answers != rounds || canaries != rounds {
		t.Errorf("%d answers and %d canaries of %d came through", answers, canaries, rounds)
	}
}
