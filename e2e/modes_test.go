package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/redistest"
)

// block is one piece of code in a page of the documentation.
type block struct {
	section  string // the heading of second order that it stands under
	language string
	text     string
}

func (b block) listens() bool { return strings.HasPrefix(b.text, "# listen\n") }

// readBlocks gives the code of a page, in order.
func readBlocks(t *testing.T, path string) (blocks []block) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	section, open := "", false
	for line := range strings.Lines(string(content)) {
		language, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case isFence && !open:
			blocks, open = append(blocks, block{section: section, language: language}), true
		case isFence:
			open = false
		case open:
			blocks[len(blocks)-1].text += line
		case strings.HasPrefix(line, "## "):
			section = strings.TrimSpace(line[3:])
		}
	}
	return blocks
}

// work gives the command that runs a worker of the documentation.
func (b block) work(t *testing.T) *exec.Cmd {
	t.Helper()
	file := func(name string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(b.text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	switch b.language {
	case "sh":
		return exec.Command("sh", "-eu", file("worker.sh"))
	case "go":
		return exec.Command("go", "run", "-buildvcs=false", file("worker.go"))
	case "python":
		return exec.Command("/usr/bin/python3", file("worker.py"))
	case "javascript":
		command := exec.Command(node(t), "--input-type=module", "-") // its packages are those of this folder
		command.Stdin = strings.NewReader(b.text)
		return command
	}
	t.Fatalf("nothing runs %s", b.language)
	return nil
}

// TestModesByExample runs every worker of docs/modes.md beside the listener of its section.
func TestModesByExample(t *testing.T) {
	t.Parallel()
	blocks := readBlocks(t, "../docs/modes.md")
	redis := redistest.Start(t)
	config := filepath.Join(t.TempDir(), "millrace.yaml")
	for _, b := range blocks {
		if b.language == "yaml" {
			if err := os.WriteFile(config, []byte(b.text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	g := startGateway(t, "--redis", redis.URL(), "--config", config)
	for section, want := range map[string][]string{
		"Events": {`"frame": ?1\b`, `"frame": ?2\b`},
		"Log":    {`"progress": ?0\.5\b`, `"progress": ?1\b`},
		"State":  {`"clicks": ?"?8\b`},
	} {
		t.Run(section, func(t *testing.T) {
			listener, languages := "", ""
			for _, b := range blocks {
				switch {
				case b.section != section || b.language == "":
				case b.listens():
					listener = strings.ReplaceAll(b.text, "127.0.0.1:8080", g.address)
				default:
					languages += b.language + " "
					t.Run(b.language, func(t *testing.T) { g.runExample(t, redis, listener, b, want) })
				}
			}
			if languages != "sh go python javascript " {
				t.Errorf("the section has workers in %s", languages)
			}
		})
	}
}

// runExample starts the listener, then the worker, and waits for what the listener must see.
func (g *gateway) runExample(t *testing.T, redis *redistest.Server, listener string, b block, want []string) {
	t.Helper()
	redis.CLI(t, "FLUSHALL")
	heard := start(t, "the listener", "sh", "-c", "exec "+strings.TrimPrefix(listener, "# listen\n"))
	see := func(pattern string) {
		t.Helper()
		expression := regexp.MustCompile(pattern)
		for deadline := time.After(patience); ; {
			select {
			case line, more := <-heard.lines:
				if !more {
					t.Fatalf("the listener ended before it saw %s", pattern)
				}
				if strings.HasPrefix(line, "data: ") && expression.MatchString(line) {
					return
				}
			case <-deadline:
				t.Fatalf("the listener did not see %s", pattern)
			}
		}
	}
	see(`"type":"connected"`)
	worker := b.work(t)
	worker.Env = append(os.Environ(), "REDIS_URL="+redis.URL())
	if output, err := worker.CombinedOutput(); err != nil {
		t.Fatalf("the worker in %s: %v\n%s", b.language, err, output)
	}
	for _, pattern := range want {
		see(pattern)
	}
}
