package redistest_test

import (
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/redistest"
)

func TestServerLife(t *testing.T) {
	server := redistest.Start(t)
	if got := server.CLI(t, "PING"); got != "PONG" {
		t.Fatalf("PING answered %q", got)
	}
	first := server.CLI(t, "INFO", "server")
	server.Restart(t)
	if second := server.CLI(t, "INFO", "server"); field(first, "run_id") == field(second, "run_id") {
		t.Fatal("the same server after Restart")
	}
	server.Kill()
	if _, err := server.Command("PING"); err == nil {
		t.Fatal("a killed server answers")
	}
}

func field(info, name string) string {
	_, rest, _ := strings.Cut(info, name+":")
	value, _, _ := strings.Cut(rest, "\r\n")
	return value
}

func TestClusterMigratesSlot(t *testing.T) {
	cluster := redistest.StartCluster(t, 3)
	slot := cluster.Slot(t, "a")
	from := cluster.Owner(slot)
	to := cluster.Nodes[0]
	if to == from {
		to = cluster.Nodes[1]
	}
	cluster.Migrate(t, slot, from, to)
	if got := to.CLI(t, "SPUBLISH", "a", "x"); got != "0" {
		t.Fatalf("the new owner answers %q", got)
	}
}

func TestSentinelNamesThePrimary(t *testing.T) {
	group := redistest.StartSentinel(t)
	if got := group.PrimaryPort(t); got != group.Primary.Port {
		t.Fatalf("primary on port %d, want %d", got, group.Primary.Port)
	}
}
