package deploy

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// units are the unit files, with the name by which systemd-analyze can load each.
var units = []struct{ file, loaded string }{
	{"millrace.service", "millrace.service"},
	{"millrace@.service", "millrace@0.service"},
	{"millrace.socket", "millrace.socket"},
}

// exposureMax is what `systemd-analyze security` may say at most, of 10.
const exposureMax = 2.0

// TestUnits holds the units to what systemd itself says of them.
func TestUnits(t *testing.T) {
	analyze := tool(t, "systemd-analyze")
	exposure := regexp.MustCompile(`Overall exposure level for .*: ([0-9.]+)`)
	for _, unit := range units {
		t.Run(unit.file, func(t *testing.T) {
			// verify wants every program to be there, and ours is not installed.
			text := strings.ReplaceAll(read(t, "systemd/"+unit.file), "/usr/bin/millrace ", "/bin/true ")
			folder := t.TempDir()
			path := filepath.Join(folder, unit.loaded)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			isSocket := strings.HasSuffix(unit.file, ".socket")
			if isSocket { // and the service that it starts has to be there
				service := strings.ReplaceAll(read(t, "systemd/millrace.service"), "/usr/bin/millrace ", "/bin/true ")
				if err := os.WriteFile(filepath.Join(folder, "millrace.service"), []byte(service), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if said := run(t, analyze, "verify", "--man=no", path); said != "" {
				t.Errorf("systemd-analyze verify: %s", said)
			}
			if isSocket {
				return // nothing runs under it
			}
			found := exposure.FindStringSubmatch(run(t, analyze, "security", "--no-pager", "--offline=true", path))
			if found == nil {
				t.Fatal("systemd-analyze security gave no level")
			}
			if level, err := strconv.ParseFloat(found[1], 64); err != nil || level >= exposureMax {
				t.Errorf("the exposure level is %s, want below %v", found[1], exposureMax)
			}
		})
	}
}

// TestUnitsAreWatched: a unit whose loops are stuck is started again.
func TestUnitsAreWatched(t *testing.T) {
	for _, unit := range []string{"millrace.service", "millrace@.service"} {
		text := read(t, "systemd/"+unit)
		for _, setting := range []string{"Type=notify", "WatchdogSec=30s", "Restart=on-failure", "Environment=GOTRACEBACK=crash", "LimitCORE=0"} {
			if !strings.Contains(text, "\n"+setting+"\n") {
				t.Errorf("%s lacks %s", unit, setting)
			}
		}
	}
}

// TestUnitsAgree: the instances of a fleet run under the same conditions as the one gateway, and
// neither has a setting that the gateway is known not to live with.
func TestUnitsAgree(t *testing.T) {
	shared := func(file string) string {
		_, rest, found := strings.Cut(read(t, "systemd/"+file), "\nRestart=")
		if !found {
			t.Fatalf("%s has no Restart=", file)
		}
		return rest
	}
	single := shared("millrace.service")
	if single != shared("millrace@.service") {
		t.Error("the two units differ after Restart=: whoever hardens one hardens both")
	}
	for setting, why := range map[string]string{
		"MemoryDenyWriteExecute=yes": "sonic's loader maps its code writable first, and the process would panic at start",
		"ProcSubset=pid":             "Go reads /proc/sys/net/core/somaxconn for the backlog, and takes 128 without it",
		"~@resources":                "the limit of descriptors is read by prlimit64",
	} {
		if regexp.MustCompile(`(?m)^[^#]*` + regexp.QuoteMeta(setting)).MatchString(single) {
			t.Errorf("%s is set, but %s", setting, why)
		}
	}
}
