package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"

	"github.com/millrace/millrace/internal/settings"
)

// targetFlags say whom publish and tail talk to: a gateway by HTTP, or Redis itself.
type targetFlags struct {
	settings.ConfigSettings `embed:""`
	settings.RedisSettings  `embed:""`

	URL   string          `name:"url" placeholder:"URL" group:"Gateway" help:"A gateway, such as http://127.0.0.1:8080; without --url and --redis the one that the configuration describes. ($$MILLRACE_URL)"`
	Token settings.Secret `name:"token" placeholder:"TOKEN" group:"Gateway" help:"Token for the gateway; better given as $$MILLRACE_TOKEN, which other users of the machine don't see."`
}

// target is whom to talk to: either redis or gateway is set.
type target struct {
	settings settings.Settings
	redis    settings.RedisURL
	gateway  *url.URL
	token    string
}

// resolve decides between Redis and a gateway: a flag before the environment, the environment
// before the file, and where nothing says anything, the gateway of this machine.
func (t *targetFlags) resolve(world *process) (*target, error) {
	configured := settings.Default()
	configured.ConfigSettings, configured.RedisSettings = t.ConfigSettings, t.RedisSettings
	loaded := settings.Load(configured, world.given, world.environment)
	if len(loaded.Problems) > 0 {
		return nil, loaded.Problems
	}
	chosen := &target{settings: loaded.Settings, token: string(t.Token)}
	if chosen.token == "" {
		chosen.token = world.variable("MILLRACE_TOKEN")
	}
	redisGiven, address := slices.Contains(world.given, "redis"), t.URL
	switch {
	case redisGiven && address != "":
		return nil, errUsage("--redis and --url exclude each other: give the one to talk to")
	case address == "" && !redisGiven:
		address = world.variable("MILLRACE_URL")
	}
	if address == "" && loaded.Settings.Redis != "" {
		chosen.redis = loaded.Settings.Redis
		return chosen, nil
	}
	if address == "" {
		address = addressOf(loaded.Settings.Listen)
	}
	gateway, err := parseGatewayURL(address)
	if err != nil {
		return nil, usageError{err}
	}
	chosen.gateway = gateway
	return chosen, nil
}

// variable gives the value of an environment variable, or nothing.
func (p *process) variable(name string) string {
	for _, line := range p.environment {
		if value, found := strings.CutPrefix(line, name+"="); found {
			return value
		}
	}
	return ""
}

// addressOf gives the URL at which a gateway with this listen setting is reached from here.
func addressOf(listen settings.Address) string {
	// The setting was checked.
	host, port, err := net.SplitHostPort(string(listen))
	if err != nil || host == "" || host == "0.0.0.0" || host == "::" {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// parseGatewayURL accepts scheme, host and a path before which the gateway's own paths stand. It
// never repeats the text, in which somebody may have put a token.
func parseGatewayURL(text string) (*url.URL, error) {
	parsed, err := url.Parse(text)
	switch {
	case err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.Hostname() == "":
		return nil, errors.New("--url: expected http://HOST:PORT or https://HOST, such as http://127.0.0.1:8080")
	case parsed.User != nil || parsed.RawQuery != "" || parsed.Fragment != "":
		return nil, errors.New("--url: expected no user, ? or # in it; a token goes into $MILLRACE_TOKEN or --token")
	}
	parsed.Path = strings.TrimRight(parsed.Path, "/")
	return parsed, nil
}

// authorize adds the token to a request.
func (t *target) authorize(request *http.Request) {
	request.Header.Set("User-Agent", userAgent())
	if t.token != "" {
		request.Header.Set("Authorization", "Bearer "+t.token)
	}
}

// errGatewayUnreachable says why a request got no answer and what to do. The cause loses the URL that
// net/http repeats, for it is said already and may be long.
func (t *target) errGatewayUnreachable(err error) error {
	var requestError *url.Error
	if errors.As(err, &requestError) {
		err = requestError.Err
	}
	hint := ""
	if errors.Is(err, syscall.ECONNREFUSED) {
		hint = "; start one with `millrace serve`, or name another by --url or a Redis by --redis"
	}
	return fmt.Errorf("no gateway answers at %s: %w%s", t.gateway, err, hint)
}
