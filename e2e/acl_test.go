package e2e

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/redistest"
)

const (
	aclPassword = "a-password-of-the-test"
	// redisPassword has to be written otherwise in a URL.
	redisPassword = "a pass:word"
)

// aclNamespaces has every way in which a gateway speaks to Redis.
const aclNamespaces = `
channel-prefix: "shop:"
namespaces:
  news: {access: public, wildcard: true, replay: {size: 0}}
  sharded: {access: public, sharded: true, replay: {size: 0}}
  job_progress: {access: public, mode: log}
  campaign_metrics: {access: public, mode: state}
`

// TestMinimalACL runs gateways as the Redis user of deploy/redis/millrace.conf, on one Redis and on
// a Cluster: every mode works, Redis denies nothing, and the user may do nothing that goes unused.
func TestMinimalACL(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "millrace.conf")
	shipped, err := os.ReadFile("../deploy/redis/millrace.conf")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(shipped), "CHANGE-ME", aclPassword)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^user (.+)$`).FindStringSubmatch(text)
	if line == nil {
		t.Fatal("the file has no user")
	}
	user := strings.Fields(line[1])

	used := make(map[string]bool)
	t.Run("one Redis", func(t *testing.T) {
		redis := redistest.Start(t, path, "--bind", "127.0.0.1", "--save", "")
		everyMode(t, "redis://millrace:"+aclPassword+"@"+redis.Addr, redis)
		maps.Copy(used, commandsOf(t, redis))
	})
	t.Run("a Cluster", func(t *testing.T) {
		cluster := redistest.StartCluster(t, 2)
		for _, node := range cluster.Nodes {
			node.CLI(t, append([]string{"ACL", "SETUSER"}, user...)...)
		}
		everyMode(t, strings.ReplaceAll(cluster.URL(), "redis://", "redis://millrace:"+aclPassword+"@"), cluster.Nodes[0])
		maps.Copy(used, commandsOf(t, cluster.Nodes...))
	})
	for _, word := range user {
		if command, allowed := strings.CutPrefix(word, "+"); allowed && !used[command] {
			t.Errorf("the user may %s, which no gateway used", command)
		}
	}
}

// everyMode lets a gateway hear, publish and read in every mode; worker is where redis-cli, as
// another user, publishes.
func everyMode(t *testing.T, url string, worker *redistest.Server) {
	t.Helper()
	g := configured(t, aclNamespaces, "--redis", url)
	base := "http://" + g.address
	wild := dial(t, npmWS, base, "/ws?format=envelope")
	wild.await(t, "connected", func(h heard) bool { return h.is("connected") })
	for _, channel := range []string{"news:*", "sharded:1", "job_progress:1", "campaign_metrics:1", "campaign_metrics:2"} {
		wild.subscribe(t, channel) // a Cluster confirms in an order of its own
	}
	one := open(t, curl, base, "", "news:1")
	for _, publish := range []struct{ channel, event string }{
		{"news:1", `{"by":"api"}`},
		{"sharded:1", `{"by":"api"}`},
		{"job_progress:1", `{"by":"api"}`},
		{"campaign_metrics:1", `{"by":"api"}`},
	} {
		if answer := g.publish(t, "", publish.channel, publish.event); answer.status != 200 || !answer.Distributed {
			t.Errorf("publishing on %s answered %+v", publish.channel, answer)
		}
		wild.await(t, publish.channel, func(h heard) bool {
			return h.is("event") && h.field("channel") == publish.channel && strings.Contains(h.Data, publish.event)
		})
	}
	one.event(t, `{"by":"api"}`)
	g.publishMany(t, "news:1", 3, func(int) string { return `{"by":"many"}` })
	one.event(t, `{"by":"many"}`)
	for _, command := range [][]string{
		{"PUBLISH", "shop:news:1", `{"by":"worker"}`},
		{"SPUBLISH", "shop:sharded:1", `{"by":"worker"}`},
		{"XADD", "shop:job_progress:1", "*", "data", `{"by":"worker"}`},
		{"SET", "shop:campaign_metrics:1", `{"by":"worker"}`},
		{"HSET", "shop:campaign_metrics:2", "by", "worker"},
	} {
		worker.CLI(t, append([]string{"-c"}, command...)...)
		channel := strings.TrimPrefix(command[1], "shop:")
		wild.await(t, command[0]+" on "+channel, func(h heard) bool {
			return h.is("event") && h.field("channel") == channel && strings.Contains(h.Data, `"worker"`)
		})
	}
	past := dial(t, curl, base, "/api/stream?channel=job_progress:1&since=0")
	past.event(t, `{"by":"api"}`)
	past.event(t, `{"by":"worker"}`)
	wild.send(t, `{"type":"unsubscribe","channels":["news:*","sharded:1"]}`)
	one.end()
	within(t, patience, "the subscriptions are given up", func() bool {
		return strings.Contains(g.text(t, "/metrics"), "\nmillrace_channels 3\n") // the log and the two states
	})
}

// wantNothingDenied looks for what Redis denied, but for the question that a gateway does without.
func wantNothingDenied(t *testing.T, redis *redistest.Server) {
	t.Helper()
	denied := regexp.MustCompile(`(?m)^object\n(.*)$`).FindAllStringSubmatch(redis.CLI(t, "ACL", "LOG"), -1)
	for _, object := range denied {
		if object[1] != "config|get" {
			t.Errorf("Redis denied %s: %s", object[1], redis.CLI(t, "ACL", "LOG"))
		}
	}
}

// commandsOf gives the commands that these have carried out, once the gateway has given up what it no
// longer needs. Those of redis-cli are among them, but the gateway publishes by the same ones.
func commandsOf(t *testing.T, all ...*redistest.Server) map[string]bool {
	t.Helper()
	used := make(map[string]bool)
	within(t, patience, "the gateway unsubscribes at Redis", func() bool {
		for _, redis := range all {
			stats := regexp.MustCompile(`(?m)^cmdstat_([^:]+):calls=[1-9]`).FindAllStringSubmatch(redis.CLI(t, "INFO", "commandstats"), -1)
			for _, stat := range stats {
				used[stat[1]] = true
			}
		}
		return used["unsubscribe"] && used["punsubscribe"] && used["sunsubscribe"]
	})
	for _, redis := range all {
		wantNothingDenied(t, redis)
	}
	return used
}
