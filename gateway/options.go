package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"github.com/millrace/millrace/council"
	"github.com/millrace/millrace/gateway/access"
)

// Options says how a gateway behaves. The zero value, completed by [New], is a gateway on
// 127.0.0.1:8080 with the memory broker, no authentication and the default limits. Each field is
// also a setting of the command of the same name in kebab case; docs/configuration.md has them
// in one table. For every limit the zero value takes the default; [NoLimit] (0 in flags,
// environment and file) switches the limit off. Limits are per process.
type Options struct {
	// Listen is the TCP address to serve on. Default 127.0.0.1:8080. Without authentication it
	// must be a loopback address unless InsecureNoAuth is set. Port 0 takes a free one
	// ([Gateway.Addr] says which).
	Listen string
	// AdminListen, where set, moves metrics, pprof and the admin API to an address of their own.
	AdminListen string
	// Listener and AdminListener, where set, are TCP listeners that were opened elsewhere, by systemd
	// for instance, and are served on instead of Listen and AdminListen. [New] takes them over: they
	// are closed from then on, also if it fails.
	Listener, AdminListener net.Listener
	// ReusePort lets several gateways share Listen by SO_REUSEPORT.
	ReusePort bool

	// Redis is where events come from: redis://HOST:PORT, rediss://, a comma list for a Cluster,
	// or redis+sentinel://HOST:PORT/MASTER. Empty: the memory of this process.
	Redis string
	// ChannelPrefix goes before every channel's name in Redis.
	ChannelPrefix string

	Auth AuthOptions
	// InsecureNoAuth allows a Listen that is not loopback without authentication.
	InsecureNoAuth bool
	// AllowedOrigins lists, besides the Host itself, the exact origins (scheme://host[:port])
	// whose pages may connect.
	AllowedOrigins []string
	// TrustedProxies lists the addresses (CIDR) whose X-Forwarded-For is believed.
	TrustedProxies []string

	// ProxyProtocol says that connections from TrustedProxies begin with a header of the PROXY
	// protocol, version 1 or 2. It says nothing of AdminListen.
	ProxyProtocol bool

	// Namespaces says what channel types mean. Nil takes the defaults of the contract:
	// job_progress, video_render, campaign_metrics and alerts. The key "default" is every other type.
	Namespaces map[string]access.Namespace
	// Personal lists types T for which every connection with a user is subscribed to T:<user>.
	// Nil means ["alerts"] where Namespaces is nil too; empty means none.
	Personal []string
	// Broadcast lists channels that every connection is subscribed to.
	Broadcast []string

	// DisableCompression sends nothing compressed, whatever clients ask for and namespaces allow, and
	// agrees on no compression of what clients send.
	DisableCompression bool

	Limits Limits

	// Council says who sits in the councils of /api/stream/council-score, and what they may cost. The
	// zero value is the built-in demo council.
	Council council.Settings

	// Loops is the number of event loops; 0 takes all cores up to 3, one fewer from 4 on.
	Loops int
	// WithoutIOURing has each socket written to by a system call of its own, even where the kernel
	// would take many by one.
	WithoutIOURing bool
	// Demo publishes the process's own measurements on system:millrace, for a page with live data,
	// and makes the channels of the example workers what they need where Namespaces is nil:
	// job_progress then has mode log, campaign_metrics and jobs have mode state. The workers
	// themselves are started by `millrace serve --demo`.
	Demo bool
	// Memory is what bounds the memory of this process. Near the bound no new streams are taken, and
	// then streams whose clients do not read, or do not finish what they say, are closed. Nil: nothing is watched.
	Memory MemoryBound
	// Logger takes the gateway's log lines. Nil: slog.Default().
	Logger *slog.Logger
	// LogLinesDropped, where set, says how many lines Logger has dropped so far, since it would not
	// keep the gateway waiting: they are part of millrace_log_lines_dropped_total. It must not block.
	LogLinesDropped func() uint64
	// Handler, where set, serves every request that no route of the gateway takes.
	Handler http.Handler
}

