package bench

import (
	"context"
	_ "embed" // nchan.conf.tmpl
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"text/template"
)

//go:embed nchan.conf.tmpl
var nchanConfiguration string

// nchan is nginx with Debian's module for it.
type nchan struct{}

func (nchan) name() string { return "nchan" }

func (nchan) about() string {
	return "nginx with the module nchan, one worker process (two where the server has all cores); published by POST to its publisher location. No message buffer, no access log, TCP_NODELAY, backlog 4096."
}

func (nchan) wires() []Wire { return Wires() }

// nchanModules are where distributions put the module.
var nchanModules = []string{"/usr/lib/nginx/modules/ngx_nchan_module.so", "/usr/lib64/nginx/modules/ngx_nchan_module.so"}

func (nchan) module() string {
	for _, path := range nchanModules {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// program finds nginx, which distributions keep off the PATH of users.
func (nchan) program() string {
	for _, name := range []string{"nginx", "/usr/sbin/nginx", "/sbin/nginx"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

func (n nchan) missing(*site) string {
	if n.program() == "" || n.module() == "" {
		return "nginx or its module nchan is not installed (apt-get install nginx libnginx-mod-nchan)"
	}
	return ""
}

func (n nchan) start(ctx context.Context, s *site, _ startOptions) (*server, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(s.directory, "nginx.conf")
	file, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("write nginx's configuration: %w", err)
	}
	err = template.Must(template.New("nginx").Parse(nchanConfiguration)).Execute(file, map[string]any{
		"Address": address, "Directory": s.directory, "Module": n.module(), "Streams": descriptorsMax(),
	})
	if failure := file.Close(); err == nil {
		err = failure
	}
	if err != nil {
		return nil, fmt.Errorf("write nginx's configuration: %w", err)
	}
	// nginx as root gives its workers to another user, who must be able to enter the directory.
	if err := os.Chmod(s.directory, 0o755); err != nil {
		return nil, err
	}
	c, err := s.serve(ctx, launch{
		name: "nginx", path: n.program(),
		arguments: []string{"-p", s.directory, "-c", path, "-e", "stderr"},
	})
	if err != nil {
		return nil, err
	}
	return &server{
		children: []*child{c}, address: address, channel: "job_progress:%d",
		steps: map[Wire][]step{
			SSE:       {requestStep(SSE, "/sse/{channel}", nil, "text/event-stream")},
			WebSocket: {requestStep(WebSocket, "/ws/{channel}", nil, "101 Switching Protocols")},
		},
		feedAddress: address,
		dialect:     &httpDialect{target: "/publish/{channel}", headers: []string{"Content-Type: application/json"}},
	}, c.listening(ctx, address)
}
