package settings

import (
	"github.com/millrace/millrace/council"
	"github.com/millrace/millrace/gateway/access"
)

// Settings is every setting of the gateway. The zero value is not useful: start from [Default].
//
// Tags: name is the name in flags and file; default and help are what they say; bound describes
// the values that are allowed, min, max, auto and zero are the same for the machine; secret marks what is
// never shown in whole; only:"file" and file:"no" say where a setting may not stand.
type Settings struct {
	ConfigSettings
	ServerSettings
	RedisSettings
	TokenSettings
	KeySettings
	LimitSettings
	LogSettings
	ChannelSettings
	CouncilSettings
}

// ConfigSettings says where the file is.
type ConfigSettings struct {
	Config string `name:"config" file:"no" placeholder:"FILE" group:"Settings" help:"YAML file with settings of these same names." bound:"a readable file of at most 1MiB"`
}

// ServerSettings says where and how the gateway serves.
type ServerSettings struct {
	Listen         Address  `name:"listen" default:"127.0.0.1:8080" group:"Server" help:"Address to serve on; port 0 takes a free one." bound:"HOST:PORT; without authentication a loopback address"`
	AdminListen    Address  `name:"admin-listen" placeholder:"HOST:PORT" group:"Server" help:"Separate address for the page /admin, metrics, pprof and the admin API." bound:"HOST:PORT, not the same as listen"`
	ReusePort      bool     `name:"reuse-port" group:"Server" help:"Let several gateways of this machine share the address (SO_REUSEPORT)." bound:"true or false"`
	AllowedOrigins []Origin `name:"allowed-origins" placeholder:"ORIGIN" group:"Server" help:"Origins, besides the Host itself, whose pages may connect." bound:"scheme://host[:port], exactly"`
	TrustedProxies []Prefix `name:"trusted-proxies" placeholder:"CIDR" group:"Server" help:"Proxies whose X-Forwarded-For is believed." bound:"addresses or CIDR ranges"`
	ProxyProtocol  bool     `name:"proxy-protocol" group:"Server" help:"Connections from trusted-proxies, and no others, begin with a PROXY header (version 1 or 2)." bound:"true or false"`
	Compression    string   `name:"compression" default:"auto" enum:"auto,off" group:"Server" help:"auto: as clients ask for it and namespaces allow it; off: none." bound:"auto, off"`
	Loops          Count    `name:"loops" default:"auto" auto:"yes" zero:"no" min:"1" max:"62" group:"Server" help:"Event loops; auto: all cores up to 3, one fewer from 4 on." bound:"auto, or 1 to 62"`
	WithoutIOURing bool     `name:"without-io-uring" group:"Server" help:"Write to each socket by a system call of its own, even where the kernel would take many by one." bound:"true or false"`
	Demo           bool     `name:"demo" group:"Server" help:"Run example workers in this process, for a page with live data; without namespaces campaign_metrics and jobs are then states and job_progress is a log." bound:"true or false"`
}

// RedisSettings says where events come from.
type RedisSettings struct {
	Redis         RedisURL `name:"redis" placeholder:"URL" secret:"password" group:"Redis" help:"Redis that feeds the gateway; none: this process's memory." bound:"redis://[USER:PASSWORD@]HOST:PORT[/DB], rediss://, a comma list for a Cluster, redis+sentinel://HOST:PORT/MASTER"`
	ChannelPrefix KeyPart  `name:"channel-prefix" placeholder:"TEXT" group:"Redis" help:"Goes before every channel's name in Redis." bound:"at most 128 bytes, no spaces, quotes or pattern characters"`
}

// TokenSettings says what tokens are signed with and what stands in them: what both a verifier
// and a maker of tokens need.
type TokenSettings struct {
	AuthHMACSecret     Secret `name:"auth-hmac-secret" placeholder:"SECRET" secret:"all" group:"Authentication" help:"Secret that verifies HS256 tokens; better given as a file." bound:"at least 32 bytes"`
	AuthHMACSecretFile string `name:"auth-hmac-secret-file" placeholder:"FILE" group:"Authentication" help:"File with that secret; a line end behind it is not part of it." bound:"a readable file; not together with auth-hmac-secret"`
	AuthAudience       string `name:"auth-audience" placeholder:"TEXT" group:"Authentication" help:"What a token's aud must hold." bound:"any text"`
	AuthIssuer         string `name:"auth-issuer" placeholder:"TEXT" group:"Authentication" help:"What a token's iss must be." bound:"any text"`
	UserClaim          string `name:"user-claim" default:"sub" group:"Authentication" help:"Claim that holds the user's id." bound:"a claim's name"`
}

// KeySettings says whose tokens are believed besides our own.
type KeySettings struct {
	AuthPublicKeyFile string `name:"auth-public-key-file" placeholder:"FILE" group:"Authentication" help:"Public key that verifies RS256, ES256 or EdDSA tokens." bound:"a PEM file: RSA, EC P-256 or Ed25519"`
	AuthJWKSURL       WebURL `name:"auth-jwks-url" placeholder:"URL" group:"Authentication" help:"Where the keys of an identity provider are." bound:"an https:// or http:// address; not together with auth-public-key-file"`
	InsecureNoAuth    bool   `name:"insecure-no-auth" group:"Authentication" help:"Serve other machines without authentication: everybody may read and publish everything." bound:"true or false"`
}

