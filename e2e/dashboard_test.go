package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/redistest"
)

// visitors is one browser whose pages show a gateway's dashboard: drivers/dashboard.js.
type visitors struct {
	*process
	// forgives names complaints of the console that a test brings about itself.
	forgives string
}

func startVisitors(t *testing.T, g *gateway) *visitors {
	t.Helper()
	v := &visitors{process: start(t, "the dashboard's visitors", node(t), driver("dashboard.js"), chromium(t), "http://"+g.address)}
	v.polite = 5 * time.Second
	return v
}

// ask has a page do something and gives what it answers.
func (v *visitors) ask(t *testing.T, page int, c command) json.RawMessage {
	t.Helper()
	c["page"] = page
	line, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(v.input, "%s\n", line); err != nil {
		t.Fatalf("%s are gone: %v", v.name, err)
	}
	deadline := time.After(4 * patience)
	for {
		select {
		case line, more := <-v.lines:
			var h heard
			if !more || json.Unmarshal([]byte(line), &h) != nil {
				t.Fatalf("the browser ended with %q before it answered %v", line, c)
			}
			switch {
			case h.Kind == "done":
				return json.RawMessage(h.Data)
			case h.Kind == "error":
				t.Fatal(h.Reason)
			case v.forgives == "" || !strings.Contains(h.Reason, v.forgives):
				t.Errorf("the console complained: %s", h.Reason)
			}
		case <-deadline:
			t.Fatalf("the browser did not answer %v", c)
		}
	}
}

func (v *visitors) see(t *testing.T, page int, text string) {
	t.Helper()
	v.ask(t, page, command{"see": text})
}

// tell gives the value of an expression in the page, as JSON.
func (v *visitors) tell(t *testing.T, page int, expression string) string {
	t.Helper()
	return string(v.ask(t, page, command{"tell": expression}))
}

// dashboardConfig is what the example workers ask for: a state for each index and campaign, a log
// for each job.
func dashboardConfig(t *testing.T) string {
	t.Helper()
	return configFile(t, "jobs: {mode: state, access: public}", "campaign_metrics: {mode: state, access: public}", "job_progress: {mode: log, access: public}")
}

// configFile writes a configuration of namespaces, one a line.
func configFile(t *testing.T, namespaces ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "millrace.yaml")
	text := "namespaces:\n  " + strings.Join(namespaces, "\n  ") + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func jobEvent(id, status string, progress float64) string {
	return fmt.Sprintf(`{"type":"job_progress","jobId":%q,"status":%q,"progress":%g,"message":"from the test","fps":24,"frame":12,"frames":48}`, id, status, progress)
}

func campaignEvent(id string, impressions int) string {
	return fmt.Sprintf(`{"type":"campaign_metrics","campaignId":%q,"impressions":%d,"clicks":50,"conversions":5,"spend":25.5,"revenue":102}`, id, impressions)
}

func alertEvent(id, severity, title string) string {
	return fmt.Sprintf(`{"type":"alert","id":%q,"severity":%q,"title":%q,"message":"from the test","metric":"cpc","value":0.9,"expected":0.6}`, id, severity, title)
}

// TestDashboard: what workers write with plain Redis commands is on the page a moment later, over
// one socket, and moves nothing on it.
func TestDashboard(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	g := startGateway(t, "--redis", redis.URL(), "--config", dashboardConfig(t))
	v := startVisitors(t, g)
	redis.CLI(t, "XADD", "job_progress:job_7", "*", "data", jobEvent("job_7", "processing", 0.25)) // before anybody looks
	v.ask(t, 1, command{"open": "/"})
	v.see(t, 1, "No render has been heard of")
	v.see(t, 1, "No campaign has numbers yet")
	redis.CLI(t, "SET", "jobs:index", `{"type":"index","ids":["job_7"]}`)
	redis.CLI(t, "SET", "campaign_metrics:index", `{"type":"index","ids":["camp_9"]}`)
	redis.CLI(t, "SET", "campaign_metrics:camp_9", campaignEvent("camp_9", 4000))
	v.see(t, 1, "25 %")
	v.see(t, 1, "4,000")
	v.tell(t, 1, "steady()")
	for step := range 5 {
		redis.CLI(t, "XADD", "job_progress:job_7", "*", "data", jobEvent("job_7", "processing", 0.5+float64(step)/100))
		redis.CLI(t, "SET", "campaign_metrics:camp_9", campaignEvent("camp_9", 123456*(step+1)))
		v.see(t, 1, fmt.Sprintf("%d %%", 50+step))
	}
	v.see(t, 1, "617,280")
	redis.CLI(t, "XADD", "job_progress:job_7", "*", "data", jobEvent("job_7", "complete", 1))
	v.see(t, 1, "Done")
	if moved := v.tell(t, 1, "steady()"); moved != "[]" {
		t.Errorf("updates moved %s", moved)
	}
	if s := g.stats(t); s.WebSocket.Connections != 1 || s.SSE.Connections != 0 {
		t.Errorf("the page holds %d sockets and %d event streams, want one and none", s.WebSocket.Connections, s.SSE.Connections)
	}
	redis.CLI(t, "DEL", "campaign_metrics:camp_9")
	v.see(t, 1, "No campaign has numbers yet")
}

