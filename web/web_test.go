package web_test

import (
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/millrace/millrace/web"
)

func get(t *testing.T, method, path string, header http.Header) *http.Response {
	t.Helper()
	request := httptest.NewRequest(method, path, nil)
	for name, values := range header {
		request.Header[name] = values
	}
	recorder := httptest.NewRecorder()
	web.Handler().ServeHTTP(recorder, request)
	return recorder.Result()
}

func body(t *testing.T, response *http.Response) string {
	t.Helper()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestAnswers(t *testing.T) {
	cases := []struct {
		name, method, path string
		status             int
		contentType        string
		holds              string
	}{
		{"the page", "GET", "/", 200, "text/html; charset=utf-8", "<title>Millrace</title>"},
		{"its style", "GET", "/page/page.css", 200, "text/css; charset=utf-8", "prefers-color-scheme"},
		{"its script", "GET", "/page/page.js", 200, "text/javascript; charset=utf-8", "import"},
		{"its icon", "GET", "/page/icon.svg", 200, "image/svg+xml", "<svg"},
		{"HEAD", "HEAD", "/", 200, "text/html; charset=utf-8", ""},
		{"POST", "POST", "/", 405, "application/json", `"code":"method_not_allowed"`},
		{"a missing file", "GET", "/page/none.js", 404, "application/json", `"code":"not_found"`},
		{"the folder", "GET", "/page/", 404, "application/json", `"code":"not_found"`},
		{"the page by its file's name", "GET", "/page/index.html", 404, "application/json", `"code":"not_found"`},
		{"a path that climbs", "GET", "/page/../web.go", 404, "application/json", `"code":"not_found"`},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			response := get(t, test.method, test.path, nil)
			if response.StatusCode != test.status {
				t.Errorf("status %d, want %d", response.StatusCode, test.status)
			}
			if got := response.Header.Get("Content-Type"); got != test.contentType {
				t.Errorf("Content-Type %q, want %q", got, test.contentType)
			}
			if test.status == 405 && response.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("Allow %q, want GET, HEAD", response.Header.Get("Allow"))
			}
			if got := body(t, response); !strings.Contains(got, test.holds) {
				t.Errorf("the body lacks %q", test.holds)
			}
		})
	}
}

func TestRevalidation(t *testing.T) {
	first := get(t, "GET", "/", nil)
	tag := first.Header.Get("ETag")
	if tag == "" || first.Header.Get("Cache-Control") != "no-cache" {
		t.Fatalf("ETag %q, Cache-Control %q: want a tag and no-cache", tag, first.Header.Get("Cache-Control"))
	}
	again := get(t, "GET", "/", http.Header{"If-None-Match": {tag}})
	if again.StatusCode != http.StatusNotModified || body(t, again) != "" {
		t.Errorf("the same tag got %d, want 304 and no body", again.StatusCode)
	}
	other := get(t, "GET", "/", http.Header{"If-None-Match": {`"other"`}})
	if other.StatusCode != http.StatusOK {
		t.Errorf("another tag got %d, want 200", other.StatusCode)
	}
}

// TestNothingFromElsewhere holds the page to its content security policy: no inline script or
// style, which the policy would block, and no address of another host.
func TestNothingFromElsewhere(t *testing.T) {
	policy := get(t, "GET", "/", nil).Header.Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, part) {
			t.Errorf("the policy %q lacks %q", policy, part)
		}
	}
	inline := regexp.MustCompile(`(?i)<script(\s+type="\w+")?>|<style|\sstyle=|\son[a-z]+=`)
	elsewhere := regexp.MustCompile(`(?:https?|wss?)://[a-z0-9.]+`)
	page := os.DirFS("page")
	names, err := fs.Glob(page, "*")
	if err != nil || len(names) < 5 {
		t.Fatalf("the page's folder holds %v (%v)", names, err)
	}
	for _, name := range names {
		text, err := fs.ReadFile(page, name)
		if err != nil {
			t.Fatal(err)
		}
		if found := inline.Find(text); found != nil {
			t.Errorf("page/%s holds %q, which the policy blocks", name, found)
		}
		for _, found := range elsewhere.FindAllString(string(text), -1) {
			if found != "http://www.w3.org" && found != "http://HOST" { // the name of SVG, an example
				t.Errorf("page/%s names another host: %s", name, found)
			}
		}
	}
}