// LimitSettings bounds what one process gives away. 0 means no limit, except for the two bounds on
// what a stranger makes the gateway keep.
type LimitSettings struct {
	MaxConnections           Count    `name:"max-connections" default:"auto" auto:"yes" max:"100000000" group:"Limits (0: no limit)" help:"Streams of this process; auto: 90% of its descriptor limit." bound:"auto, 0, or up to 100000000"`
	MaxConnectionsPerUser    Count    `name:"max-connections-per-user" default:"100" max:"100000000" group:"Limits (0: no limit)" help:"Streams of one user." bound:"0, or up to 100000000"`
	MaxConnectionsPerAddress Count    `name:"max-connections-per-address" default:"1000" max:"100000000" group:"Limits (0: no limit)" help:"Streams of one address (IPv6: of one /64); loopback is exempt." bound:"0, or up to 100000000"`
	MaxSubscriptions         Count    `name:"max-subscriptions" default:"100" max:"1000000" group:"Limits (0: no limit)" help:"Channels of one stream." bound:"0, or up to 1000000"`
	MaxHeaderBytes           Size     `name:"max-header-bytes" default:"16KiB" zero:"no" min:"1KiB" max:"1MiB" group:"Limits (0: no limit)" help:"Head of one request." bound:"1KiB to 1MiB"`
	MaxMessageBytes          Size     `name:"max-message-bytes" default:"64KiB" zero:"no" min:"256" max:"64MiB" group:"Limits (0: no limit)" help:"One WebSocket message of a client." bound:"256 to 64MiB"`
	MaxEventBytes            Size     `name:"max-event-bytes" default:"1MiB" min:"256" max:"64MiB" group:"Limits (0: no limit)" help:"One published event." bound:"0, or 256 to 64MiB"`
	MaxQueueBytes            Size     `name:"max-queue-bytes" default:"1MiB" min:"256KiB" max:"1GiB" group:"Limits (0: no limit)" help:"Unsent bytes of one stream, before a slow reader loses events (and is told so)." bound:"0, or 256KiB to 1GiB"`
	MaxQueueAge              Duration `name:"max-queue-age" default:"30s" min:"1s" max:"1h" group:"Limits (0: no limit)" help:"Age of a stream's unsent bytes at which it counts as slow, as with too many of them." bound:"0, or 1s to 1h"`
	ProgressTimeout          Duration `name:"progress-timeout" default:"60s" min:"1s" max:"1h" group:"Limits (0: no limit)" help:"A stream whose socket took nothing for so long, while something waits, is closed." bound:"0, or 1s to 1h"`
	MaxReplayBytes           Size     `name:"max-replay-bytes" default:"64MiB" min:"64KiB" max:"64GiB" group:"Limits (0: no limit)" help:"Events kept in memory for clients that come back, all channels together." bound:"0, or 64KiB to 64GiB"`
	MaxStreamAge             Duration `name:"max-stream-age" default:"0" min:"1s" group:"Limits (0: no limit)" help:"Age at which a stream is closed, jittered; clients come back." bound:"0, or at least 1s"`
	CommandsPerSecond        Count    `name:"commands-per-second" default:"50" max:"1000000" group:"Limits (0: no limit)" help:"WebSocket commands of one stream; four times as many in a burst." bound:"0, or up to 1000000"`
	AcceptRate               Count    `name:"accept-rate" default:"0" max:"10000000" group:"Limits (0: no limit)" help:"New connections a second; the others are closed at once, and try again." bound:"0, or up to 10000000"`
	HandshakeTimeout         Duration `name:"handshake-timeout" default:"10s" min:"100ms" max:"10m" group:"Limits (0: no limit)" help:"From accept to the end of the request's head." bound:"0, or 100ms to 10m"`
	DrainTimeout             Duration `name:"drain-timeout" default:"20s" min:"100ms" max:"1h" group:"Limits (0: no limit)" help:"From SIGTERM to the end of the process." bound:"0, or 100ms to 1h"`
}

// LogSettings says what is logged and how.
type LogSettings struct {
	LogLevel  string `name:"log-level" default:"info" enum:"debug,info,warn,error" group:"Logs" help:"Least level that is logged: debug, info, warn or error." bound:"debug, info, warn, error"`
	LogFormat string `name:"log-format" default:"auto" enum:"auto,text,json" group:"Logs" help:"text, json, or auto: text on a terminal, else json." bound:"auto, text, json"`
}

// ChannelSettings says what channels mean. They stand in the file only.
type ChannelSettings struct {
	// Namespaces is keyed by channel type; "default" is every type that is not named. Nil, where
	// the file has none, takes the built-in types.
	Namespaces map[string]access.Namespace `kong:"-" name:"namespaces" only:"file" help:"What each channel type means, keyed by type; default is every other type." bound:"see Namespaces below"`
	// Personal lists types T for which every connection with a user is subscribed to T:<user>.
	// Nil is not the same as empty: empty switches the built-in one off.
	Personal []string `kong:"-" name:"personal" only:"file" help:"Types T for which every connection with a user is subscribed to T:USER without asking." bound:"channel types"`
	// Broadcast lists channels that every connection is subscribed to.
	Broadcast []string `kong:"-" name:"broadcast" only:"file" help:"Channels that every connection is subscribed to without asking." bound:"whole channel names"`
}

// CouncilSettings says who judges texts. It stands in the file only, but for the keys of providers,
// which the environment may hold under the names that their own tools read.
type CouncilSettings struct {
	Council council.Settings `kong:"-" name:"council" only:"file" secret:"keys" help:"Who sits in the councils of /api/stream/council-score, and what they may cost; without a key the built-in demo council." bound:"see Council below"`
}

// Default gives the settings with every default, as if nobody had configured anything.
func Default() Settings {
	var settings Settings
	for _, field := range fields() {
		if field.Default == "" {
			continue
		}
		if err := parseText(field.value(&settings), field.Default); err != nil {
			panic("settings: default of " + field.Name + ": " + err.Error())
		}
	}
	return settings
}
