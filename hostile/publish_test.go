package hostile

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/millrace/millrace/internal/redistest"
)

// hmacSecret signs the tokens of the cases that use authentication.
const hmacSecret = "a hostile secret of at least thirty-two bytes"

// sign makes an HS256 token of any claims.
func sign(claims map[string]any) string {
	return signAs(map[string]any{"alg": "HS256", "typ": "JWT"}, claims, []byte(hmacSecret))
}

// signAs makes a token with any header, signed by HMAC with any key.
func signAs(header, claims map[string]any, key []byte) string {
	text := unsigned(header, claims)
	code := hmac.New(sha256.New, key)
	code.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(code.Sum(nil))
}

// unsigned is what a token's signature signs.
func unsigned(header, claims map[string]any) string {
	encode := func(value any) string {
		text, err := json.Marshal(value)
		if err != nil {
			panic(err) // a test's own mistake
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	return encode(header) + "." + encode(claims)
}

// publish publishes one event: through Redis where there is one, else through the gateway.
func (w *world) publish(channel, event string) {
	w.Helper()
	if w.redis != nil {
		w.redisCommand("PUBLISH", channel, event)
		return
	}
	if status, body := w.publishHTTP(w.token, channel, event); status != http.StatusOK {
		w.Fatalf("publishing was answered with %d %s", status, body)
	}
}

// publishHTTP publishes through the gateway and gives the answer.
func (w *world) publishHTTP(token, channel, event string) (status int, body string) {
	w.Helper()
	c := w.dial()
	defer c.Close()
	c.say(string(httpPublish(token, channel, event)))
	response, body := c.answer()
	return response.StatusCode, body
}

// redisCommand sends one command to Redis, whatever bytes are in it, and gives the first line of
// the answer.
func (w *world) redisCommand(words ...string) string {
	w.Helper()
	c := dialAt(w.T, w.redisHost, w.redis.Addr, nil)
	defer c.Close()
	if _, err := c.Write(redistest.Encode(words...)); err != nil {
		w.Fatal(err)
	}
	line, err := c.reader.ReadString('\n')
	if err != nil {
		w.Fatalf("Redis did not answer %s: %v", words[0], err)
	}
	if strings.HasPrefix(line, "-") {
		w.Fatalf("Redis answered %s with %s", words[0], line)
	}
	return strings.TrimSpace(line)
}

// pipeline sends many commands at once and waits for a line of each one's answer.
func (w *world) pipeline(address string, commands [][]string) {
	w.Helper()
	c := dialAt(w.T, w.redisHost, address, nil)
	defer c.Close()
	go func() {
		buffered := bufio.NewWriter(c.TCPConn)
		for _, words := range commands {
			_, _ = buffered.Write(redistest.Encode(words...))
		}
		_ = buffered.Flush() // shows as answers that do not come
	}()
	for range commands {
		line, err := c.reader.ReadString('\n')
		if err != nil {
			w.Fatalf("Redis did not answer: %v", err)
		}
		if line[0] == '$' { // a text follows
			if _, err := c.reader.ReadString('\n'); err != nil {
				w.Fatal(err)
			}
		}
	}
}
