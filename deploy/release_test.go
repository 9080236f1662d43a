package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// TestPackageContents: everything that the Debian package takes from the repository is there, and
// stands where its reader looks for it. `make test-release` tries the package itself.
func TestPackageContents(t *testing.T) {
	var recipe struct {
		Scripts  map[string]string
		Contents []struct {
			Source      string `yaml:"src"`
			Destination string `yaml:"dst"`
			Kind        string `yaml:"type"`
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, "release/nfpm.yaml")), &recipe); err != nil {
		t.Fatal(err)
	}
	placed := make(map[string]string)
	for _, content := range recipe.Contents {
		if _, twice := placed[content.Destination]; twice {
			t.Errorf("two files become %s", content.Destination)
		}
		placed[content.Destination] = content.Source
		if strings.HasPrefix(content.Source, "${STAGE}/") {
			continue // built by the release
		}
		if info, err := os.Stat(filepath.Join("..", content.Source)); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%s is no file of this repository (%v)", content.Source, err)
		}
	}
	for _, unit := range units {
		if placed["/usr/lib/systemd/system/"+unit.file] == "" {
			t.Errorf("the package lacks %s", unit.file)
		}
	}
	// What the units and the sysctl file speak of is in the package.
	for _, path := range []string{"/usr/bin/millrace", "/etc/millrace/millrace.yaml", "/usr/share/doc/millrace/sysctl/90-millrace.conf"} {
		if !strings.Contains(read(t, "systemd/millrace.service"), path) || placed[path] == "" {
			t.Errorf("the unit and the package do not agree on %s", path)
		}
	}
	for _, script := range recipe.Scripts {
		if info, err := os.Stat(filepath.Join("..", script)); err != nil || info.Mode()&0o111 == 0 {
			t.Errorf("%s is not there, or not executable: %v", script, err)
		}
	}
}

// TestScriptsParse lets the shells that will run the scripts read them.
func TestScriptsParse(t *testing.T) {
	for _, script := range []string{"release/release", "release/check", "release/debian/postinst", "release/debian/prerm", "release/debian/postrm"} {
		first, _, _ := strings.Cut(read(t, script), "\n")
		shell := "sh"
		if strings.Contains(first, "bash") {
			shell = "bash"
		}
		if output, err := exec.Command(shell, "-n", script).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", script, err, output)
		}
	}
}