// TestDashboardWatch: a channel that no index lists is watched by hand, and still is after a reload.
func TestDashboardWatch(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	v := startVisitors(t, g)
	v.ask(t, 1, command{"open": "/"})
	v.ask(t, 1, command{"fill": "Channel to watch", "text": "job_progress:mine"})
	v.ask(t, 1, command{"press": "Watch"})
	v.see(t, 1, "job_progress:mine")
	// The event is fleeting: it is told until the page listens.
	within(t, patience, "the page shows the job", func() bool {
		g.publish(t, "", "job_progress:mine", jobEvent("mine", "processing", 0.5))
		return strings.Contains(v.tell(t, 1, "document.body.innerText"), "50 %")
	})
	v.ask(t, 1, command{"do": "reload"})
	v.see(t, 1, "job_progress:mine")
	v.ask(t, 1, command{"press": "Stop watching job_progress:mine"})
	v.ask(t, 1, command{"do": "reload"})
	v.see(t, 1, "No render has been heard of")
}

// TestDashboardUnderLoad: thousands of events a second change the page once a frame, and draw each
// chart once.
func TestDashboardUnderLoad(t *testing.T) {
	t.Parallel()
	g := startGateway(t, "--config", configFile(t, "campaign_metrics: {mode: log, access: public}")) // of a log all arrives
	v := startVisitors(t, g)
	v.ask(t, 1, command{"open": "/"})
	v.ask(t, 1, command{"fill": "Channel to watch", "text": "campaign_metrics:busy"})
	v.ask(t, 1, command{"press": "Watch"})
	within(t, patience, "the page shows the campaign", func() bool {
		g.publish(t, "", "campaign_metrics:busy", campaignEvent("busy", 1))
		return strings.Contains(v.tell(t, 1, "document.body.innerText"), "1 live")
	})
	v.tell(t, 1, "counts.texts = counts.frames = counts.draws = 0")
	const events = 3000
	for batch := range events / 1000 {
		g.publishMany(t, "campaign_metrics:busy", 1000, func(n int) string { return campaignEvent("busy", 1000*batch+n+1) })
	}
	within(t, 4*patience, "the page shows the last event", func() bool {
		return strings.Contains(v.tell(t, 1, `document.querySelector(".campaign").innerText`), "3,000")
	})
	var counts struct{ Texts, Frames, Draws int }
	if err := json.Unmarshal([]byte(v.tell(t, 1, "counts")), &counts); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d events: %d changes of the page in %d frames", events, counts.Texts, counts.Frames)
	// A chart's readout follows its drawing, a frame after the numbers beside it.
	if counts.Texts == 0 || counts.Texts > 2*counts.Frames+1 {
		t.Errorf("%d changes of the page in %d frames", counts.Texts, counts.Frames)
	}
	if counts.Draws != 1 {
		t.Errorf("a chart was drawn %d times in one frame", counts.Draws)
	}
}

// TestAlertsReachTheRightUser: two people with tokens look at one gateway, each hears of their own
// alerts, and what one acknowledged stays so.
func TestAlertsReachTheRightUser(t *testing.T) {
	t.Parallel()
	g := startGateway(t, "--auth-hmac-secret", secret)
	v := startVisitors(t, g)
	v.ask(t, 1, command{"open": "/#/alerts", "token": token(t, "--sub", "456")})
	v.ask(t, 2, command{"open": "/#/alerts"})
	v.see(t, 2, "The gateway asks for a token")
	v.ask(t, 2, command{"press": "Guest"})
	v.ask(t, 2, command{"fill": "Token", "text": token(t, "--sub", "457")})
	v.ask(t, 2, command{"press": "Connect"})
	for page, user := range map[int]string{1: "456", 2: "457"} {
		v.see(t, page, "alerts:"+user)
		v.see(t, page, "Live")
	}
	publisher := token(t, "--sub", "ml", "--publish", "*")
	g.publish(t, publisher, "alerts:456", alertEvent("a1", "critical", "For 456 alone"))
	g.publish(t, publisher, "alerts:457", alertEvent("a2", "info", "For 457 alone"))
	v.see(t, 1, "For 456 alone")
	v.see(t, 2, "For 457 alone") // which was published later: the other one would be there
	for page, other := range map[int]string{1: "457", 2: "456"} {
		if text := v.tell(t, page, "document.body.innerText"); strings.Contains(text, "For "+other) {
			t.Errorf("page %d shows another user's alert: %s", page, text)
		}
	}
	if title := v.tell(t, 1, "document.title"); title != `"(1) Alerts · Millrace"` {
		t.Errorf("the title is %s", title)
	}
	if spoken := v.tell(t, 1, `document.querySelector("[aria-live=assertive]").textContent`); !strings.Contains(spoken, "Critical: For 456 alone") {
		t.Errorf("read out at once is %s", spoken)
	}
	v.ask(t, 1, command{"press": "Acknowledge: For 456 alone"})
	v.see(t, 1, "nothing to acknowledge")
	v.ask(t, 1, command{"do": "reload"})
	v.see(t, 1, "For 456 alone")
	v.see(t, 1, "nothing to acknowledge")
	v.see(t, 2, "1 to acknowledge")
}