// AuthOptions says whose tokens are believed. All empty means no authentication.
type AuthOptions struct {
	// HMACSecret verifies HS256; at least 32 bytes.
	HMACSecret []byte
	// PublicKeyPEM verifies RS256, ES256 or EdDSA, by the type of the key.
	PublicKeyPEM []byte
	// JWKSURL is fetched for keys; each key's own algorithm is pinned.
	JWKSURL string
	// Audience and Issuer, where set, must be in the token.
	Audience, Issuer string
	// UserClaim names the claim that is the user's id. Default "sub".
	UserClaim string
}

// NoLimit switches a limit of [Limits] off.
const NoLimit = -1

// Limits bounds what one process gives away. Zero takes the default, [NoLimit] removes the bound.
type Limits struct {
	MaxConnections           int           // all streams of the process. Default: 90% of the descriptor limit
	MaxConnectionsPerUser    int           // streams of one user. Default 100
	MaxConnectionsPerAddress int           // streams of one address (IPv6: /64), loopback exempt. Default 1000
	MaxSubscriptions         int           // channels of one stream. Default 100
	MaxHeaderBytes           int           // request head. Default 16 KiB
	MaxMessageBytes          int           // WebSocket message of a client. Default 64 KiB
	MaxEventBytes            int           // one published event. Default 1 MiB
	MaxQueueBytes            int           // unsent bytes of one stream. Default 1 MiB, at least 256 KiB
	MaxQueueAge              time.Duration // of what a stream has unsent, before it counts as slow. Default 30 s
	ProgressTimeout          time.Duration // a stream whose socket took nothing for so long while something waits is closed. Default 60 s
	MaxReplayBytes           int           // events kept for clients that come back, all channels together. Default 64 MiB
	MaxStreamAge             time.Duration // jittered. Default off
	CommandsPerSecond        int           // WebSocket commands of one stream, bursts of 4 times that. Default 50
	AcceptRate               int           // new connections a second of the listener. Default off
	HandshakeTimeout         time.Duration // from accept to the end of the request head. Default 10 s
	DrainTimeout             time.Duration // from SIGTERM to exit. Default 20 s
}

const queueBytesMin = 256 << 10

// authenticated reports whether tokens are verified.
func (o *Options) authenticated() bool {
	return len(o.Auth.HMACSecret) > 0 || len(o.Auth.PublicKeyPEM) > 0 || o.Auth.JWKSURL != ""
}

// Check says what is wrong with the options, without starting anything.
func (o Options) Check() error {
	_, err := o.completed()
	return err
}

// completed fills in the defaults and checks what belongs together.
func (o Options) completed() (Options, error) {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:8080"
	}
	if o.Listener != nil {
		o.Listen = o.Listener.Addr().String()
	}
	if o.AdminListener != nil {
		o.AdminListen = o.AdminListener.Addr().String()
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	switch {
	case o.Loops == 0:
		o.Loops = loopsDefault()
	case o.Loops < 0 || o.Loops > 62:
		return o, fmt.Errorf("loops: %d is not in 1..62 (0 takes the default)", o.Loops)
	}
	host, _, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return o, fmt.Errorf("listen: %q is not host:port", o.Listen)
	}
	if !o.authenticated() && !o.InsecureNoAuth && !isLoopbackHost(host) {
		return o, fmt.Errorf("listen: %s serves more than this machine, and without authentication every channel would be open: set auth-hmac-secret, auth-public-key-file or auth-jwks-url, listen on 127.0.0.1, or set insecure-no-auth", o.Listen)
	}
	if o.AdminListen != "" {
		if _, _, err := net.SplitHostPort(o.AdminListen); err != nil {
			return o, fmt.Errorf("admin-listen: %q is not host:port", o.AdminListen)
		}
	}
	if o.ProxyProtocol && len(o.TrustedProxies) == 0 {
		return o, errors.New("proxy-protocol: nobody is trusted to send its header: name the proxies in trusted-proxies")
	}
	if err := o.Council.Validate(); err != nil {
		return o, err
	}
	return o, o.Limits.complete()
}

