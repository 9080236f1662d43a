package settings

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// writeFile puts a file named name into a folder of the test's own and works there, so that
// problems name it as name.
func writeFile(t *testing.T, name, content string) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// load loads as after a command line without flags.
func load(t *testing.T, config string, environment ...string) *Loaded {
	t.Helper()
	flags := Default()
	flags.Config = config
	given := []string{"config"}
	if config == "" {
		given = nil
	}
	return Load(flags, given, environment)
}

func TestFlagsWinThenEnvironmentThenFile(t *testing.T) {
	const inFile = "max-subscriptions: 1\n"
	for _, test := range []struct {
		name, file, variable string
		flag                 bool
		want                 Count
		source               string
	}{
		{name: "nothing", want: 100, source: "default"},
		{name: "file", file: inFile, want: 1, source: "c.yaml:1:20"},
		{name: "environment", variable: "2", want: 2, source: "MILLRACE_MAX_SUBSCRIPTIONS"},
		{name: "flag", flag: true, want: 3, source: "--max-subscriptions"},
		{name: "environment over file", file: inFile, variable: "2", want: 2, source: "MILLRACE_MAX_SUBSCRIPTIONS"},
		{name: "flag over file", file: inFile, flag: true, want: 3, source: "--max-subscriptions"},
		{name: "flag over environment", variable: "2", flag: true, want: 3, source: "--max-subscriptions"},
		{name: "flag over both", file: inFile, variable: "2", flag: true, want: 3, source: "--max-subscriptions"},
		{name: "an empty variable is none", file: inFile, variable: "", want: 1, source: "c.yaml:1:20"},
		{name: "no limit is a value", file: "max-subscriptions: 0\n", want: 0, source: "c.yaml:1:20"},
	} {
		t.Run(test.name, func(t *testing.T) {
			flags, given := Default(), []string{}
			if test.file != "" {
				writeFile(t, "c.yaml", test.file)
				flags.Config, given = "c.yaml", append(given, "config")
			}
			if test.flag {
				flags.MaxSubscriptions, given = 3, append(given, "max-subscriptions")
			}
			loaded := Load(flags, given, []string{"PATH=/bin", "MILLRACE_MAX_SUBSCRIPTIONS=" + test.variable})
			if len(loaded.Problems) > 0 {
				t.Fatal(loaded.Problems)
			}
			if loaded.Settings.MaxSubscriptions != test.want {
				t.Errorf("got %d, want %d", loaded.Settings.MaxSubscriptions, test.want)
			}
			if source := loaded.Source("max-subscriptions").String(); source != test.source {
				t.Errorf("source %s, want %s", source, test.source)
			}
		})
	}
}

// Every setting has to be reachable by all the ways that the documentation promises.
func TestEverySettingFromEveryLayer(t *testing.T) {
	samples := map[string]string{
		"listen": "127.0.0.1:9", "admin-listen": "127.0.0.1:10", "reuse-port": "true", "without-io-uring": "true", "allowed-origins": "https://a.example,http://b:1",
		"trusted-proxies": "10.0.0.0/8,::1", "proxy-protocol": "true", "loops": "2", "demo": "true", "redis": "redis://h:1", "channel-prefix": "p-",
		"auth-hmac-secret": "0123456789abcdef0123456789abcdef", "auth-hmac-secret-file": "s", "auth-public-key-file": "k",
		"auth-jwks-url": "https://id.example/keys", "auth-audience": "a", "auth-issuer": "i", "user-claim": "uid",
		"insecure-no-auth": "true", "max-connections": "7", "max-connections-per-user": "7", "max-connections-per-address": "7",
		"max-subscriptions": "7", "max-header-bytes": "8k", "max-message-bytes": "1m", "max-event-bytes": "2MiB",
		"max-queue-bytes": "3MiB", "max-queue-age": "7s", "progress-timeout": "8s", "max-replay-bytes": "1MiB", "max-stream-age": "1h", "commands-per-second": "7", "accept-rate": "7",
		"handshake-timeout": "3s", "drain-timeout": "4s", "log-level": "debug", "log-format": "json", "compression": "off",
	}
	for _, field := range Fields() {
		if field.FileOnly || field.Name == "config" {
			continue
		}
		t.Run(field.Name, func(t *testing.T) {
			sample, ok := samples[field.Name]
			if !ok {
				t.Fatal("this setting has no sample here")
			}
			fallback := Default()
			loaded := load(t, "", field.Environment+"="+sample)
			fromEnvironment := render(&field, loaded)
			if fromEnvironment == text(field.value(&fallback)) {
				t.Errorf("%s=%s changed nothing", field.Environment, sample)
			}
			writeFile(t, "c.yaml", field.Name+": "+sample+"\n")
			loaded = load(t, "c.yaml")
			if fromFile := render(&field, loaded); fromFile != fromEnvironment {
				t.Errorf("the file gives %s, the environment %s", fromFile, fromEnvironment)
			}
		})
	}
}

