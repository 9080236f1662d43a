package bench

import (
	"strings"
	"testing"
)

func TestDialectJudge(t *testing.T) {
	web := &httpDialect{target: "/publish/{channel}"}
	tests := []struct {
		name    string
		dialect dialect
		bytes   string
		answers int
		rest    string
		refusal string
	}{
		{name: "redis counts", dialect: redisDialect{}, bytes: ":1\r\n:20\r\n", answers: 2},
		{name: "redis cut", dialect: redisDialect{}, bytes: ":1\r\n:2", answers: 1, rest: ":2"},
		{name: "redis says OK, and ids", dialect: redisDialect{}, bytes: "+OK\r\n$3\r\n1-0\r\n$3\r\n2-0\r\n", answers: 3},
		{name: "redis cuts an id", dialect: redisDialect{}, bytes: "$3\r\n1-0\r\n$3\r\n2-0\r", answers: 1, rest: "$3\r\n2-0\r"},
		{name: "redis refuses", dialect: redisDialect{}, bytes: ":1\r\n-OOM no\r\n", answers: 1, rest: "-OOM no\r\n", refusal: "OOM"},
		{name: "http without a body", dialect: web, bytes: "HTTP/1.1 204 No Content\r\n\r\n", answers: 1},
		{
			name: "http with lengths", dialect: web, answers: 2,
			bytes: "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n",
		},
		{
			name: "http body cut", dialect: web, rest: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
			bytes: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
		},
		{name: "http in chunks", dialect: web, answers: 1, bytes: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"},
		{name: "http refuses", dialect: web, bytes: "HTTP/1.1 403 Forbidden\r\n\r\n", rest: "HTTP/1.1 403 Forbidden\r\n\r\n", refusal: "403"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			rest, answers, err := test.dialect.judge([]byte(test.bytes))
			if answers != test.answers || string(rest) != test.rest {
				t.Errorf("%d answers and %q left, expected %d and %q", answers, rest, test.answers, test.rest)
			}
			if (err != nil) != (test.refusal != "") || err != nil && !strings.Contains(err.Error(), test.refusal) {
				t.Errorf("error %v, expected one with %q", err, test.refusal)
			}
		})
	}
}

func TestDialectPublish(t *testing.T) {
	tests := []struct {
		name    string
		dialect dialect
		request string
	}{
		{"line", lineDialect{}, "c:1 {}\n"},
		{"redis", redisDialect{}, "*3\r\n$7\r\nPUBLISH\r\n$3\r\nc:1\r\n$2\r\n{}\r\n"},
		{
			"a state", stateKeys.dialect, "*3\r\n$3\r\nSET\r\n$3\r\nc:1\r\n$2\r\n{}\r\n",
		},
		{
			"a log", logKeys.dialect, "*5\r\n$4\r\nXADD\r\n$3\r\nc:1\r\n$1\r\n*\r\n$4\r\ndata\r\n$2\r\n{}\r\n",
		},
		{
			"redis of centrifuge",
			redisDialect{prefix: "centrifuge.client.", wrap: centrifugeMessage},
			"*3\r\n$7\r\nPUBLISH\r\n$21\r\ncentrifuge.client.c:1\r\n$4\r\n\x22\x02{}\r\n",
		},
		{
			"http", &httpDialect{target: "/publish/{channel}", headers: []string{"X: y"}},
			"POST /publish/c:1 HTTP/1.1\r\nHost: 127.0.0.1\r\nX: y\r\nContent-Length: 2\r\n\r\n{}",
		},
		{
			"our API", &httpDialect{target: "/api/publish", body: millraceBody},
			"POST /api/publish HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 28\r\n\r\n{\"channel\":\"c:1\",\"event\":{}}",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := string(test.dialect.appendPublish(nil, "c:1", []byte("{}"))); got != test.request {
				t.Errorf("got %q, expected %q", got, test.request)
			}
		})
	}
}