// closeListeners closes what was opened elsewhere. More than one call is harmless.
func (o *Options) closeListeners() {
	for _, listener := range []net.Listener{o.Listener, o.AdminListener} {
		if listener != nil {
			_ = listener.Close()
		}
	}
}

func isLoopbackHost(host string) bool {
	if host == "localhost" {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.IsLoopback()
}

// complete fills in the defaults and checks the bounds.
func (l *Limits) complete() error {
	descriptors := descriptorLimit()
	for _, limit := range []struct {
		name     string
		value    *int
		fallback int
	}{
		{"max-connections", &l.MaxConnections, descriptors * 9 / 10},
		{"max-connections-per-user", &l.MaxConnectionsPerUser, 100},
		{"max-connections-per-address", &l.MaxConnectionsPerAddress, 1000},
		{"max-subscriptions", &l.MaxSubscriptions, 100},
		{"max-header-bytes", &l.MaxHeaderBytes, 16 << 10},
		{"max-message-bytes", &l.MaxMessageBytes, 64 << 10},
		{"max-event-bytes", &l.MaxEventBytes, 1 << 20},
		{"max-queue-bytes", &l.MaxQueueBytes, 1 << 20},
		{"max-replay-bytes", &l.MaxReplayBytes, 64 << 20},
		{"commands-per-second", &l.CommandsPerSecond, 50},
		{"accept-rate", &l.AcceptRate, NoLimit},
	} {
		switch {
		case *limit.value == 0:
			*limit.value = limit.fallback
		case *limit.value < NoLimit:
			return fmt.Errorf("%s: %d is negative", limit.name, *limit.value)
		}
	}
	if l.MaxConnections > descriptors {
		return fmt.Errorf("max-connections: %d streams need as many descriptors, and this process may have %d: raise LimitNOFILE (ulimit -n) or lower it", l.MaxConnections, descriptors)
	}
	if l.MaxQueueBytes != NoLimit && l.MaxQueueBytes < queueBytesMin {
		return fmt.Errorf("max-queue-bytes: %d is under %d: a burst would already count as slow", l.MaxQueueBytes, queueBytesMin)
	}
	if l.MaxMessageBytes == NoLimit || l.MaxHeaderBytes == NoLimit {
		return fmt.Errorf("max-message-bytes and max-header-bytes bound what a stranger makes the gateway keep: they cannot be switched off")
	}
	return l.completeTimes()
}

// completeTimes is complete for the spans of time.
func (l *Limits) completeTimes() error {
	for _, limit := range []struct {
		name     string
		value    *time.Duration
		fallback time.Duration
		least    time.Duration
	}{
		{"max-queue-age", &l.MaxQueueAge, 30 * time.Second, time.Second},
		{"progress-timeout", &l.ProgressTimeout, 60 * time.Second, time.Second},
		{"max-stream-age", &l.MaxStreamAge, NoLimit, 0},
		{"handshake-timeout", &l.HandshakeTimeout, 10 * time.Second, 0},
		{"drain-timeout", &l.DrainTimeout, 20 * time.Second, 0},
	} {
		switch {
		case *limit.value == 0:
			*limit.value = limit.fallback
		case *limit.value == NoLimit:
		case *limit.value < limit.least || *limit.value < 0:
			return fmt.Errorf("%s: %v is under %v", limit.name, *limit.value, limit.least)
		}
	}
	return nil
}

// descriptorLimit is how many descriptors this process may have.
func descriptorLimit() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 1024
	}
	return int(min(limit.Cur, 1<<30))
}
