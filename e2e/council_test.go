package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

// judge stands in for a provider's API: it says what a test has it say, and tells when nobody asks
// any more.
type judge struct {
	words chan string   // what it says; "" is the end of its answer
	gone  chan struct{} // the gateway has let go of a request
}

func (j *judge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	flusher := http.NewResponseController(w)
	for {
		_ = flusher.Flush() // the gateway may have gone
		select {
		case word := <-j.words:
			if word == "" {
				fmt.Fprint(w, `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`+"\n\ndata: [DONE]\n\n")
				return
			}
			text, err := json.Marshal(word)
			if err != nil {
				panic(err)
			}
			fmt.Fprintf(w, `data: {"choices":[{"index":0,"delta":{"content":%s}}]}`+"\n\n", text)
		case <-r.Context().Done():
			j.gone <- struct{}{}
			return
		}
	}
}

// TestCouncilView: somebody asks a council, watches it speak, reloads in between and misses nothing;
// and who cancels another ends the request to the model.
func TestCouncilView(t *testing.T) {
	t.Parallel()
	model := &judge{words: make(chan string), gone: make(chan struct{}, 8)}
	provider := httptest.NewServer(model)
	t.Cleanup(provider.Close)
	file := filepath.Join(t.TempDir(), "millrace.yaml")
	text := fmt.Sprintf("council:\n  openai: {key: a-key, base_url: %q}\n", provider.URL+"/v1")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	g := startGateway(t, "--config", file)
	v := startVisitors(t, g)
	v.ask(t, 1, command{"open": "/#/council"})
	v.ask(t, 1, command{"fill": "Text to judge", "text": "A headline"})
	v.ask(t, 1, command{"press": "Evaluate"})
	v.see(t, 1, "In session")
	model.words <- "It is"
	v.see(t, 1, "It is")
	model.words <- " short"
	v.see(t, 1, "It is short")
	v.ask(t, 1, command{"do": "reload"})
	v.see(t, 1, "It is short")
	model.words <- ".\n" + `{"score": 0.75, "reason": "One breath."}`
	model.words <- ""
	v.see(t, 1, "Finished")
	v.see(t, 1, "0.75")
	v.see(t, 1, "One breath.")
	v.see(t, 1, "It is short.")

	v.ask(t, 1, command{"press": "Ask again"})
	v.see(t, 1, "In session")
	model.words <- "Once more"
	v.see(t, 1, "Once more")
	v.ask(t, 1, command{"press": "Cancel"})
	v.see(t, 1, "Cancelled")
	within(t, patience, "the request to the model ends", func() bool { return len(model.gone) == 1 })
}
