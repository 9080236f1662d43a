// Package web is the pages that a gateway serves: the dashboard at "/" and the operator's page at
// "/admin". They are written in TypeScript under dashboard/src and built by `make web` into
// dashboard/built, which is committed and embedded: building a gateway needs no node. They load
// nothing from anywhere else.
//
// The dashboard asks the gateway's own public routes (/api/stream, /ws, /api/publish) and is told
// nothing that any other client would not be told; the operator's page asks the admin routes.
package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"
)

//go:embed dashboard/built
var files embed.FS

const (
	// Prefix is the path under which the files of both pages are served. A router hands everything
	// below it to [Handler], on each listener that serves a page.
	Prefix = "/page/"

	folder        = "dashboard/built"
	dashboardFile = "index.html"
	adminFile     = "admin.html"
)

// contentSecurityPolicy lets a page run its own files and talk to its own origin, nothing else: an
// event's payload, which is a stranger's text, could not start a script even if the page ever put
// it into the document the wrong way.
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
	// zipped gives the content gzipped, made when first asked for: most gateways serve their pages
	// to nobody.
	zipped func() []byte
}

// assets are all embedded files by their path in the folder.
var assets = sync.OnceValue(load)

// Handler serves the dashboard at "/" and the files of both pages below [Prefix]: GET and HEAD,
// gzipped where the client takes it, with an ETag made of the content, so that a browser
// revalidates on each visit and gets 304 until the binary changes. Other methods get 405, other
// paths 404, both as the gateway's JSON errors. The handler is immutable and safe for use by many
// goroutines.
func Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, below := strings.CutPrefix(r.URL.Path, Prefix)
		switch {
		case r.URL.Path == "/":
			name = dashboardFile
		case !below || path.Ext(name) == ".html": // a page has one address, its own
			name = ""
		}
		answer(w, r, name)
	})
}

// AdminHandler serves the operator's page, whatever the path, as [Handler] serves the dashboard. The
// page itself holds no secret; who may read it is its router's to say.
func AdminHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, r, adminFile) })
}

func answer(w http.ResponseWriter, r *http.Request, name string) {
	found, ok := assets()[name]
	switch {
	case !ok:
		refuse(w, http.StatusNotFound, "not_found", "there is nothing at this path; the dashboard is at /")
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, "method_not_allowed", "the page is read with GET or HEAD")
	default:
		serve(w, r, found)
	}
}

func serve(w http.ResponseWriter, r *http.Request, found asset) {
	header := w.Header()
	header.Set("Content-Type", found.contentType)
	header.Set("Cache-Control", "no-cache")
	header.Add("Vary", "Accept-Encoding")
	header.Set("Content-Security-Policy", contentSecurityPolicy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	content, entityTag := found.content, found.entityTag
	if acceptsGzip(r.Header.Values("Accept-Encoding")) {
		content, entityTag = found.zipped(), entityTag+"-gzip"
		header.Set("Content-Encoding", "gzip")
	}
	header.Set("ETag", `"`+entityTag+`"`)
	// The zero time leaves Last-Modified out: the ETag says all there is to say.
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}

// acceptsGzip reads an Accept-Encoding (RFC 9110 12.5.3). A coding with a weight of zero is not
// accepted; other weights are not compared, for there is one coding to choose.
func acceptsGzip(values []string) bool {
	for _, coding := range strings.Split(strings.Join(values, ","), ",") {
		name, weight, _ := strings.Cut(coding, ";")
		if !strings.EqualFold(strings.TrimSpace(name), "gzip") {
			continue
		}
		_, number, weighted := strings.Cut(strings.ToLower(weight), "q=")
		return !weighted || strings.Trim(number, " 0.") != ""
	}
	return false
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// Both parts are constants of this file, so they need no escaping. The client may have gone.
	_, _ = w.Write([]byte(`{"error":{"code":"` + code + `","message":"` + message + "\"}}\n"))
}

// load reads the embedded folder. A file that cannot be served rightly is a mistake of the build,
// which the package's tests would meet first.
func load() map[string]asset {
	found := make(map[string]asset)
	err := fs.WalkDir(files, folder, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		contentType, known := contentTypes[path.Ext(name)]
		if !known {
			panic("web: no content type is known for " + name + ": add it to contentTypes")
		}
		sum := sha256.Sum256(content)
		found[strings.TrimPrefix(name, folder+"/")] = asset{
			content: content, contentType: contentType,
			entityTag: base64.RawURLEncoding.EncodeToString(sum[:12]),
			zipped:    sync.OnceValue(func() []byte { return compress(content) }),
		}
		return nil
	})
	if err != nil {
		panic("web: the pages are not embedded: " + err.Error())
	}
	return found
}

func compress(content []byte) []byte {
	var out bytes.Buffer
	// Neither can fail: the level is one that there is, and a Buffer takes everything.
	writer, _ := gzip.NewWriterLevel(&out, gzip.BestCompression)
	_, _ = writer.Write(content)
	_ = writer.Close()
	return out.Bytes()
}
