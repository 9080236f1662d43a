package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// TestShippedConfigurations lets `millrace check` read the configurations that deploy ships.
func TestShippedConfigurations(t *testing.T) {
	t.Parallel()
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	var configMap struct {
		Data map[string]string `yaml:"data"`
	}
	if err := yaml.Unmarshal([]byte(read("../deploy/kubernetes/millrace.yaml")), &configMap); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"Kubernetes":         configMap.Data["millrace.yaml"],
		"the Debian package": read("../deploy/release/millrace.yaml"),
	} {
		t.Run(name, func(t *testing.T) {
			path, err := racy()
			if err != nil {
				t.Fatal(err)
			}
			folder := t.TempDir()
			for file, content := range map[string]string{"millrace.yaml": strings.ReplaceAll(text, "/etc/millrace/secret", folder), "hmac": secret} {
				if err := os.WriteFile(filepath.Join(folder, file), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			output, err := exec.Command(path, "check", "--config", filepath.Join(folder, "millrace.yaml")).CombinedOutput()
			if err != nil || text == "" {
				t.Errorf("millrace check: %v\n%s", err, output)
			}
		})
	}
}
