package web_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/millrace/millrace/web"
)

func ask(handler http.Handler, method, path string, header http.Header) *http.Response {
	request := httptest.NewRequest(method, path, nil)
	for name, values := range header {
		request.Header[name] = values
	}
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, request)
	return recorder.Result()
}

func get(path string, header http.Header) *http.Response {
	return ask(web.Handler(), "GET", path, header)
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
	dashboard, admin := web.Handler(), web.AdminHandler()
	cases := []struct {
		name         string
		handler      http.Handler
		method, path string
		status       int
		contentType  string
		holds        string
	}{
		{"the dashboard", dashboard, "GET", "/", 200, "text/html; charset=utf-8", "/page/assets/dashboard.js"},
		{"its script", dashboard, "GET", "/page/assets/dashboard.js", 200, "text/javascript; charset=utf-8", "import"},
		{"its style", dashboard, "GET", "/page/assets/shared.css", 200, "text/css; charset=utf-8", "data-theme"},
		{"its icon", dashboard, "GET", "/page/icon.svg", 200, "image/svg+xml", "<svg"},
		{"HEAD", dashboard, "HEAD", "/", 200, "text/html; charset=utf-8", ""},
		{"POST", dashboard, "POST", "/", 405, "application/json", `"code":"method_not_allowed"`},
		{"a missing file", dashboard, "GET", "/page/none.js", 404, "application/json", `"code":"not_found"`},
		{"the folder", dashboard, "GET", "/page/", 404, "application/json", `"code":"not_found"`},
		{"a folder in it", dashboard, "GET", "/page/assets", 404, "application/json", `"code":"not_found"`},
		{"the dashboard by its file's name", dashboard, "GET", "/page/index.html", 404, "application/json", `"code":"not_found"`},
		{"the operator's page, which is not its", dashboard, "GET", "/page/admin.html", 404, "application/json", `"code":"not_found"`},
		{"a path that climbs", dashboard, "GET", "/page/../web.go", 404, "application/json", `"code":"not_found"`},
		{"a path above", dashboard, "GET", "/assets/dashboard.js", 404, "application/json", `"code":"not_found"`},
		{"the operator's page", admin, "GET", "/admin", 200, "text/html; charset=utf-8", "/page/assets/admin.js"},
		{"POST to it", admin, "POST", "/admin", 405, "application/json", `"code":"method_not_allowed"`},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			response := ask(test.handler, test.method, test.path, nil)
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
	for _, coding := range []string{"", "gzip"} {
		t.Run("coding "+coding, func(t *testing.T) {
			accept := func(tag string) http.Header {
				return http.Header{"Accept-Encoding": {coding}, "If-None-Match": {tag}}
			}
			first := get("/", accept(""))
			tag := first.Header.Get("ETag")
			if tag == "" || first.Header.Get("Cache-Control") != "no-cache" || first.Header.Get("Vary") != "Accept-Encoding" {
				t.Fatalf("the headers are %v: want an ETag, no-cache and Vary", first.Header)
			}
			again := get("/", accept(tag))
			if again.StatusCode != http.StatusNotModified || body(t, again) != "" {
				t.Errorf("the same tag got %d, want 304 and no body", again.StatusCode)
			}
			if other := get("/", accept(`"other"`)); other.StatusCode != http.StatusOK {
				t.Errorf("another tag got %d, want 200", other.StatusCode)
			}
		})
	}
	plain, zipped := get("/", nil), get("/", http.Header{"Accept-Encoding": {"gzip"}})
	if plain.Header.Get("ETag") == zipped.Header.Get("ETag") {
		t.Error("two codings share a tag, so a cache could hand out one for the other (RFC 9110 8.8.3.3)")
	}
}

func TestCodings(t *testing.T) {
	plain := body(t, get("/page/assets/shared.css", nil))
	cases := []struct {
		name, accept string
		zipped       bool
	}{
		{"a browser's", "gzip, deflate, br, zstd", true},
		{"in capitals, with a weight", "br;q=1.0, GZIP; q=0.8", true},
		{"refused by a weight of zero", "gzip;q=0.00, *", false},
		{"another", "br", false},
		{"a longer name", "xgzip, gzipx", false},
		{"none", "", false},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			response := get("/page/assets/shared.css", http.Header{"Accept-Encoding": {test.accept}})
			got := body(t, response)
			if coding := response.Header.Get("Content-Encoding"); (coding == "gzip") != test.zipped {
				t.Fatalf("Content-Encoding is %q", coding)
			}
			if test.zipped {
				reader, err := gzip.NewReader(bytes.NewReader([]byte(got)))
				if err != nil {
					t.Fatal(err)
				}
				content, err := io.ReadAll(reader)
				if err != nil {
					t.Fatal(err)
				}
				got = string(content)
			}
			if got != plain {
				t.Error("the content differs from the plain one")
			}
		})
	}
}

// TestNothingFromElsewhere holds the pages to their content security policy: no inline script or
// style, which the policy would block, and nothing loaded from another host.
func TestNothingFromElsewhere(t *testing.T) {
	policy := get("/", nil).Header.Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, part) {
			t.Errorf("the policy %q lacks %q", policy, part)
		}
	}
	if strings.Contains(policy, "unsafe") {
		t.Errorf("the policy %q allows what it must not", policy)
	}
	inline := regexp.MustCompile(`(?i)<script(\s+type="\w+")?>|<style|\sstyle=|\son[a-z]+=`)
	elsewhere := regexp.MustCompile(`(?i)(?:src|href)="(?:https?:)?//|url\((?:["']?(?:https?:)?//|["']?data:)|@import`)
	seen := 0
	built := os.DirFS("dashboard/built")
	err := fs.WalkDir(built, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(built, name)
		if err != nil {
			return err
		}
		seen++
		extension := path.Ext(name)
		if found := inline.Find(text); found != nil && extension == ".html" {
			t.Errorf("%s holds %q, which the policy blocks", name, found)
		}
		if found := elsewhere.Find(text); found != nil && extension != ".js" {
			t.Errorf("%s loads from elsewhere, or from a data: address, which the policy blocks: %q", name, found)
		}
		return nil
	})
	if err != nil || seen < 6 {
		t.Fatalf("found %d built files (%v)", seen, err)
	}
}
