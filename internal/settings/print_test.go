package settings

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

const documentation = "../../docs/configuration.md"

// A printed configuration is a valid one and says the same, secrets aside.
func TestPrintedConfigurationIsValid(t *testing.T) {
	loaded := load(t, "testdata/good/full.yaml")
	loaded.Check()
	if len(loaded.Problems) > 0 {
		t.Fatal(loaded.Problems)
	}
	printed, err := loaded.Print()
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"hunter2", "opensesame"} {
		if strings.Contains(string(printed), secret) {
			t.Errorf("%s is printed", secret)
		}
	}
	writeFile(t, "printed.yaml", string(printed))
	again := load(t, "printed.yaml")
	again.Check()
	if len(again.Problems) > 0 {
		t.Fatalf("%v\nin\n%s", again.Problems, printed)
	}
	want := loaded.Settings
	want.ChannelSettings = want.EffectiveChannels()
	want.Council.Anthropic.Key, want.Council.Perplexity.Key = "redacted", "redacted"
	if !again.Settings.CouncilPlaceholder() || loaded.Settings.CouncilPlaceholder() {
		t.Error("a printed key is not known as a placeholder, or another is taken for one")
	}
	want.Config, want.AuthHMACSecret, want.Redis = "printed.yaml", SecretPlaceholder, RedisURL(want.Redis.String())
	if !reflect.DeepEqual(again.Settings, want) {
		t.Errorf("got\n%+v\nwant\n%+v", again.Settings, want)
	}
}

func TestPrintSaysWhereFrom(t *testing.T) {
	writeFile(t, "c.yaml", "demo: true\n")
	flags := Default()
	flags.Config, flags.Loops = "c.yaml", 2
	printed, err := Load(flags, []string{"config", "loops"}, []string{"MILLRACE_ACCEPT_RATE=7"}).Print()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"demo: true # c.yaml:1:7", "loops: 2 # --loops", "accept-rate: 7 # MILLRACE_ACCEPT_RATE", "log-level: info # default"} {
		if !strings.Contains(string(printed), line+"\n") {
			t.Errorf("%q is missing in\n%s", line, printed)
		}
	}
}

// section gives what stands between two lines of the documentation.
func section(t *testing.T, content, from, to string) (before, inside, after string) {
	t.Helper()
	before, rest, found := strings.Cut(content, from)
	inside, after, foundEnd := strings.Cut(rest, to)
	if !found || !foundEnd {
		t.Fatalf("%s has no %q before %q", documentation, from, to)
	}
	return before + from, inside, to + after
}

func TestTableOfTheDocumentation(t *testing.T) {
	content, err := os.ReadFile(documentation)
	if err != nil {
		t.Fatal(err)
	}
	before, inside, after := section(t, string(content), "<!-- settings: begin -->\n", "<!-- settings: end -->\n")
	if inside == Table() {
		return
	}
	if !*update {
		t.Fatalf("the table is not that of the settings; run `go test ./internal/settings -run Table -update`\ngot\n%s\nwant\n%s", inside, Table())
	}
	if err := os.WriteFile(documentation, []byte(before+Table()+after), 0o600); err != nil {
		t.Fatal(err)
	}
}

// The example of the documentation is a valid file that names every setting.
func TestExampleOfTheDocumentation(t *testing.T) {
	content, err := os.ReadFile(documentation)
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := section(t, string(content), "```yaml\n# millrace.yaml", "```\n")
	writeFile(t, "millrace.yaml", "# millrace.yaml"+example)
	if err := os.WriteFile("hmac-secret", []byte(strings.Repeat("s", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	loaded := load(t, "millrace.yaml")
	loaded.Check()
	if len(loaded.Problems)+len(loaded.Warnings) > 0 {
		t.Fatal(loaded.Problems, loaded.Warnings)
	}
	for _, name := range names() {
		if !strings.Contains(example, "\n"+name+":") && !strings.Contains(example, "\n# "+name+":") {
			t.Errorf("%s is not in the example", name)
		}
	}
}

func TestFieldsAreDescribed(t *testing.T) {
	for _, field := range Fields() {
		if field.Name == "" || field.Help == "" || field.Bound == "" {
			t.Errorf("%+v lacks a name, help or bound", field)
		}
		if strings.ToLower(field.Name) != field.Name || strings.Contains(field.Name, "_") {
			t.Errorf("%s is not in kebab case", field.Name)
		}
	}
}
