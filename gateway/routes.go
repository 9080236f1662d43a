package gateway

import (
	"context"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"

	"github.com/millrace/millrace/web"
)

// route is one path of the API.
type route struct {
	methods []string // GET includes HEAD
	serve   http.HandlerFunc
	admin   bool
	prefix  bool // the path and everything below it
	// document marks an admin route that holds no secret and that a browser opens.
	document bool
	// everywhere marks what the admin listener serves too.
	everywhere bool
	// parks marks routes whose answer a loop writes: what is said here to pages of other origins
	// (CORS) would not be sent.
	parks bool
}

// allowed are the methods of a route with OPTIONS, which is answered everywhere.
func (r route) allowed() []string { return append(slices.Clone(r.methods), http.MethodOptions) }

// routes gives the API by path.
func (g *Gateway) routes() map[string]route {
	get, post := []string{http.MethodGet, http.MethodHead}, []string{http.MethodPost}
	page := web.Handler().ServeHTTP
	return map[string]route{
		"/ws":                    {methods: get, serve: g.serveWebSocket, parks: true},
		"/api/stream":            {methods: get, serve: g.serveStream, parks: true},
		councilPath:              {methods: append(get, http.MethodPost, http.MethodDelete), serve: g.serveCouncil, parks: true},
		"/api/publish":           {methods: post, serve: g.servePublish},
		"/api/realtime/stats":    {methods: get, serve: g.serveStats, everywhere: true},
		"/healthz":               {methods: get, serve: g.serveHealth, everywhere: true},
		"/readyz":                {methods: get, serve: g.serveReady, everywhere: true},
		"/metrics":               {methods: get, serve: g.serveMetrics, admin: true},
		"/api/admin/explain":     {methods: get, serve: g.serveExplain, admin: true},
		"/api/admin/streams":     {methods: get, serve: g.serveStreams, admin: true},
		"/api/admin/disconnect":  {methods: post, serve: g.serveDisconnect, admin: true},
		"/api/admin/unsubscribe": {methods: post, serve: g.serveUnsubscribe, admin: true},
		"/debug/pprof/":          {methods: append(get, http.MethodPost), serve: servePprof, admin: true, prefix: true},
		"/admin":                 {methods: get, serve: web.AdminHandler().ServeHTTP, admin: true, document: true},
		"/":                      {methods: get, serve: page},
		web.Prefix:               {methods: get, serve: page, prefix: true, everywhere: true},
	}
}

type adminListenerKey struct{}

// isAdminListener reports whether a request came in on admin-listen.
func isAdminListener(r *http.Request) bool { return r.Context().Value(adminListenerKey{}) != nil }

// handler serves the routes; on the admin listener the admin ones, health and the pages' files
// alone, elsewhere, while there is an admin listener, all but the admin ones.
func (g *Gateway) handler(admin bool) http.Handler {
	table := g.routes()
	for path, one := range table {
		if admin && !one.admin && !one.everywhere || !admin && one.admin && g.options.AdminListen != "" {
			delete(table, path)
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if admin {
			r = r.WithContext(context.WithValue(r.Context(), adminListenerKey{}, true))
		}
		g.serve(table, w, r)
	})
}

func (g *Gateway) serve(table map[string]route, w http.ResponseWriter, r *http.Request) {
	one, found := find(table, r.URL.Path)
	if !found {
		if g.options.Handler != nil {
			g.options.Handler.ServeHTTP(w, r)
			return
		}
		g.answer(w, r, refuse(refuseNotFound, "there is nothing at this path"))
		return
	}
	if r.Method == http.MethodOptions {
		allowed := one.allowed()
		g.origins.Preflight(w.Header(), r, allowed...)
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if !one.parks {
		g.origins.CORS(w.Header(), r)
	}
	if !slices.Contains(one.methods, r.Method) {
		g.answer(w, r, methodRefusal(one.allowed()))
		return
	}
	if one.admin {
		may := g.mayAdminister
		if one.document {
			may = g.mayOpenAdmin
		}
		if err := may(r); err != nil {
			g.answer(w, r, refusalOf(err))
			return
		}
	}
	one.serve(w, r)
}

func find(table map[string]route, path string) (route, bool) {
	if one, found := table[path]; found {
		return one, true
	}
	for prefix, one := range table {
		if one.prefix && strings.HasPrefix(path, prefix) {
			return one, true
		}
	}
	return route{}, false
}

// servePprof hands over to net/http/pprof.
func servePprof(w http.ResponseWriter, r *http.Request) {
	switch strings.TrimPrefix(r.URL.Path, "/debug/pprof/") {
	case "cmdline":
		pprof.Cmdline(w, r)
	case "profile":
		pprof.Profile(w, r)
	case "symbol":
		pprof.Symbol(w, r)
	case "trace":
		pprof.Trace(w, r)
	default:
		pprof.Index(w, r)
	}
}
