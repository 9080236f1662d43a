package broker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/redis/rueidis"
)

// Faults that are ours to name; Redis's and the network's come as they are.
var (
	errSilent       = errors.New("nothing that is published arrives here")
	errUntold       = errors.New("changes of keys are not told here")
	errDemoted      = errors.New("the server is a replica, not a primary")
	errMoved        = errors.New("the Sentinels name another primary")
	errRemoved      = errors.New("the node is no longer a primary of the Cluster")
	errNotCluster   = errors.New("several addresses are given, but the server is not in Cluster mode")
	errModeChanged  = errors.New("the server changed between Cluster and standalone mode")
	errIsSentinel   = errors.New("the server is a Sentinel")
	errDeaf         = errors.New("what is published on the other nodes of the Cluster does not arrive here")
	errNoPrimary    = errors.New("no Sentinel names a primary")
	errNoSlots      = errors.New("the Cluster has no primary with slots")
	errNoOwner      = errors.New("nobody owns the slot of the channel")
	errNotRunning   = errors.New("the memory broker is not running")
	errNotStarted   = errors.New("the broker is not started")
	errNotConnected = errors.New("not connected yet")
)

// cause is the class of a fault. Log lines are bounded by it: one a node and cause, then one a
// minute while it lasts.
type cause string

const (
	causeAddress    cause = "address"
	causeRefused    cause = "refused"
	causeTimeout    cause = "timeout"
	causeTLS        cause = "tls"
	causeCut        cause = "cut"
	causeLogin      cause = "login"
	causePermission cause = "permission"
	causeLoading    cause = "loading"
	causeMemory     cause = "memory"
	causeReplica    cause = "replica"
	causeClients    cause = "clients"
	causeSilent     cause = "silent"
	causeMode       cause = "mode"
	causeTopology   cause = "topology"
	causeType       cause = "type"
	causeCallback   cause = "callback"
	causeOther      cause = "other"
)

// replies maps the first word of an error reply of Redis to its class and what to do.
var replies = []struct {
	word   string
	cause  cause
	advice string
}{
	{"NOAUTH", causeLogin, "give user and password in the Redis URL"},
	{"WRONGPASS", causeLogin, "correct user and password in the Redis URL"},
	{"NOPERM", causePermission, "allow the Redis user subscribe, unsubscribe, psubscribe, punsubscribe, ssubscribe, sunsubscribe, publish, spublish, multi, exec, ping (select, cluster|slots where used) and the channels of the prefix, its __millrace:* among them, and for each namespace that is a log, a state or has wildcards the very pattern PREFIXTYPE:* (deploy/redis/millrace.conf); for states and logs also client|tracking, client|caching, getrange, get, hlen, hgetall, xinfo|stream, xrange, xrevrange, xadd, set, expire, info, config|get and the keys of the prefix"},
	{"LOADING", causeLoading, "Redis is reading its data; this ends by itself"},
	{"MASTERDOWN", causeReplica, "the server is a replica that lost its primary; name the primary, or Sentinels"},
	{"READONLY", causeReplica, "name the primary, or Sentinels, in the Redis URL"},
	{"OOM", causeMemory, "Redis is at maxmemory; raise it or allow eviction"},
	{"MISCONF", causeMemory, "Redis can't save to disk; see its log"},
	{"CLUSTERDOWN", causeTopology, "slots of the Cluster have no live owner; see CLUSTER INFO"},
	{"ASK", causeTopology, "the slot is being moved; this heals by itself"},
	{"MOVED", causeTopology, "the slot has another owner; this heals by itself"},
	{"WRONGTYPE", causeType, "the key holds what its mode does not write; correct the mode of its namespace, or delete the key"},
	{"TRYAGAIN", causeTopology, "the slot is being moved; this heals by itself"},
}

