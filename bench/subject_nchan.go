package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"text/template"
)

// nchan is nginx with Debian's module for it, configured as the peers' folder says.
type nchan struct{}

func (nchan) name() string { return "nchan" }

func (nchan) about() string {
	return "nginx with the module nchan, configured by bench/peers/nchan, one worker process a core; published by POST to its publisher location on one kept connection. " +
		"No message buffer, no pings, no access log, small pools, backlog 4096."
}

func (nchan) wires() []Wire { return Wires() }

// nchanModule is where Debian puts the module, as the configuration has it.
const nchanModule = "/usr/lib/nginx/modules/ngx_nchan_module.so"

// program finds nginx, which distributions keep off the PATH of users.
func (nchan) program() string {
	for _, name := range []string{"nginx", "/usr/sbin/nginx", "/sbin/nginx"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

func (nchan) configuration(s *site) string { return filepath.Join(s.peers, "nchan", "nginx.conf.tmpl") }

func (n nchan) missing(s *site) string {
	if _, err := os.Stat(nchanModule); err != nil || n.program() == "" {
		return "nginx or its module nchan is not installed (apt-get install nginx libnginx-mod-nchan)"
	}
	if _, err := os.Stat(n.configuration(s)); err != nil {
		return noSources(s)
	}
	return ""
}

// noSources says why nothing of the peers' folder can be used.
func noSources(s *site) string {
	return fmt.Sprintf("its folder is not in %s: run from a clone, or say with --peers where it is", s.peers)
}

func (n nchan) start(ctx context.Context, s *site, _ startOptions) (*server, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	path, err := n.configure(s, address)
	if err != nil {
		return nil, fmt.Errorf("write nginx's configuration: %w", err)
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
			WebSocket: {requestStep(WebSocket, "/ws/{channel}", nil, switching)},
		},
		feedAddress: address,
		dialect:     &httpDialect{target: "/publish/{channel}", headers: []string{"Content-Type: application/json"}},
	}, c.listening(ctx, address)
}

// nginxSpare is how many of its descriptors nginx gets less than the system allows.
const nginxSpare = 100

// configure writes the configuration for one start and gives its path.
func (n nchan) configure(s *site, address string) (string, error) {
	text, err := template.ParseFiles(n.configuration(s))
	if err != nil {
		return "", err
	}
	// nginx as root gives its workers to another user, who must be able to enter the directory.
	if err := os.Chmod(s.directory, 0o755); err != nil {
		return "", err
	}
	// One of its own for each start: they write a pid file there.
	directory := filepath.Join(s.directory, "nginx-"+portOf(address))
	if err := os.Mkdir(directory, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(directory, "nginx.conf")
	file, err := os.Create(path)
	if err != nil {
		return "", err
	}
	// A worker a core that it may use.
	workers := len(s.place.server)
	if workers == 0 {
		workers = runtime.NumCPU()
	}
	err = text.Execute(file, map[string]any{
		"Directory": directory, "Listen": address, "Workers": workers, "Connections": descriptorsMax() - nginxSpare,
	})
	if failure := file.Close(); err == nil {
		err = failure
	}
	return path, err
}
