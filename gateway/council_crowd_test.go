package gateway_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/council"
	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/proto"
)

// crowdCouncils is how many councils TestManyCouncils holds at once.
var crowdCouncils = flag.Int("councils", 50, "councils held at once by TestManyCouncils")

const (
	// crowdRole tells a process of this test that it is the world around the gateway.
	crowdRole = "MILLRACE_TEST_COUNCIL_WORLD"
	// crowdWords is how many words each model says, before the halt in the middle and after it.
	crowdWords = 20
	// crowdPatience bounds each council.
	crowdPatience = 5 * time.Minute
)

// TestManyCouncils holds many councils of four models at once, each with a viewer, and loses nothing
// of what they say. The providers and the viewers are another process, so that the memory of this one is the
// gateway's.
func TestManyCouncils(t *testing.T) {
	count := *crowdCouncils
	world := exec.Command(os.Args[0])
	world.Env = append(os.Environ(), crowdRole+"=1")
	world.Stderr = os.Stderr
	in, err := world.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := world.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := world.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close() // its end
		_ = world.Wait()
	})
	lines := bufio.NewScanner(out)
	told := func(what string) string {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("the world ended before it said %s", what)
		}
		text, found := strings.CutPrefix(lines.Text(), what+" ")
		if !found {
			t.Fatalf("the world said %q, not %s", lines.Text(), what)
		}
		return text
	}
	address := told("serving")
	provider := func(name string) council.Provider {
		return council.Provider{Key: councilKey, Model: "m", BaseURL: address + "/" + name, Timeout: crowdPatience}
	}
	// A busy machine may need longer for so many at once than a person would wait.
	h := serveWith(t, gateway.Options{Council: council.Settings{
		MaxCouncils: count, Deadline: crowdPatience,
		OpenAI: provider("gpt"), Perplexity: provider("perplexity"), Anthropic: provider("claude"), Gemini: provider("gemini"),
	}}, gateway.Timings{Council: council.Timings{Unwatched: crowdPatience}})
	before := memoryNow()
	fmt.Fprintf(in, "%d http://%s\n", count, h.address)
	told("open")
	during := memoryNow()
	if s := h.stats(t).Council; s.Running != count || s.Demo {
		t.Errorf("%+v", s)
	}
	each := func(now, then uint64) uint64 { return (max(now, then) - then) / uint64(count) }
	t.Logf("%d councils of four models, each in the middle of its answer: %d bytes a council (heap %d, stacks %d), %d goroutines in all", count,
		each(during.HeapInuse+during.StackInuse, before.HeapInuse+before.StackInuse), each(during.HeapInuse, before.HeapInuse),
		each(during.StackInuse, before.StackInuse), runtime.NumGoroutine())
	begun := time.Now()
	fmt.Fprintln(in, "go on")
	if whole := told("whole"); whole != fmt.Sprint(count) {
		t.Errorf("%s councils of %d were heard whole", whole, count)
	}
	t.Logf("the second half took %v", time.Since(begun).Round(time.Millisecond))
	within(t, patience, "all councils are over", func() bool { return h.stats(t).Council.Running == 0 })
	if s := h.stats(t); s.Council.Models["scored"] != uint64(4*count) || s.Delivery.Gaps != 0 {
		t.Errorf("%+v, %d gaps", s.Council, s.Delivery.Gaps)
	}
}

func memoryNow() (m runtime.MemStats) {
	runtime.GC()
	runtime.GC() // what finalizers kept
	runtime.ReadMemStats(&m)
	return m
}

// councilWorld is the process around the gateway: the providers, and the viewers.
type councilWorld struct {
	count  int
	goOn   chan struct{}
	mutex  sync.Mutex // guards halted
	halted int        // answers that are in their middle
}