// diagnose classes err and says what an operator can do about it.
func diagnose(err error) (cause, string) {
	if class, advice, ok := diagnoseReply(err); ok {
		return class, advice
	}
	var panicked *callbackPanic
	switch {
	case errors.As(err, &panicked):
		return causeCallback, "this is a defect of Millrace; report it with the stack"
	case errors.Is(err, errSilent), errors.Is(err, errUntold), errors.Is(err, errLinkHangs):
		return causeSilent, "the server is stalled, or cut off, or another one than the one published to"
	case errors.Is(err, errDemoted):
		return causeReplica, "name the primary, or Sentinels, in the Redis URL"
	case errors.Is(err, errNotCluster), errors.Is(err, errModeChanged):
		return causeMode, "name one address for a standalone Redis, nodes of one Cluster otherwise"
	case errors.Is(err, errIsSentinel):
		return causeMode, "write redis+sentinel://HOST:PORT/MASTER"
	case errors.Is(err, errMoved), errors.Is(err, errRemoved), errors.Is(err, errDeaf),
		errors.Is(err, errNoPrimary), errors.Is(err, errNoSlots):
		return causeTopology, "this heals by itself once the servers agree"
	}
	return diagnoseNetwork(err)
}

func diagnoseReply(err error) (cause, string, bool) {
	reply, ok := redisReply(err)
	if !ok {
		return "", "", false
	}
	text := reply.Error()
	for _, known := range replies {
		if strings.HasPrefix(text, known.word) {
			return known.cause, known.advice, true
		}
	}
	if strings.Contains(text, "max number of clients") {
		return causeClients, "raise Redis's maxclients", true
	}
	if strings.Contains(text, "unknown command") {
		return causeMode, "Redis 7 or newer is needed", true
	}
	return causeOther, "see the words of Redis", true
}

func diagnoseNetwork(err error) (cause, string) {
	var (
		name       *net.DNSError
		header     tls.RecordHeaderError
		alert      tls.AlertError
		unverified *tls.CertificateVerificationError
		unknown    x509.UnknownAuthorityError
		timeout    net.Error
	)
	switch {
	case errors.As(err, &name):
		return causeAddress, "correct the host in the Redis URL"
	case errors.As(err, &header):
		return causeTLS, "the server does not speak TLS there; write redis:// or take its TLS port"
	case errors.As(err, &alert), errors.As(err, &unverified), errors.As(err, &unknown):
		return causeTLS, "correct the certificates, or the host they are made out to"
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, os.ErrNotExist):
		return causeRefused, "nobody listens there; start Redis or correct the Redis URL"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &timeout) && timeout.Timeout():
		return causeTimeout, "the server is stalled, a firewall drops packets, or the port does not speak TLS although the URL says rediss://"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed), errors.Is(err, rueidis.ErrClosing):
		return causeCut, "the server or something on the way closed the connection: a restart, CLIENT KILL, client-output-buffer-limit, or a port that speaks only TLS (rediss://)"
	}
	return causeOther, "see the error"
}

// redisReply returns the error reply in err's chain. rueidis's own errors.As support does not
// matter: the reply is a pointer type in the chain like any other.
func redisReply(err error) (*rueidis.RedisError, bool) {
	var reply *rueidis.RedisError
	if !errors.As(err, &reply) || reply == rueidis.Nil {
		return nil, false
	}
	return reply, true
}

// plainWords is err's text made fit for a log line: old servers quote the arguments of a command
// they do not know, and those may be a password or a payload.
func plainWords(err error) string {
	text := err.Error()
	if at := strings.Index(text, ", with args"); at >= 0 {
		text = text[:at]
	}
	if at := strings.IndexAny(text, "\r\n"); at >= 0 {
		text = text[:at]
	}
	const textBytesMax = 300
	return text[:min(len(text), textBytesMax)]
}

// callbackPanic is the failure of a session whose callback panicked.
type callbackPanic struct {
	value any
	stack []byte
}

func (*callbackPanic) Error() string { return "a callback panicked" }
