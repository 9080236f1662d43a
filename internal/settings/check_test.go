package settings

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files and the table of the documentation")

// Each file in testdata/wrong has its problems beside it, one a line.
func TestProblemsOfFiles(t *testing.T) {
	paths, err := filepath.Glob("testdata/wrong/*.yaml")
	if err != nil || len(paths) < 10 {
		t.Fatalf("%d files, error %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			loaded := load(t, path)
			loaded.Check()
			told := loaded.Problems.Error() + "\n"
			if len(loaded.Problems) == 0 {
				t.Fatal("no problem was found")
			}
			for _, secret := range []string{"hunter2", "opensesame"} {
				if strings.Contains(told, secret) {
					t.Errorf("a secret is told: %s", told)
				}
			}
			golden(t, strings.TrimPrefix(strings.TrimSuffix(path, ".yaml")+".txt", "testdata/"), told)
		})
	}
}

func TestChecksAcrossSettings(t *testing.T) {
	long := strings.Repeat("s", 32)
	for _, test := range []struct {
		name        string
		environment []string
		want        string // the start of the one problem; empty for none
	}{
		{"defaults", nil, ""},
		{"open to the world", []string{"MILLRACE_LISTEN=0.0.0.0:8080"}, "MILLRACE_LISTEN: 0.0.0.0:8080 can be reached by other machines"},
		{"open, all addresses", []string{"MILLRACE_LISTEN=:8080"}, "MILLRACE_LISTEN: :8080 can be reached"},
		{"open, a name", []string{"MILLRACE_LISTEN=localhost.example.com:8080"}, "MILLRACE_LISTEN: localhost.example.com:8080 can be reached"},
		{"loopback, IPv6", []string{"MILLRACE_LISTEN=[::1]:8080"}, ""},
		{"loopback, all of 127", []string{"MILLRACE_LISTEN=127.9.9.9:8080"}, ""},
		{"loopback, mapped", []string{"MILLRACE_LISTEN=[::ffff:127.0.0.1]:8080"}, ""},
		{"open on purpose", []string{"MILLRACE_LISTEN=0.0.0.0:8080", "MILLRACE_INSECURE_NO_AUTH=true"}, ""},
		{"open with tokens", []string{"MILLRACE_LISTEN=0.0.0.0:8080", "MILLRACE_AUTH_HMAC_SECRET=" + long}, ""},
		{"a short secret", []string{"MILLRACE_AUTH_HMAC_SECRET=opensesame"}, "MILLRACE_AUTH_HMAC_SECRET: the HMAC secret has 10 bytes"},
		{"a secret twice", []string{"MILLRACE_AUTH_HMAC_SECRET=" + long, "MILLRACE_AUTH_HMAC_SECRET_FILE=f"}, "MILLRACE_AUTH_HMAC_SECRET_FILE: auth-hmac-secret is set too (MILLRACE_AUTH_HMAC_SECRET)"},
		{"no secret file", []string{"MILLRACE_AUTH_HMAC_SECRET_FILE=none"}, "MILLRACE_AUTH_HMAC_SECRET_FILE: there is no file none"},
		{"no key file", []string{"MILLRACE_AUTH_PUBLIC_KEY_FILE=none"}, "MILLRACE_AUTH_PUBLIC_KEY_FILE: there is no file none"},
		{"a folder as key file", []string{"MILLRACE_AUTH_PUBLIC_KEY_FILE=/"}, "MILLRACE_AUTH_PUBLIC_KEY_FILE: / can't be read: is a directory"},
		{"an audience for nobody", []string{"MILLRACE_AUTH_AUDIENCE=a"}, "MILLRACE_AUTH_AUDIENCE: has no effect without"},
		{"an issuer for nobody", []string{"MILLRACE_AUTH_ISSUER=a"}, "MILLRACE_AUTH_ISSUER: has no effect without"},
		{"one port for two", []string{"MILLRACE_ADMIN_LISTEN=127.0.0.1:8080"}, "MILLRACE_ADMIN_LISTEN: is the same as listen"},
		{"two free ports", []string{"MILLRACE_LISTEN=127.0.0.1:0", "MILLRACE_ADMIN_LISTEN=127.0.0.1:0"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			loaded := load(t, "", test.environment...)
			loaded.Check()
			got := loaded.Problems.Error()
			if test.want == "" && got != "" || !strings.HasPrefix(got, test.want) || strings.Contains(got, "\n") {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if strings.Contains(got, "opensesame") || strings.Contains(got, long) {
				t.Error("the secret is told")
			}
		})
	}
}

func TestKeysAreRead(t *testing.T) {
	t.Chdir(t.TempDir())
	secret := strings.Repeat("s", 40)
	public := "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"
	for name, content := range map[string]string{"secret": secret + "\r\n", "key.pem": public, "empty": "\n"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	loaded := load(t, "", "MILLRACE_AUTH_HMAC_SECRET_FILE=secret", "MILLRACE_AUTH_PUBLIC_KEY_FILE=key.pem")
	keys := loaded.Check()
	if len(loaded.Problems) > 0 || string(keys.HMACSecret) != secret || string(keys.PublicKeyPEM) != public || keys.Placeholder() {
		t.Errorf("problems %v, secret of %d bytes, key of %d", loaded.Problems, len(keys.HMACSecret), len(keys.PublicKeyPEM))
	}
	loaded = load(t, "", "MILLRACE_AUTH_HMAC_SECRET_FILE=empty")
	loaded.Check()
	if !strings.HasPrefix(loaded.Problems.Error(), "MILLRACE_AUTH_HMAC_SECRET_FILE: empty is empty") {
		t.Error(loaded.Problems)
	}
}

func TestUsageIsWhatStandsOnTheCommandLine(t *testing.T) {
	flagged, other := Problem{Source: Source{Flag: "--a"}}, Problem{Source: Source{Environment: "A"}}
	for _, test := range []struct {
		problems Problems
		want     bool
	}{{nil, false}, {Problems{flagged}, true}, {Problems{flagged, other}, false}, {Problems{other}, false}} {
		if test.problems.Usage() != test.want {
			t.Errorf("%v: want %v", test.problems, test.want)
		}
	}
}

func TestNearest(t *testing.T) {
	known := names()
	for input, want := range map[string]string{
		"max_queue_bytes": "max-queue-bytes", "MaxQueueBytes": "max-queue-bytes", "lsiten": "listen", "reddis": "redis",
		"max-conections": "max-connections", "zzz": "", "": "", "max-connections-per-adress": "max-connections-per-address",
		strings.Repeat("listen", 100): "",
	} {
		if got := nearest(input, known); got != want {
			t.Errorf("%.40q: got %q, want %q", input, got, want)
		}
	}
}

func TestEditDistance(t *testing.T) {
	for _, test := range []struct {
		from, to string
		want     int
	}{{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"kitten", "sitting", 3}, {"ca", "abc", 3}} {
		if got := editDistance(test.from, test.to); got != test.want {
			t.Errorf("%q %q: got %d, want %d", test.from, test.to, got, test.want)
		}
	}
}

// The places of problems are in the order of the file, whatever found them.
func TestProblemsAreInOrder(t *testing.T) {
	loaded := load(t, "testdata/wrong/everything.yaml")
	loaded.Check()
	if !slices.IsSortedFunc(loaded.Problems, func(a, b Problem) int { return a.Source.Line - b.Source.Line }) {
		t.Error(loaded.Problems)
	}
}