// runCouncilWorld is the main function of that process.
func runCouncilWorld() int {
	w := &councilWorld{goOn: make(chan struct{})}
	server := httptest.NewServer(w)
	defer server.CloseClientConnections()
	fmt.Printf("serving %s\n", server.URL)
	var address string
	if _, err := fmt.Scanln(&w.count, &address); err != nil {
		return 1
	}
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 0, DisableKeepAlives: true}}
	var half, all sync.WaitGroup
	half.Add(w.count)
	failures := make(chan error, w.count)
	for index := range w.count {
		all.Go(func() {
			if err := watchWhole(client, address, index, half.Done); err != nil {
				failures <- fmt.Errorf("council %d: %w", index, err)
			}
		})
	}
	half.Wait()
	w.mutex.Lock()
	fmt.Printf("open %d\n", w.halted)
	w.mutex.Unlock()
	var rest string
	_, _ = fmt.Scanln(&rest, &rest) // or the end: then the answers come to theirs
	close(w.goOn)
	all.Wait()
	whole := w.count - len(failures)
	close(failures)
	for err := range failures {
		fmt.Fprintln(os.Stderr, err)
	}
	fmt.Printf("whole %d\n", whole)
	return 0
}

// ServeHTTP answers as the provider that the path begins with.
func (w *councilWorld) ServeHTTP(writer http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	flush := http.NewResponseController(writer)
	name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	format, end := crowdDialects[name].format, crowdDialects[name].end
	say := func(text string) {
		fmt.Fprintf(writer, format, mustJSON(text))
		_ = flush.Flush()
	}
	for _, word := range crowdText(name, 0) {
		say(word)
	}
	w.mutex.Lock()
	w.halted++
	w.mutex.Unlock()
	select {
	case <-w.goOn:
	case <-r.Context().Done():
		return
	}
	for _, word := range crowdText(name, crowdWords) {
		say(word)
	}
	say("\n{\"score\":0.5,\"reason\":\"" + name + "\"}")
	_, _ = io.WriteString(writer, end)
}

// crowdDialects are how the providers say a text, and how they end.
var crowdDialects = map[string]struct{ format, end string }{
	"gpt":        {"data: {\"choices\":[{\"delta\":{\"content\":%s}}]}\n\n", "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"},
	"perplexity": {"data: {\"choices\":[{\"delta\":{\"content\":%s}}]}\n\n", "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"},
	"claude":     {"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":%s}}\n\n", "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"},
	"gemini":     {"data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":%s}]}}]}\r\n\r\n", "data: {\"candidates\":[{\"finishReason\":\"STOP\"}]}\r\n\r\n"},
}

// crowdText is half of what a model says, from a word on.
func crowdText(name string, from int) (words []string) {
	for index := range crowdWords {
		words = append(words, fmt.Sprintf("%s%d ", name, from+index))
	}
	return words
}

// watchWhole begins a council, says when it has heard the first half of all models, and wants all of it
// in the end.
func watchWhole(client *http.Client, address string, index int, half func()) error {
	halved := sync.OnceFunc(half)
	defer halved()
	response, err := client.Get(address + councilRoute + "?userId=" + fmt.Sprint("user", index) + "&prompt=" + url.QueryEscape(councilPrompt))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	texts, scores := make(map[string]string), 0
	reader := bufio.NewReader(response.Body)
	var decoder proto.SSEDecoder
	for {
		line, err := reader.ReadBytes('\n')
		decoder.Feed(line)
		for event, found := decoder.Next(); found; event, found = decoder.Next() {
			switch event.Event {
			case "complete":
				return crowdVerdict(texts, scores)
			case "gap":
				return errors.New("a gap")
			case "message":
				var told struct {
					Model, Chunk, Text string
					Score              *float64
				}
				if err := json.Unmarshal([]byte(event.Data), &told); err != nil {
					return err
				}
				if told.Text != "" {
					texts[told.Model] = told.Text // it had begun to speak before its viewer was there
				}
				texts[told.Model] += told.Chunk
				if told.Score != nil {
					scores++
				}
			}
		}
		if len(texts) == len(crowdDialects) && crowdHalf(texts) {
			halved()
		}
		if err != nil {
			return fmt.Errorf("%d: %w", response.StatusCode, err)
		}
	}
}

func crowdHalf(texts map[string]string) bool {
	for name, text := range texts {
		if text != strings.Join(crowdText(name, 0), "") {
			return false
		}
	}
	return true
}

func crowdVerdict(texts map[string]string, scores int) error {
	for name := range crowdDialects {
		if want := strings.Join(append(crowdText(name, 0), crowdText(name, crowdWords)...), "") + "\n"; texts[name] != want {
			return fmt.Errorf("%s said %q, want %q", name, texts[name], want)
		}
	}
	if scores != len(crowdDialects) {
		return fmt.Errorf("%d scores", scores)
	}
	return nil
}
