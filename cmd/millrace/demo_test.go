package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// listening reads a channel of a gateway as a browser would, until it ends.
type listening struct {
	t      *testing.T
	events chan map[string]any
}

// listen begins to read an address of a gateway.
func listen(t *testing.T, address string) *listening {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	l := &listening{t: t, events: make(chan map[string]any, 1000)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer response.Body.Close()
		scanner := bufio.NewScanner(response.Body)
		for scanner.Scan() {
			var event map[string]any
			if data, found := strings.CutPrefix(scanner.Text(), "data: "); found && json.Unmarshal([]byte(data), &event) == nil {
				l.events <- event
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		transport.CloseIdleConnections()
	})
	return l
}

// until gives the first event that matches.
func (l *listening) until(what string, match func(event map[string]any) bool) map[string]any {
	l.t.Helper()
	for deadline := time.After(4 * patience); ; {
		select {
		case event := <-l.events:
			if match(event) {
				return event
			}
		case <-deadline:
			l.t.Fatalf("%s was not heard", what)
		}
	}
}

// child is a process that another one started.
type child struct {
	name string
	open []string // what its descriptors are of
}

// children looks at the children of a process.
func children(t *testing.T, process int) (all []child) {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", process))
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		ids, _ := os.ReadFile(list) // the thread may have ended
		for id := range strings.FieldsSeq(string(ids)) {
			name, _ := os.ReadFile("/proc/" + id + "/comm")
			one := child{name: strings.TrimSpace(string(name))}
			descriptors, _ := filepath.Glob("/proc/" + id + "/fd/*")
			for _, descriptor := range descriptors {
				target, _ := os.Readlink(descriptor)
				one.open = append(one.open, target)
			}
			all = append(all, one)
		}
	}
	if _, err := exec.LookPath("ffmpeg"); err == nil && len(all) == 0 {
		t.Error("ffmpeg is installed, and no child renders")
	}
	return all
}

func ofType(name string) func(map[string]any) bool {
	return func(event map[string]any) bool { return event["type"] == name }
}

// TestDemoWorkers: serve --demo renders, replays and alerts, one command and nothing else.
func TestDemoWorkers(t *testing.T) {
	t.Parallel()
	started, address := startGateway(t, invocation{arguments: []string{"--demo"}})
	stream := address + "/api/stream?channel="
	alerts := listen(t, address+"/api/stream?userId="+demoUser+"&channel=system:millrace")
	other := listen(t, address+"/api/stream?userId=other&channel=campaign_metrics:camp_123")
	job := listen(t, stream+"job_progress:job_123&since=0")

	index := listen(t, stream+"campaign_metrics:index").until("the index of campaigns", ofType("index"))
	if ids, _ := index["ids"].([]any); !slices.Contains(ids, any("camp_456")) {
		t.Errorf("the index is %v", index)
	}
	metrics := listen(t, stream+"campaign_metrics:camp_456").until("a campaign", ofType("campaign_metrics"))
	if metrics["impressions"] == nil || metrics["ctr"] == nil {
		t.Errorf("the campaign is %v", metrics)
	}
	jobs := listen(t, stream+"jobs:index").until("the index of jobs", ofType("index"))
	if ids, _ := jobs["ids"].([]any); !slices.Contains(ids, any("job_123")) {
		t.Errorf("the index is %v", jobs)
	}
	alerts.until("a measurement", ofType("measurement"))

	job.until("the job in the queue", func(event map[string]any) bool { return event["status"] == "queued" })
	job.until("the job in work", func(event map[string]any) bool { return event["status"] == "processing" })
	for _, child := range children(t, started.command.Process.Pid) {
		for _, open := range child.open {
			if strings.HasPrefix(open, "socket:") || strings.HasPrefix(open, "anon_inode:") {
				t.Errorf("%s has inherited %s", child.name, open)
			}
		}
	}
	end := job.until("the end of the job", func(event map[string]any) bool { return event["status"] == "complete" || event["status"] == "failed" })
	if end["status"] != "complete" || end["progress"] != 1.0 {
		t.Errorf("the job ended with %v", end)
	}
	alert := alerts.until("an alert", ofType("alert"))
	if alert["campaignId"] != "camp_123" || alert["metric"] == nil || alert["severity"] == nil {
		t.Errorf("the alert is %v", alert)
	}
	for range len(other.events) {
		if event := <-other.events; event["type"] == "alert" {
			t.Errorf("another user heard %v", event)
		}
	}
	started.signal(syscall.SIGINT)
	if ended := started.wait(); ended.code != 0 || strings.Contains(ended.stderr, "could not") {
		t.Errorf("exit code %d:\n%s", ended.code, ended.stderr)
	}
}
