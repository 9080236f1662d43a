package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/gateway/access"
)

// quiet keeps the log of an example out of its output.
var quiet = slog.New(slog.DiscardHandler)

// A Go program carries the gateway inside: make it, run it, and end it by its context.
func Example() {
	g, err := gateway.New(gateway.Options{Listen: "127.0.0.1:0", Logger: quiet})
	if err != nil {
		log.Fatal(err) // says which option is wrong
	}
	ctx, stop := context.WithCancel(context.Background()) // in a program: signal.NotifyContext
	ended := make(chan error)
	go func() { ended <- g.Run(ctx) }()

	// Anybody who speaks HTTP can listen.
	response, err := http.Get("http://" + g.Addr().String() + "/api/stream?channel=job_progress:job_123")
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "event: ") {
			fmt.Println(lines.Text())
			break
		}
	}
	stop() // drains: streams are sent away, each in the words of its wire
	_, _ = io.Copy(io.Discard, response.Body)
	fmt.Println("ended with", <-ended)
	// Output:
	// event: connected
	// ended with <nil>
}

// running starts a gateway for an example; stop ends it.
func running(options gateway.Options) (g *gateway.Gateway, stop func()) {
	options.Listen, options.Logger = "127.0.0.1:0", quiet
	g, err := gateway.New(options)
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := g.Run(ctx); err != nil {
			log.Print(err)
		}
	}()
	return g, func() { cancel(); <-ended }
}

func ExampleGateway_Publish() {
	g, stop := running(gateway.Options{})
	defer stop()
	result, err := g.Publish(context.Background(),
		gateway.Event{Channel: "job_progress:job_123", Data: []byte(`{"type":"job_progress","progress":0.75}`)},
		gateway.Event{Channel: "job_progress:job_123", Data: []byte(`{"type":"job_progress","progress":1}`)},
	)
	fmt.Println(len(result.IDs), result.Distributed, err)

	_, err = g.Publish(context.Background(), gateway.Event{Channel: "job_progress", Data: []byte(`{}`)})
	fmt.Println(err)
	// Output:
	// 2 true <nil>
	// event 0: bad channel "job_progress" at byte 12: a channel has two or three parts, as in type:id or type:id:userId
}

func ExampleGateway_Subscribe() {
	g, stop := running(gateway.Options{})
	defer stop()
	heard := make(chan gateway.Notice, 1)
	unsubscribe, err := g.Subscribe("job_progress:job_123", func(n gateway.Notice) {
		select {
		case heard <- n: // a callback must not block
		default:
		}
	})
	if err != nil {
		log.Fatal(err)
	}
	defer unsubscribe()
	_, err = g.Publish(context.Background(), gateway.Event{Channel: "job_progress:job_123", Data: []byte(`{"progress":0.75}`)})
	if err != nil {
		log.Fatal(err)
	}
	notice := <-heard
	fmt.Println(notice.Channel, string(notice.Data))
	// Output:
	// job_progress:job_123 {"progress":0.75}
}

// A listener of a state is told the value that it has, and every newer one.
func ExampleGateway_Subscribe_state() {
	g, stop := running(gateway.Options{Namespaces: map[string]access.Namespace{
		"campaign_metrics": {Mode: access.State},
	}})
	defer stop()
	set := func(value string) {
		event := gateway.Event{Channel: "campaign_metrics:camp_456", Data: []byte(value)}
		if _, err := g.Publish(context.Background(), event); err != nil { // SET, where there is a Redis
			log.Fatal(err)
		}
	}
	set(`{"clicks":7}`)
	told := make(chan gateway.Notice, 10)
	unsubscribe, err := g.Subscribe("campaign_metrics:camp_456", func(n gateway.Notice) { told <- n })
	if err != nil {
		log.Fatal(err)
	}
	defer unsubscribe()
	fmt.Println(string((<-told).Data))
	set(`{"clicks":8}`)
	fmt.Println(string((<-told).Data))
	// Output:
	// {"clicks":7}
	// {"clicks":8}
}

// What is added to a log has an id, behind which any client can go on, on any gateway.
func ExampleGateway_Publish_log() {
	g, stop := running(gateway.Options{Namespaces: map[string]access.Namespace{
		"job_progress": {Mode: access.Log},
	}})
	defer stop()
	result, err := g.Publish(context.Background(), // XADD, where there is a Redis
		gateway.Event{Channel: "job_progress:job_123", Data: []byte(`{"progress":0.5}`)},
		gateway.Event{Channel: "job_progress:job_123", Data: []byte(`{"progress":1}`)},
	)
	if err != nil {
		log.Fatal(err)
	}
	response, err := http.Get("http://" + g.Addr().String() + "/api/stream?channel=job_progress:job_123&since=" + url.QueryEscape(result.IDs[0]))
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if data, isData := strings.CutPrefix(lines.Text(), "data: "); isData && !strings.Contains(data, "connected") {
			fmt.Println(data)
			if strings.Contains(data, "replayed") {
				break
			}
		}
	}
	// Output:
	// {"progress":1}
	// {"type":"replayed","channel":"job_progress:job_123","count":1}
}

func ExampleGateway_SendToUser() {
	g, stop := running(gateway.Options{Personal: []string{"alerts"}})
	defer stop()
	// Every stream of user 456 hears this, on every gateway, without having asked.
	_, err := g.SendToUser(context.Background(), "456", []byte(`{"type":"alert","severity":"warning"}`))
	fmt.Println(err)
	// Output:
	// <nil>
}

// A program's own routes stand on the same address; the gateway's come first.
func ExampleOptions_handler() {
	routes := http.NewServeMux()
	routes.HandleFunc("GET /hello", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s", r.URL.Query().Get("name"))
	})
	g, stop := running(gateway.Options{Handler: routes})
	defer stop()
	for _, path := range []string{"/hello?name=you", "/healthz"} {
		response, err := http.Get("http://" + g.Addr().String() + path)
		if err != nil {
			log.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(response.StatusCode, strings.TrimSpace(string(body)))
	}
	http.DefaultClient.CloseIdleConnections()
	// Output:
	// 200 hello you
	// 200 {"status":"alive"}
}
