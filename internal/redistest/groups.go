package redistest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// slotCount is the number of hash slots of a Redis Cluster.
const slotCount = 16384

// groupTimeout bounds the wait until a Cluster or a Sentinel agrees with itself.
const groupTimeout = 20 * time.Second

// Cluster is a Redis Cluster of primaries without replicas, the slots split evenly in order.
type Cluster struct {
	Nodes []*Server
}

// StartCluster runs a Cluster of count primaries and waits until every node knows all slots.
// A lost node makes the others refuse only what belongs to its slots.
func StartCluster(t testing.TB, count int) *Cluster {
	t.Helper()
	cluster := &Cluster{}
	for range count {
		busPort, err := FreePort()
		if err != nil {
			t.Fatal(err)
		}
		cluster.Nodes = append(cluster.Nodes, Start(t,
			"--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(busPort),
			"--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no"))
	}
	first := cluster.Nodes[0]
	for index, node := range cluster.Nodes {
		from, to := index*slotCount/count, (index+1)*slotCount/count-1
		node.CLI(t, "CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(from), strconv.Itoa(to))
		node.CLI(t, "CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(index+1))
		if index > 0 {
			first.CLI(t, "CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(node.Port), node.busPort())
		}
	}
	agreed := poll(groupTimeout, func() bool {
		for _, node := range cluster.Nodes {
			info, err := node.Command("CLUSTER", "INFO")
			if err != nil || !strings.Contains(info, "cluster_state:ok") ||
				!strings.Contains(info, fmt.Sprintf("cluster_slots_ok:%d", slotCount)) ||
				!strings.Contains(info, fmt.Sprintf("cluster_size:%d", count)) {
				return false
			}
		}
		return true
	})
	if !agreed {
		t.Fatalf("redistest: the Cluster did not come together within %v", groupTimeout)
	}
	return cluster
}

func (s *Server) busPort() string {
	for index, argument := range s.arguments {
		if argument == "--cluster-port" {
			return s.arguments[index+1]
		}
	}
	return strconv.Itoa(s.Port + 10000)
}

// URL is the comma list of all nodes.
func (c *Cluster) URL() string {
	urls := make([]string, len(c.Nodes))
	for index, node := range c.Nodes {
		urls[index] = node.URL()
	}
	return strings.Join(urls, ",")
}

// Slot returns the hash slot of a key or sharded channel.
func (c *Cluster) Slot(t testing.TB, key string) int {
	t.Helper()
	slot, err := strconv.Atoi(c.Nodes[0].CLI(t, "CLUSTER", "KEYSLOT", key))
	if err != nil {
		t.Fatal(err)
	}
	return slot
}

// Owner returns the node that owned slot when the Cluster was made.
func (c *Cluster) Owner(slot int) *Server {
	for index, node := range c.Nodes {
		if slot < (index+1)*slotCount/len(c.Nodes) {
			return node
		}
	}
	return nil
}

// Migrate gives a slot and its keys to another node, as a resharding does.
func (c *Cluster) Migrate(t testing.TB, slot int, from, to *Server) {
	t.Helper()
	fromID, toID := from.CLI(t, "CLUSTER", "MYID"), to.CLI(t, "CLUSTER", "MYID")
	number := strconv.Itoa(slot)
	to.CLI(t, "CLUSTER", "SETSLOT", number, "IMPORTING", fromID)
	from.CLI(t, "CLUSTER", "SETSLOT", number, "MIGRATING", toID)
	for _, key := range strings.Fields(from.CLI(t, "CLUSTER", "GETKEYSINSLOT", number, "1000")) {
		from.CLI(t, "MIGRATE", "127.0.0.1", strconv.Itoa(to.Port), key, "0", "5000")
	}
	to.CLI(t, "CLUSTER", "SETSLOT", number, "NODE", toID)
	from.CLI(t, "CLUSTER", "SETSLOT", number, "NODE", toID)
}

// Sentinel is a primary, one replica and three Sentinels that watch them under the name
// "mymaster" with short times: a failover takes one to a few seconds.
type Sentinel struct {
	Primary, Replica *Server
	Sentinels        []*Server
}

// SentinelMaster is the name under which [StartSentinel] has the primary watched.
const SentinelMaster = "mymaster"

// StartSentinel runs the group and waits until the Sentinels know each other and the replica.
func StartSentinel(t testing.TB) *Sentinel {
	t.Helper()
	group := &Sentinel{Primary: Start(t, "--repl-diskless-sync-delay", "0")}
	group.Replica = Start(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(group.Primary.Port))
	if !poll(groupTimeout, func() bool {
		info, err := group.Replica.Command("INFO", "replication")
		return err == nil && strings.Contains(info, "master_link_status:up")
	}) {
		t.Fatal("redistest: the replica did not connect to its primary")
	}
	const count = 3
	ports := make([]int, count)
	for index := range ports {
		port, err := FreePort()
		if err != nil {
			t.Fatal(err)
		}
		ports[index] = port
	}
	for index := range ports {
		file := filepath.Join(t.TempDir(), "sentinel.conf")
		if err := os.WriteFile(file, []byte(group.sentinelConfig(ports, index)), 0o600); err != nil {
			t.Fatal(err)
		}
		sentinel, err := RunOn(ports[index], file, "--sentinel")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(sentinel.Close)
		group.Sentinels = append(group.Sentinels, sentinel)
	}
	if !poll(groupTimeout, func() bool { return group.agreed(count) }) {
		t.Fatalf("redistest: the Sentinels did not find each other within %v", groupTimeout)
	}
	return group
}

// sentinelConfig introduces a Sentinel to its peers and the replica, which they would otherwise
// take several seconds to find.
func (g *Sentinel) sentinelConfig(ports []int, self int) string {
	var config strings.Builder
	fmt.Fprintf(&config, "bind 127.0.0.1\nsentinel myid %040x\n", self+1)
	fmt.Fprintf(&config, "sentinel monitor %s 127.0.0.1 %d 2\n", SentinelMaster, g.Primary.Port)
	fmt.Fprintf(&config, "sentinel down-after-milliseconds %s 500\n", SentinelMaster)
	fmt.Fprintf(&config, "sentinel failover-timeout %s 2000\n", SentinelMaster)
	fmt.Fprintf(&config, "sentinel known-replica %s 127.0.0.1 %d\n", SentinelMaster, g.Replica.Port)
	for index, port := range ports {
		if index != self {
			fmt.Fprintf(&config, "sentinel known-sentinel %s 127.0.0.1 %d %040x\n", SentinelMaster, port, index+1)
		}
	}
	return config.String()
}

// agreed reports whether every Sentinel knows the others and the replica.
func (g *Sentinel) agreed(count int) bool {
	for _, sentinel := range g.Sentinels {
		info, err := sentinel.Command("INFO", "sentinel")
		if err != nil || !strings.Contains(info, fmt.Sprintf("slaves=1,sentinels=%d", count)) {
			return false
		}
	}
	return true
}

// URL is redis+sentinel://HOST:PORT,HOST:PORT,HOST:PORT/mymaster.
func (g *Sentinel) URL() string {
	addresses := make([]string, len(g.Sentinels))
	for index, sentinel := range g.Sentinels {
		addresses[index] = sentinel.Addr
	}
	return "redis+sentinel://" + strings.Join(addresses, ",") + "/" + SentinelMaster
}

// PrimaryPort returns the port of whom the first Sentinel takes for the primary.
func (g *Sentinel) PrimaryPort(t testing.TB) int {
	t.Helper()
	answer := strings.Fields(g.Sentinels[0].CLI(t, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SentinelMaster))
	if len(answer) != 2 {
		t.Fatalf("redistest: the Sentinel answers %d words instead of two", len(answer))
	}
	port, err := strconv.Atoi(answer[1])
	if err != nil {
		t.Fatal(err)
	}
	return port
}
