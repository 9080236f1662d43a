package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/redistest"
)

// adminReport is what a visit of the operator's page told.
type adminReport struct {
	Seen struct {
		Standing    string   `json:"standing"`
		Row         string   `json:"row"`
		Explanation string   `json:"explanation"`
		Focus       string   `json:"focus"`
		Question    string   `json:"question"`
		Address     string   `json:"address"`
		Shifts      []string `json:"shifts"`
	} `json:"seen"`
	Wrong []string `json:"wrong"`
}

// stall opens an SSE stream of a user on two channels and never reads from it, publishes until the
// gateway says that it is slow, and gives its client id.
func stall(t *testing.T, g *gateway) (client string) {
	t.Helper()
	conn, err := net.Dial("tcp", g.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.(*net.TCPConn).SetReadBuffer(16 << 10); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET /api/stream?channel=events:1&channel=events:2&userId=456 HTTP/1.1\r\nHost: %s\r\n\r\n", g.address)
	pad := strings.Repeat("x", 32<<10)
	within(t, patience, "the stream to be slow", func() bool {
		g.publish(t, "", "events:1", `{"pad":"`+pad+`"}`)
		var list struct {
			Streams []struct{ Client, State string }
		}
		g.getJSON(t, "/api/admin/streams?slow=1", &list)
		if len(list.Streams) == 0 || list.Streams[0].State != "dropping" {
			return false
		}
		client = list.Streams[0].Client
		return true
	})
	return client
}

func (g *gateway) getJSON(t *testing.T, path string, into any) {
	t.Helper()
	response, err := httpClient.Get("http://" + g.address + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s answered %d", path, response.StatusCode)
	}
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// TestAdminPage: an operator sees a client that does not read, why it is slow, and ends it. Nothing
// on the page moves by itself, complains, or keeps anybody out.
func TestAdminPage(t *testing.T) {
	t.Parallel()
	g := startGateway(t, "--max-queue-bytes", "256KiB", "--progress-timeout", "10m")
	client := stall(t, g)
	report := visitAdmin(t, "http://"+g.address+"/admin", client)
	for what, found := range map[string][3]string{
		"the standing":    {report.Seen.Standing, "Healthy"},
		"the row":         {report.Seen.Row, "456", "Dropping"},
		"the explanation": {report.Seen.Explanation, "events:2", "It stands still"},
		"the question":    {report.Seen.Question, "may connect again"},
		"the focus":       {report.Seen.Focus, "Explain " + client},
	} {
		for _, want := range found[1:] {
			if !strings.Contains(found[0], want) {
				t.Errorf("%s is %q, want %q in it", what, found[0], want)
			}
		}
	}
	if len(report.Seen.Shifts) > 0 {
		t.Errorf("the page moved by itself: %s", strings.Join(report.Seen.Shifts, "; "))
	}
}

// TestAdminPageIsForAdmins: who comes through a proxy needs a token with the claim admin, in a cookie
// or once in the address, where it does not stay. On an address of its own the page needs none, and
// is nowhere else.
func TestAdminPageIsForAdmins(t *testing.T) {
	t.Parallel()
	g := startGateway(t, "--auth-hmac-secret", secret)
	url := "http://" + g.address + "/admin"
	visit := start(t, "who comes to the door", node(t), driver("admin-door.js"), chromium(t), url,
		token(t, "--sub", "1"), token(t, "--sub", "2", "--admin"))
	type way struct {
		Status            int
		Standing, Address string
	}
	var found map[string]way
	var line string
	select {
	case line = <-visit.lines:
	case <-time.After(6 * patience): // five browsers' worth of visits
	}
	if err := json.Unmarshal([]byte(line), &found); err != nil {
		t.Fatalf("the visit ended early, with %q", line)
	}
	in := way{http.StatusOK, "Healthy", url}
	for name, want := range map[string]way{
		"nobody": {Status: http.StatusForbidden}, "user": {Status: http.StatusForbidden},
		"userInTheAddress": {Status: http.StatusForbidden}, "admin": in, "adminInTheAddress": in,
	} {
		if found[name] != want {
			t.Errorf("%s finds %+v, want %+v", name, found[name], want)
		}
	}
	if log := g.complaints(); strings.Contains(log, "eyJ") {
		t.Errorf("a token is in the log:\n%s", log)
	}
	apart := &gateway{address: "127.0.0.1:" + freePort(t)}
	beside := startGateway(t, "--auth-hmac-secret", secret, "--admin-listen", apart.address)
	if status := beside.status("/admin"); status != http.StatusNotFound {
		t.Errorf("beside its own address the page answers %d", status)
	}
	for _, path := range []string{"/admin", "/page/assets/admin.js", "/api/admin/streams", "/api/realtime/stats"} {
		if status := apart.status(path); status != http.StatusOK {
			t.Errorf("on its own address %s answers %d", path, status)
		}
	}
}

// TestAdminPageWhileThingsBreak: the page says that Redis does not deliver, or that the gateway
// is gone, and by itself that all is well again.
func TestAdminPageWhileThingsBreak(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	g := startGateway(t, "--redis", redis.URL())
	watch := start(t, "who watches", node(t), driver("admin-watch.js"), chromium(t), "http://"+g.address+"/admin")
	watch.polite = 5 * time.Second
	see := func(word, text string) {
		t.Helper()
		fmt.Fprintf(watch.input, "{\"see\":%q}\n", word)
		select {
		case line := <-watch.lines:
			var told struct{ Kind, Data string }
			if err := json.Unmarshal([]byte(line), &told); err != nil || !strings.Contains(told.Data, text) {
				t.Fatalf("the page says %s, in the words %q, want %q", word, line, text)
			}
		case <-time.After(6 * patience):
			t.Fatalf("the page does not say %s", word)
		}
	}
	see("Healthy", "Serving for")
	redis.Stop()
	see("Degraded", "Redis does not deliver")
	redis.Cont()
	see("Healthy", "Serving for")
	again := g.restart(t, "--redis", redis.URL())
	see("Healthy", "Serving for")
	again.kill()
	see("No answer", "What you see is from before")
}

// visitAdmin has a browser do what drivers/admin.js does, and wants nothing to be wrong.
func visitAdmin(t *testing.T, url, client string) adminReport {
	t.Helper()
	visit := start(t, "the operator", node(t), driver("admin.js"), chromium(t), url, client)
	var line string
	select {
	case line = <-visit.lines:
	case <-time.After(12 * patience): // it looks at much, and long on a busy machine
	}
	var report adminReport
	if err := json.Unmarshal([]byte(line), &report); err != nil {
		t.Fatalf("the visit ended early, with %q", line)
	}
	for _, wrong := range report.Wrong {
		t.Error(wrong)
	}
	return report
}
