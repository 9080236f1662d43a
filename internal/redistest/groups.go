package redistest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/freeport"
	"github.com/millrace/millrace/internal/polltest"
)

// slotCount is the number of hash slots of a Redis Cluster.
const slotCount = 16384

// groupTimeout bounds the wait until a Cluster or a Sentinel agrees with itself.
const groupTimeout = 2 * time.Minute

// Cluster is a Redis Cluster of primaries without replicas, the slots split evenly in order.
type Cluster struct {
	Nodes []*Server
}

// StartCluster is [RunCluster] for a test, at whose end it is stopped.
func StartCluster(t testing.TB, count int) *Cluster {
	t.Helper()
	cluster, err := RunCluster(count)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster
}

// RunCluster runs a Cluster of count primaries and waits until every node knows all slots.
// A lost node makes the others refuse only what belongs to its slots. The caller closes it.
func RunCluster(count int) (*Cluster, error) {
	cluster := &Cluster{}
	if err := cluster.run(count); err != nil {
		cluster.Close()
		return nil, err
	}
	return cluster, nil
}

func (c *Cluster) run(count int) error {
	for range count {
		busPort, err := freeport.Find()
		if err != nil {
			return err
		}
		node, err := Run(
			"--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(busPort),
			"--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no")
		if err != nil {
			return err
		}
		c.Nodes = append(c.Nodes, node)
	}
	first := c.Nodes[0]
	for index, node := range c.Nodes {
		from, to := index*slotCount/count, (index+1)*slotCount/count-1
		commands := [][]string{
			{"CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(from), strconv.Itoa(to)},
			{"CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(index + 1)},
		}
		if err := node.commands(commands...); err != nil {
			return err
		}
		if index > 0 {
			if err := first.commands([]string{"CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(node.Port), node.busPort()}); err != nil {
				return err
			}
		}
	}
	if !polltest.Until(groupTimeout, c.agreed) {
		return fmt.Errorf("redistest: the Cluster did not come together within %v", groupTimeout)
	}
	return nil
}

// agreed reports whether every node knows all slots.
func (c *Cluster) agreed() bool {
	for _, node := range c.Nodes {
		info, err := node.Command("CLUSTER", "INFO")
		if err != nil || !strings.Contains(info, "cluster_state:ok") ||
			!strings.Contains(info, fmt.Sprintf("cluster_slots_ok:%d", slotCount)) ||
			!strings.Contains(info, fmt.Sprintf("cluster_size:%d", len(c.Nodes))) {
			return false
		}
	}
	return true
}

// Close stops all nodes. It may be called twice.
func (c *Cluster) Close() {
	for _, node := range c.Nodes {
		node.Close()
	}
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
	slot, err := c.SlotOf(key)
	if err != nil {
		t.Fatal(err)
	}
	return slot
}

// SlotOf is [Cluster.Slot] without a test.
func (c *Cluster) SlotOf(key string) (int, error) {
	answer, err := c.Nodes[0].Command("CLUSTER", "KEYSLOT", key)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(answer)
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
	if err := c.MigrateSlot(slot, from, to); err != nil {
		t.Fatal(err)
	}
}

// MigrateSlot is [Cluster.Migrate] without a test.
func (c *Cluster) MigrateSlot(slot int, from, to *Server) error {
	fromID, err := from.Command("CLUSTER", "MYID")
	if err != nil {
		return err
	}
	toID, err := to.Command("CLUSTER", "MYID")
	if err != nil {
		return err
	}
	number := strconv.Itoa(slot)
	if err := to.commands([]string{"CLUSTER", "SETSLOT", number, "IMPORTING", fromID}); err != nil {
		return err
	}
	if err := from.commands([]string{"CLUSTER", "SETSLOT", number, "MIGRATING", toID}); err != nil {
		return err
	}
	keys, err := from.Command("CLUSTER", "GETKEYSINSLOT", number, "1000")
	if err != nil {
		return err
	}
	for _, key := range strings.Fields(keys) {
		if err := from.commands([]string{"MIGRATE", "127.0.0.1", strconv.Itoa(to.Port), key, "0", "5000"}); err != nil {
			return err
		}
	}
	if err := to.commands([]string{"CLUSTER", "SETSLOT", number, "NODE", toID}); err != nil {
		return err
	}
	return from.commands([]string{"CLUSTER", "SETSLOT", number, "NODE", toID})
}

// commands runs several commands, one after the other, up to the first that fails.
func (s *Server) commands(all ...[]string) error {
	for _, arguments := range all {
		if _, err := s.Command(arguments...); err != nil {
			return err
		}
	}
	return nil
}

// Sentinel is a primary, one replica and three Sentinels that watch them under the name
// "mymaster" with short times: a failover takes one to a few seconds.
type Sentinel struct {
	Primary, Replica *Server
	Sentinels        []*Server
}

// SentinelMaster is the name under which [StartSentinel] has the primary watched.
const SentinelMaster = "mymaster"

// StartSentinel is [RunSentinel] for a test, at whose end it is stopped.
func StartSentinel(t testing.TB) *Sentinel {
	t.Helper()
	group, err := RunSentinel()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(group.Close)
	return group
}

// RunSentinel runs the group and waits until the Sentinels know each other and the replica. The
// caller closes it.
func RunSentinel() (*Sentinel, error) {
	group := &Sentinel{}
	if err := group.run(); err != nil {
		group.Close()
		return nil, err
	}
	return group, nil
}

func (g *Sentinel) run() error {
	var err error
	if g.Primary, err = Run("--repl-diskless-sync-delay", "0"); err != nil {
		return err
	}
	if g.Replica, err = Run("--replicaof", "127.0.0.1 "+strconv.Itoa(g.Primary.Port)); err != nil {
		return err
	}
	if !polltest.Until(groupTimeout, func() bool {
		info, err := g.Replica.Command("INFO", "replication")
		return err == nil && strings.Contains(info, "master_link_status:up")
	}) {
		return errors.New("redistest: the replica did not connect to its primary")
	}
	const count = 3
	ports := make([]int, count)
	for index := range ports {
		if ports[index], err = freeport.Find(); err != nil {
			return err
		}
	}
	for index := range ports {
		sentinel, err := g.runSentinel(ports, index)
		if err != nil {
			return err
		}
		g.Sentinels = append(g.Sentinels, sentinel)
	}
	if !polltest.Until(groupTimeout, func() bool { return g.agreed(count) }) {
		return fmt.Errorf("redistest: the Sentinels did not find each other within %v", groupTimeout)
	}
	return nil
}

// runSentinel runs one Sentinel. Its configuration, which it rewrites, is in a directory of the
// primary's.
func (g *Sentinel) runSentinel(ports []int, index int) (*Server, error) {
	file := filepath.Join(g.Primary.Directory(), fmt.Sprintf("sentinel-%d.conf", index))
	if err := os.WriteFile(file, []byte(g.sentinelConfig(ports, index)), 0o600); err != nil {
		return nil, fmt.Errorf("redistest: write a Sentinel's configuration: %w", err)
	}
	return RunOn(ports[index], file, "--sentinel")
}

// Close stops all. It may be called twice.
func (g *Sentinel) Close() {
	for _, server := range append(g.Sentinels, g.Replica, g.Primary) {
		if server != nil {
			server.Close()
		}
	}
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
	address, err := g.PrimaryAddr()
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := net.SplitHostPort(address)
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// PrimaryAddr returns HOST:PORT of whom the first Sentinel takes for the primary.
func (g *Sentinel) PrimaryAddr() (string, error) {
	answer, err := g.Sentinels[0].Command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SentinelMaster)
	if err != nil {
		return "", err
	}
	words := strings.Fields(answer)
	if len(words) != 2 {
		return "", fmt.Errorf("redistest: the Sentinel answers %d words instead of two", len(words))
	}
	return net.JoinHostPort(words[0], words[1]), nil
}
