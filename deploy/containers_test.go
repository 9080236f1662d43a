package deploy

import (
	"errors"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
)

// manifest is what the tests read of one object of kubernetes/millrace.yaml.
type manifest struct {
	Kind     string
	Metadata struct{ Name string }
	Data     map[string]string // of a ConfigMap
	Secrets  map[string]string `yaml:"stringData"`
	Spec     struct {
		Selector yaml.Node
		Template struct {
			Metadata struct{ Labels map[string]string }
			Spec     pod
		}
	}
}

type pod struct {
	Grace    int `yaml:"terminationGracePeriodSeconds"`
	Security struct {
		NonRoot bool `yaml:"runAsNonRoot"`
		User    int  `yaml:"runAsUser"`
	} `yaml:"securityContext"`
	Containers []struct {
		Args      []string
		Ports     []struct{ Name string }
		Readiness probe `yaml:"readinessProbe"`
		Liveness  probe `yaml:"livenessProbe"`
		Lifecycle struct {
			PreStop struct {
				Sleep struct{ Seconds int }
			} `yaml:"preStop"`
		}
		Env []struct {
			Name string
			From struct {
				Secret struct{ Name, Key string } `yaml:"secretKeyRef"`
			} `yaml:"valueFrom"`
		}
		Security struct {
			ReadOnly bool `yaml:"readOnlyRootFilesystem"`
		} `yaml:"securityContext"`
	}
}

type probe struct {
	Get struct{ Path, Port string } `yaml:"httpGet"`
}

func manifests(t *testing.T) map[string]manifest {
	t.Helper()
	all := make(map[string]manifest)
	decoder := yaml.NewDecoder(strings.NewReader(read(t, "kubernetes/millrace.yaml")))
	for {
		var one manifest
		err := decoder.Decode(&one)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all[one.Kind] = one
	}
}

// TestKubernetes holds the objects of the manifest to fitting one another. No Kubernetes reads them
// here.
func TestKubernetes(t *testing.T) {
	all := manifests(t)
	for _, kind := range []string{"ConfigMap", "Secret", "Deployment", "PodDisruptionBudget", "Service"} {
		if all[kind].Metadata.Name != "millrace" {
			t.Errorf("there is no %s millrace", kind)
		}
	}
	template := all["Deployment"].Spec.Template
	for _, kind := range []string{"Deployment", "PodDisruptionBudget", "Service"} {
		selector := all[kind].Spec.Selector
		var labels map[string]string
		if err := selector.Decode(&labels); err != nil {
			var nested struct {
				Labels map[string]string `yaml:"matchLabels"`
			}
			if err := selector.Decode(&nested); err != nil {
				t.Fatal(err)
			}
			labels = nested.Labels
		}
		if len(labels) == 0 || labels["app"] != template.Metadata.Labels["app"] {
			t.Errorf("the %s selects %v; the pods are %v", kind, labels, template.Metadata.Labels)
		}
	}
	if !template.Spec.Security.NonRoot || template.Spec.Security.User == 0 {
		t.Error("the pods run as root")
	}
	container := template.Spec.Containers[0]
	if container.Readiness.Get.Path != "/readyz" || container.Liveness.Get.Path != "/healthz" || container.Readiness.Get.Port != container.Ports[0].Name {
		t.Errorf("the probes ask %+v and %+v", container.Readiness, container.Liveness)
	}
	if !container.Security.ReadOnly {
		t.Error("the gateway writes no file: its file system may be read-only")
	}
	for _, variable := range container.Env {
		if secret := variable.From.Secret; all["Secret"].Secrets[secret.Key] == "" || secret.Name != "millrace" {
			t.Errorf("%s comes from a secret %+v that is not there", variable.Name, secret)
		}
	}
	var configuration struct {
		Drain time.Duration `yaml:"drain-timeout"`
	}
	if err := yaml.Unmarshal([]byte(all["ConfigMap"].Data["millrace.yaml"]), &configuration); err != nil {
		t.Fatal(err)
	}
	needed := configuration.Drain + time.Duration(container.Lifecycle.PreStop.Sleep.Seconds)*time.Second
	if grace := time.Duration(template.Spec.Grace) * time.Second; configuration.Drain == 0 || grace <= needed {
		t.Errorf("a pod has %v to end, and needs %v", grace, needed)
	}
}

// TestContainerfile looks at what can be seen without building: the Go of go.mod, a static binary, no
// root, and the user that the manifest names.
func TestContainerfile(t *testing.T) {
	text := read(t, "Containerfile")
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "../go.mod"))
	if version == nil || !strings.Contains(text, "golang:"+version[1]+" AS build") {
		t.Errorf("the build is not on golang:%v, which go.mod names", version)
	}
	lines := slices.Collect(strings.Lines(text))
	last := slices.IndexFunc(lines, func(line string) bool { return line == "FROM scratch\n" })
	if last < 0 {
		t.Fatal("the last stage is not from scratch")
	}
	final := strings.Join(lines[last:], "")
	user := manifests(t)["Deployment"].Spec.Template.Spec.Security.User
	if !regexp.MustCompile(`(?m)^RUN CGO_ENABLED=0 go build .* -o /millrace ./cmd/millrace$`).MatchString(text) {
		t.Error("no line builds a static binary")
	}
	if found := regexp.MustCompile(`(?m)^USER (\d+):\d+$`).FindStringSubmatch(final); found == nil || found[1] == "0" || found[1] != strconv.Itoa(user) {
		t.Errorf("the user is %v, the manifest has %d", found, user)
	}
	if !strings.Contains(final, "\nENTRYPOINT [\"/millrace\"]\n") || !strings.Contains(final, "\nSTOPSIGNAL SIGTERM\n") {
		t.Error("the entry point or the stop signal is missing")
	}
}