// TestDashboardConnection: a page says when it has lost the gateway or the network, keeps what it
// shows, and goes on by itself.
func TestDashboardConnection(t *testing.T) {
	t.Parallel()
	config := dashboardConfig(t)
	redis := redistest.Start(t)
	arguments := []string{"--redis", redis.URL(), "--config", config}
	g := startGateway(t, arguments...)
	v := startVisitors(t, g)
	v.forgives = "WebSocket connection to" // there is no gateway for a while
	redis.CLI(t, "SET", "jobs:index", `{"type":"index","ids":["job_7"]}`)
	redis.CLI(t, "XADD", "job_progress:job_7", "*", "data", jobEvent("job_7", "processing", 0.25))
	v.ask(t, 1, command{"open": "/"})
	v.see(t, 1, "25 %")
	g.kill()
	v.see(t, 1, "The connection is lost")
	v.see(t, 1, "25 %")
	v.ask(t, 1, command{"do": "offline"})
	redis.CLI(t, "XADD", "job_progress:job_7", "*", "data", jobEvent("job_7", "processing", 0.5))
	g.restart(t, arguments...)
	v.see(t, 1, "You are offline")
	v.ask(t, 1, command{"do": "online"})
	v.see(t, 1, "50 %")
	within(t, patience, "the page says that it is live", func() bool {
		return v.tell(t, 1, `document.querySelector(".notice") === null`) == "true"
	})
}

// TestStreamsView: any channel is heard on both wires, and what is published in the form comes back.
func TestStreamsView(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	v := startVisitors(t, g)
	v.ask(t, 1, command{"open": "/#/streams"})
	v.ask(t, 1, command{"fill": "Channel to subscribe to", "text": "news:all"})
	v.ask(t, 1, command{"press": "Subscribe"})
	// A socket and a stream for the view, beside the page's own socket.
	within(t, patience, "both wires listen", func() bool {
		s := g.stats(t)
		return s.SSE.Connections == 1 && s.WebSocket.Connections == 2 && strings.Contains(v.tell(t, 1, "document.body.innerText"), "subscribed")
	})
	v.ask(t, 1, command{"fill": "Event, as JSON", "text": `{"type":"hello_page","n":1}`})
	v.ask(t, 1, command{"press": "Publish"})
	v.see(t, 1, "Published")
	within(t, patience, "the event on both wires", func() bool {
		return v.tell(t, 1, `[...document.querySelectorAll(".entry-type")].filter((cell) => cell.textContent === "hello_page").length`) == "2"
	})
	// A row shows the beginning of a message, and all of it to who opens it.
	v.tell(t, 1, `[...document.querySelectorAll(".entry summary")].find((row) => row.textContent.includes("hello_page")).click()`)
	v.see(t, 1, `"n": 1`)
	v.ask(t, 1, command{"fill": "Event, as JSON", "text": `{"type":`})
	v.ask(t, 1, command{"press": "Publish"})
	v.see(t, 1, "This is not JSON")
}

// TestDashboardTheme: a page is as light or dark as the system, until somebody chooses, who finds it
// so the next time; who chooses what the system has follows it from then on.
func TestDashboardTheme(t *testing.T) {
	t.Parallel()
	v := startVisitors(t, startGateway(t))
	v.ask(t, 1, command{"open": "/", "theme": "dark"})
	is := func(want string) {
		t.Helper()
		// What is painted, for that is what the theme is for.
		got := v.tell(t, 1, `[document.documentElement.dataset.theme, getComputedStyle(document.body).backgroundColor, localStorage.getItem("millrace.theme")].join(" ")`)
		if got != strconv.Quote(want) {
			t.Errorf("the theme is %s, want %s", got, want)
		}
	}
	is("dark rgb(12, 19, 18) ")
	v.ask(t, 1, command{"press": "Use the light theme"})
	is("light rgb(244, 246, 244) light")
	v.ask(t, 1, command{"do": "reload"})
	is("light rgb(244, 246, 244) light")
	v.ask(t, 1, command{"press": "Use the dark theme"})
	is("dark rgb(12, 19, 18) ")
}