func render(field *Field, loaded *Loaded) string {
	if len(loaded.Problems) > 0 {
		return loaded.Problems.Error()
	}
	return text(field.value(&loaded.Settings))
}

func TestConfigFromTheEnvironment(t *testing.T) {
	writeFile(t, "c.yaml", "demo: true\n")
	loaded := load(t, "", "MILLRACE_CONFIG=c.yaml")
	if !loaded.Settings.Demo || loaded.Settings.Config != "c.yaml" || len(loaded.Problems) > 0 {
		t.Errorf("demo %v, config %q, problems %v", loaded.Settings.Demo, loaded.Settings.Config, loaded.Problems)
	}
	loaded = load(t, "", "MILLRACE_CONFIG=none.yaml")
	if got, want := loaded.Problems.Error(), "MILLRACE_CONFIG: there is no file none.yaml"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNilAndEmptyListsDiffer(t *testing.T) {
	writeFile(t, "c.yaml", "personal: []\n")
	loaded := load(t, "c.yaml")
	if loaded.Settings.Personal == nil || loaded.Settings.Broadcast != nil {
		t.Errorf("personal %#v, broadcast %#v", loaded.Settings.Personal, loaded.Settings.Broadcast)
	}
}

func TestAliasesAreFollowed(t *testing.T) {
	writeFile(t, "c.yaml", "max-message-bytes: &size 128KiB\nmax-header-bytes: *size\n")
	loaded := load(t, "c.yaml")
	if len(loaded.Problems) > 0 || loaded.Settings.MaxHeaderBytes != 128<<10 {
		t.Errorf("max-header-bytes %d, problems %v", loaded.Settings.MaxHeaderBytes, loaded.Problems)
	}
}

func TestHostileFiles(t *testing.T) {
	deep := strings.Repeat("[", 50_000)
	for _, test := range []struct{ name, content, want string }{
		{"a list without end", "personal: " + deep, "c.yaml"},
		{"an alias to itself", "personal: &a [*a]\n", "c.yaml"},
		{"a megabyte and more", strings.Repeat("#", fileBytesMax+1), "larger than"},
		{"NUL", "listen: \x00\n", "c.yaml"},
		{"a key that is a list", "[a]: b\n", "c.yaml:1:1: expected a name; got a list"},
		{"a merge key", "<<: {demo: true}\n", "c.yaml:1:1: merge keys"},
		{"a very long key", strings.Repeat("k", 1000) + ": 1\n", "unknown setting"},
	} {
		t.Run(test.name, func(t *testing.T) {
			writeFile(t, "c.yaml", test.content)
			loaded := load(t, "c.yaml")
			if len(loaded.Problems) == 0 || !strings.Contains(loaded.Problems.Error(), test.want) {
				t.Fatalf("got %v, want %q in it", loaded.Problems, test.want)
			}
			if size := len(loaded.Problems.Error()); size > 1000 {
				t.Errorf("the message has %d bytes", size)
			}
		})
	}
}

func TestEmptyFilesAreGood(t *testing.T) {
	for name, content := range map[string]string{"empty": "", "comment": "# nothing\n", "marker": "---\n"} {
		t.Run(name, func(t *testing.T) {
			writeFile(t, "c.yaml", content)
			if loaded := load(t, "c.yaml"); len(loaded.Problems) > 0 && name != "marker" {
				t.Error(loaded.Problems)
			}
		})
	}
}

func TestMisspeltVariablesAreWarnedOf(t *testing.T) {
	loaded := load(t, "", "MILLRACE_LISTN=x", "MILLRACE_SERVICE_HOST=10.0.0.1", "MILLRACE_PORT=tcp://x", "MILLRACE_TOKEN=t", "MILLRACE_LISTEN=127.0.0.1:1")
	if got, want := loaded.Warnings.Error(), "MILLRACE_LISTN: this is no setting; did you mean MILLRACE_LISTEN?"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// golden holds got against testdata/name, and rewrites that with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("differs from %s\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}
