package main

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/settings"
)

func documentOf(t *testing.T, form string) string {
	t.Helper()
	ran := (&invocation{arguments: []string{"document", form}}).run(t)
	if ran.code != 0 || ran.stderr != "" {
		t.Fatalf("document %s: exit code %d: %s", form, ran.code, ran.stderr)
	}
	return ran.stdout
}

// TestDocumentsAreWhole: every command and every setting stands in every document, and two runs give
// the same bytes, on which a release that can be built again depends.
func TestDocumentsAreWhole(t *testing.T) {
	parser, err := newParser(&process{})
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{"man", "bash", "zsh", "fish"} {
		text := documentOf(t, form)
		if text != documentOf(t, form) {
			t.Errorf("%s differs from run to run", form)
		}
		plain := strings.ReplaceAll(text, `\-`, "-")
		for _, node := range parser.Model.Children {
			if named := regexp.MustCompile(`\b` + node.Name + `\b`).MatchString(plain); named == node.Hidden {
				t.Errorf("%s: the command %s is there: %v; it is hidden: %v", form, node.Name, named, node.Hidden)
			}
		}
		for _, field := range settings.Fields() {
			if want := regexp.MustCompile(`(--|-l )` + field.Name + `\b`); !field.FileOnly && !want.MatchString(plain) {
				t.Errorf("%s lacks the flag --%s", form, field.Name)
			}
			if form == "man" && field.Environment != "" && !strings.Contains(plain, field.Environment) {
				t.Errorf("the man page lacks %s", field.Environment)
			}
		}
	}
	for _, command := range documented(parser.Model.Node) {
		for _, flag := range command.flags {
			if strings.ContainsRune(command.help+flag.help, '\\') {
				t.Errorf("the help of %s --%s has a backslash, which shells read differently", command.name, flag.name)
			}
		}
	}
}

func TestManPageIsClean(t *testing.T) {
	man, err := exec.LookPath("man")
	if err != nil {
		t.Skip("man is not installed")
	}
	command := exec.Command(man, "--warnings=all", "-l", "-")
	command.Stdin = strings.NewReader(documentOf(t, "man"))
	var complaints strings.Builder
	command.Stderr = &complaints
	output, err := command.Output()
	if err != nil || complaints.Len() > 0 {
		t.Errorf("man: %v\n%s", err, complaints.String())
	}
	if !strings.Contains(string(output), "--listen=127.0.0.1:8080") {
		t.Errorf("the page shows no --listen:\n%s", output)
	}
}

// TestBashCompletes asks a real bash what it would offer.
func TestBashCompletes(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed")
	}
	script := documentOf(t, "bash")
	for _, test := range []struct{ name, line, want string }{
		{"a command", "millrace ser", "serve"},
		{"all commands", "millrace ", "serve publish tail token check upgrade bench version"},
		{"a flag", "millrace serve --chann", "--channel-prefix"},
		{"only its own flags", "millrace version --chann", ""},
		{"a choice", "millrace serve --log-level d", "debug"},
		{"a choice behind =", "millrace serve --log-level = d", "debug"},
		{"all choices behind =", "millrace serve --log-format =", "auto text json"},
		{"a free value", "millrace serve --listen ", ""},
		{"a command below", "millrace bench rep", "report"},
	} {
		t.Run(test.name, func(t *testing.T) {
			command := exec.Command(bash, "--norc", "-c", script+`
				COMP_WORDS=($1); [ "${1% }" = "$1" ] || COMP_WORDS+=("")
				COMP_CWORD=$((${#COMP_WORDS[@]}-1)); _millrace; echo "${COMPREPLY[*]}"`, "bash", test.line)
			output, err := command.CombinedOutput()
			if got := strings.TrimSpace(string(output)); err != nil || got != test.want {
				t.Errorf("bash offers %q (error %v), want %q", got, err, test.want)
			}
		})
	}
}