// TestDashboardLooks: every view, light and dark, on a phone, a desk and a wall: nothing is wider
// than the screen, axe finds nothing to complain of, and neither does the console.
func TestDashboardLooks(t *testing.T) {
	t.Parallel()
	g := startGateway(t, "--config", dashboardConfig(t))
	v := startVisitors(t, g)
	sizes := []struct {
		name          string
		width, height int
		axe           bool
	}{
		{"a phone", 400, 860, true},
		{"a desk", 1280, 900, true},
		{"a wall", 3840, 2160, false}, // the rules are the same as on the desk
	}
	page := 0
	for _, theme := range []string{"light", "dark"} {
		for _, size := range sizes {
			page++
			v.ask(t, page, command{"open": "/?userId=456", "theme": theme, "width": size.width, "height": size.height})
			v.see(t, page, "Live")
		}
	}
	g.publish(t, "", "jobs:index", `{"type":"index","ids":["job_1","job_2","job_3"]}`)
	g.publish(t, "", "campaign_metrics:index", `{"type":"index","ids":["camp_1","camp_2"]}`)
	for n, status := range []string{"processing", "complete", "failed"} {
		id := fmt.Sprintf("job_%d", n+1)
		g.publish(t, "", "job_progress:"+id, jobEvent(id, status, 0.5))
	}
	for n, severity := range []string{"info", "warning", "critical"} {
		g.publish(t, "", "alerts:456", alertEvent(severity, severity, "An alert of some kind"))
		g.publish(t, "", "campaign_metrics:camp_1", campaignEvent("camp_1", 1000*(n+1)))
	}
	page = 0
	for _, theme := range []string{"light", "dark"} {
		for _, size := range sizes {
			page++
			t.Run(theme+" on "+size.name, func(t *testing.T) { v.look(t, page, size.axe) })
		}
	}
}

// look goes through the views of a page.
func (v *visitors) look(t *testing.T, page int, withAxe bool) {
	t.Helper()
	for _, view := range []struct{ hash, shows string }{
		{"#/dashboard", "job_3"},
		{"#/alerts", "An alert of some kind"},
		{"#/council", "No council is in session"},
		{"#/streams", "No channel is subscribed"},
	} {
		v.ask(t, page, command{"go": view.hash})
		v.see(t, page, view.shows)
		if !withAxe {
			if wider := v.tell(t, page, "document.documentElement.scrollWidth > innerWidth"); wider != "false" {
				t.Errorf("%s is wider than the screen", view.hash)
			}
			continue
		}
		var judged struct {
			Overflow   bool
			Violations []string
		}
		if err := json.Unmarshal(v.ask(t, page, command{"judge": true}), &judged); err != nil {
			t.Fatal(err)
		}
		if judged.Overflow {
			t.Errorf("%s is wider than the screen", view.hash)
		}
		for _, violation := range judged.Violations {
			t.Errorf("%s: %s", view.hash, violation)
		}
	}
}

// TestDashboardDemo: whoever starts a demonstration sees a real render finish, campaigns live, and an
// alert of the user demo, with nothing in the console.
func TestDashboardDemo(t *testing.T) {
	t.Parallel()
	g := startGateway(t, "--demo")
	v := startVisitors(t, g)
	v.ask(t, 1, command{"open": "/?userId=demo"})
	v.see(t, 1, "camp_456")
	v.see(t, 1, "Rendering")
	v.see(t, 1, "Done")
	within(t, 2*patience, "an alert", func() bool { return v.tell(t, 1, `document.querySelector("nav .badge") !== null`) == "true" })
	v.ask(t, 1, command{"go": "#/alerts"})
	v.see(t, 1, "expected")
}

// TestDemoEvents: the demo's measurements are events like any other.
func TestDemoEvents(t *testing.T) {
	t.Parallel()
	g := startGateway(t, "--demo")
	for _, k := range foreign {
		t.Run(k.name, func(t *testing.T) {
			c := open(t, k, "http://"+g.address, "", "system:millrace")
			for range 2 {
				h := c.await(t, "a measurement", func(h heard) bool { return h.field("type") == "measurement" })
				for _, field := range []string{"streams", "events", "heapBytes", "goroutines", "cpuPercent", "timestamp"} {
					if h.field(field) == "" {
						t.Errorf("the measurement %s lacks %s", h.Data, field)
					}
				}
			}
		})
	}
}
