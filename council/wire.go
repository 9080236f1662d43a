package council

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/millrace/millrace/proto"
)

const (
	// eventBytesMax bounds one event of a provider's stream, answerBytesMax all of it. A provider
	// wraps each few letters into some hundred bytes.
	eventBytesMax  = 256 << 10
	answerBytesMax = 16 << 20
	// errorBytesMax bounds what is read of an answer that is not 200.
	errorBytesMax = 64 << 10
	// readBytes is how much is read at once: a provider sends little at a time. writeBytes is the same of
	// writing, which is done once.
	readBytes  = 2 << 10
	writeBytes = 1 << 10
)

// newClient makes the client that all providers are asked by. It follows no redirect, which would
// carry a key to wherever it points, and decompresses nothing, which would hold text back.
func newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, DisableCompression: true,
			MaxIdleConnsPerHost: 16, IdleConnTimeout: 30 * time.Second, TLSHandshakeTimeout: 10 * time.Second,
			MaxResponseHeaderBytes: 64 << 10, ReadBufferSize: readBytes, WriteBufferSize: writeBytes,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// call is one request to a provider, and how to read the events of its answer.
type call struct {
	url    string
	header map[string]string
	body   any
	// event takes one event: it says what there is to say, and reports whether the answer is whole.
	event func(event proto.SSEEvent, say func(string)) (whole bool, err error)
}

// run sends the request and reads the answer to its end.
func (c *call) run(ctx context.Context, client *http.Client, say func(string)) error {
	body, err := json.Marshal(c.body)
	if err != nil {
		panic(err) // of types of our own: a defect
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return fail(Refused, "the provider's base URL is not one")
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "text/event-stream")
	for name, value := range c.header {
		request.Header.Set(name, value)
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, errorBytesMax)) // as much as came
		return statusFailure(response, errorWord(text), time.Now())
	}
	return c.read(response.Body, say)
}

// read follows the event stream until the answer is whole.
func (c *call) read(body io.Reader, say func(string)) error {
	var decoder proto.SSEDecoder
	room := make([]byte, readBytes)
	all, unfinished := 0, 0
	for {
		n, err := body.Read(room)
		decoder.Feed(room[:n])
		all, unfinished = all+n, unfinished+n
		for {
			event, found := decoder.Next()
			if !found {
				break
			}
			unfinished = 0
			if whole, err := c.event(event, say); whole || err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return fail(BrokenOff, "the answer broke off")
		case err != nil:
			return err
		case unfinished > eventBytesMax:
			return fail(BadFormat, "the provider sent an event of more than %d bytes", eventBytesMax)
		case all > answerBytesMax:
			return fail(TooLong, "the answer is longer than %d bytes", answerBytesMax)
		}
	}
}

// providerError is what all three protocols call an error; Code is a text or a number.
type providerError struct {
	Type   string          `json:"type"`
	Status string          `json:"status"`
	Code   json.RawMessage `json:"code"`
}

// word is the most telling word of an error, "" if it has none that is a word.
func (e *providerError) word() string {
	var code string
	_ = json.Unmarshal(e.Code, &code) // a number stays "": the status says it
	for _, word := range []string{code, e.Type, e.Status} {
		if plainWord(word) != "" {
			return word
		}
	}
	return ""
}

// errorWord finds the provider's word in the body of an answer that is not 200. Gemini may wrap it
// into a list.
func errorWord(body []byte) string {
	var one struct {
		Error *providerError `json:"error"`
	}
	body = bytes.Trim(bytes.TrimSpace(body), "[]")
	if json.Unmarshal(body, &one) != nil || one.Error == nil {
		return ""
	}
	return one.Error.word()
}

// midway words an error that came in the middle of an answer.
func midway(e *providerError) *failure {
	if word := e.word(); word != "" {
		return fail(Failed, "the provider failed in the middle of its answer (%s)", word)
	}
	return fail(Failed, "the provider failed in the middle of its answer")
}

var errNotTheFormat = fail(BadFormat, "the provider sent something that its protocol does not know")
