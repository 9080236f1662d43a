// Package web is the small page that a gateway serves at "/": live events in a browser over
// either wire, with nothing to install. The page is plain HTML, CSS and JavaScript modules,
// embedded in the binary; it loads nothing from anywhere else and needs no build step.
//
// The page asks the gateway's own public routes (/api/stream, /ws, /api/publish) and is told
// nothing that any other client would not be told.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"net/http"
	"path"
	"time"
)

//go:embed page
var files embed.FS

// Prefix is the path under which the page's own files are served, beside "/" itself. A router
// hands "/" and everything below Prefix to [Handler].
const Prefix = "/page/"

// contentSecurityPolicy lets the page run its own files and talk to its own origin, nothing
// else: an event's payload, which is a stranger's text, could not start a script even if the
// page ever put it into the document the wrong way.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// asset is one embedded file, ready to serve. Immutable.
type asset struct {
	content     []byte
	contentType string
	entityTag   string
}

// Handler serves the page at "/" and its files below [Prefix]: GET and HEAD, with an ETag made
// of the content, so that a browser revalidates on each visit and gets 304 until the binary
// changes. Other methods get 405, other paths 404, both as the gateway's JSON errors. The
// handler is immutable and safe for use by many goroutines.
func Handler() http.Handler {
	assets := load()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		found, ok := assets[r.URL.Path]
		switch {
		case !ok:
			refuse(w, http.StatusNotFound, "not_found", "there is nothing at this path; the page is at /")
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			refuse(w, http.StatusMethodNotAllowed, "method_not_allowed", "the page is read with GET or HEAD")
		default:
			serve(w, r, found)
		}
	})
}

func serve(w http.ResponseWriter, r *http.Request, found asset) {
	header := w.Header()
	header.Set("Content-Type", found.contentType)
	header.Set("ETag", found.entityTag)
	header.Set("Cache-Control", "no-cache")
	header.Set("Content-Security-Policy", contentSecurityPolicy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	// The zero time leaves Last-Modified out: the ETag says all there is to say.
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(found.content))
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// Both parts are constants of this file, so they need no escaping. The client may have gone.
	_, _ = w.Write([]byte(`{"error":{"code":"` + code + `","message":"` + message + "\"}}\n"))
}

// load reads the embedded folder into a map from URL path to asset. A file that cannot be
// served rightly is a mistake of the build, which the package's tests would meet first.
func load() map[string]asset {
	entries, err := files.ReadDir("page")
	if err != nil {
		panic("web: the page is not embedded: " + err.Error())
	}
	assets := make(map[string]asset, len(entries))
	for _, entry := range entries {
		content, err := files.ReadFile("page/" + entry.Name())
		if err != nil {
			panic("web: " + err.Error())
		}
		contentType, ok := contentTypes[path.Ext(entry.Name())]
		if !ok {
			panic("web: no content type is known for page/" + entry.Name() + ": add it to contentTypes")
		}
		sum := sha256.Sum256(content)
		found := asset{content, contentType, `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`}
		if entry.Name() == "index.html" {
			assets["/"] = found
			continue
		}
		assets[Prefix+entry.Name()] = found
	}
	return assets
}
