// Package millrace_test holds the rules of the house that no linter knows: which package may
// import which, how long a file or a function may grow, and what no committed file may hold.
// Each failure says where, what the rule is and what to do.
package millrace_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const (
	module           = "github.com/millrace/millrace"
	fileLinesMax     = 500
	functionLinesMax = 70
)

// layers says, for each folder with Go code, which of our folders its shipped code may import.
// Test files are free to reach further: a test may put the whole house together.
//
//	proto <- broker <- hub <- gateway <- cmd        netio <- hub, gateway        proto, netio <- bench <- cmd
//	examples/workers <- cmd
//	proto <- council <- gateway, cmd
var layers = map[string][]string{
	"proto":                  {"proto/deflate"},
	"proto/deflate":          {},
	"netio":                  {},
	"netio/handoff":          {},
	"web":                    {},
	"broker":                 {"proto"},
	"broker/brokertest":      {"proto", "broker"},
	"hub":                    {"proto", "broker", "netio"},
	"council":                {"proto"},
	"gateway/auth":           {"proto", "gateway/access"},
	"gateway/access":         {"proto", "gateway/auth"},
	"gateway":                {"proto", "proto/deflate", "broker", "hub", "netio", "netio/handoff", "web", "council", "gateway/auth", "gateway/access"},
	"cmd/millrace":           {"proto", "broker", "hub", "netio", "netio/handoff", "gateway", "gateway/auth", "gateway/access", "bench", "examples/workers/crew", "examples/workers/titancore"},
	"bench":                  {"proto", "netio"},
	"bench/peers/centrifuge": {},
	"bench/peers/nbio":       {},
	"audit":                  {"proto", "proto/deflate"},
	"deploy":                 {},
	"deploy/release/sbom":    {},
	"e2e":                    {},
	"e2e/crowd":              {},
	"hostile":                {},

	// The example workers know nothing of the gateway: all that they share with it is Redis.
	"examples/workers/channels":              {},
	"examples/workers/channels/channelstest": {"examples/workers/channels"},
	"examples/workers/titancore":             {"examples/workers/channels"},
	"examples/workers/ads":                   {"examples/workers/channels"},
	"examples/workers/ads/generate":          {},
	"examples/workers/ml":                    {"examples/workers/channels"},
	"examples/workers/crew":                  {"examples/workers/channels", "examples/workers/titancore", "examples/workers/ads", "examples/workers/ml"},
	"examples/echo":                          {"netio", "proto", "proto/deflate"},

	"examples/workers": {"examples/workers/channels", "examples/workers/crew", "examples/workers/titancore", "examples/workers/ads"},
}

// longFiles names files over the limit, with the reason. The list may only shrink: an entry whose
// file is short enough, or gone, fails the test.
var longFiles = map[string]string{}

// longFunctions names functions over the limit, with the reason. The list may only shrink, as
// above.
var longFunctions = map[string]string{}

// sleepingTests names test files that may sleep, with the reason. A test that waits for something
// polls with a deadline instead: a sleep is too short on a busy machine, too long on an idle one,
// and hides what was waited for. (The pause inside a polling loop is no such sleep.) The list may
// only shrink, as above.
var sleepingTests = map[string]string{}

// sourceFile is one Go file, parsed.
type sourceFile struct {
	path   string // from the root, with slashes
	folder string // "." for the root
	test   bool
	text   []byte
	set    *token.FileSet
	syntax *ast.File
}

func (f sourceFile) at(p token.Pos) string {
	return f.path + ":" + strconv.Itoa(f.set.Position(p).Line)
}

func (f sourceFile) lines(node ast.Node) int {
	return f.set.Position(node.End()).Line - f.set.Position(node.Pos()).Line + 1
}

// remarked says whether a comment stands behind the node, on its line.
func (f sourceFile) remarked(node ast.Node) bool {
	line := f.set.Position(node.End()).Line
	return slices.ContainsFunc(f.syntax.Comments, func(comment *ast.CommentGroup) bool {
		return f.set.Position(comment.Pos()).Line == line
	})
}

// committed gives the path of every file that belongs to the project.
func committed(t *testing.T) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			switch entry.Name() {
			case ".git", "node_modules", "bin":
				return fs.SkipDir
			}
			return nil
		}
		if entry.Type().IsRegular() && name != ".git" {
			paths = append(paths, filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil {
		t.Fatalf("walking the tree: %v", err)
	}
	return paths
}

func goFiles(t *testing.T) []sourceFile {
	t.Helper()
	parsed.Do(func() { parsedFiles = parse(t) })
	if len(parsedFiles) == 0 {
		t.Fatal("no Go files: they do not parse, or the test does not run at the root of the repository")
	}
	return parsedFiles
}

// parsedFiles are all Go files, parsed once for all rules.
var (
	parsed      sync.Once
	parsedFiles []sourceFile
)

func parse(t *testing.T) (files []sourceFile) {
	t.Helper()
	for _, name := range committed(t) {
		if path.Ext(name) != ".go" || strings.HasPrefix(name, "tools/") || strings.Contains(name, "/testdata/") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		set := token.NewFileSet()
		syntax, err := parser.ParseFile(set, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatalf("%s does not parse: %v", name, err)
		}
		if ast.IsGenerated(syntax) {
			continue
		}
		files = append(files, sourceFile{
			path: name, folder: path.Dir(name), test: strings.HasSuffix(name, "_test.go"),
			text: text, set: set, syntax: syntax,
		})
	}
	return files
}

func TestLayers(t *testing.T) {
	for _, file := range goFiles(t) {
		if file.test || strings.HasPrefix(file.folder, "internal/") {
			continue
		}
		allowed, known := layers[file.folder]
		if !known {
			t.Errorf("%s: the folder %q has no layer: add it to layers in tidy_test.go", file.path, file.folder)
			continue
		}
		for _, spec := range file.syntax.Imports {
			imported, ours := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), module+"/")
			if !ours || strings.HasPrefix(imported, "internal/") {
				continue
			}
			if !slices.Contains(allowed, imported) {
				t.Errorf("%s: %s may not import %s: a lower folder calls a higher one through its callbacks",
					file.at(spec.Pos()), file.folder, imported)
			}
		}
	}
}

func TestFileLength(t *testing.T) {
	unused := maps.Clone(longFiles)
	for _, file := range goFiles(t) {
		if lines := bytes.Count(file.text, []byte("\n")); lines > fileLinesMax {
			if _, excepted := longFiles[file.path]; excepted {
				delete(unused, file.path)
				continue
			}
			t.Errorf("%s has %d lines, the limit is %d: split it where its story has a seam",
				file.path, lines, fileLinesMax)
		}
	}
	for name := range unused {
		t.Errorf("longFiles in tidy_test.go still lists %s, which is short enough now or gone: remove it", name)
	}
}

func TestFunctionLength(t *testing.T) {
	unused := maps.Clone(longFunctions)
	for _, file := range goFiles(t) {
		for _, declaration := range file.syntax.Decls {
			function, ok := declaration.(*ast.FuncDecl)
			if !ok || function.Body == nil {
				continue
			}
			lines := file.lines(function)
			if file.test {
				lines -= tableLines(file, function)
			}
			if lines <= functionLinesMax {
				continue
			}
			name := file.folder + "." + receiverPrefix(function) + function.Name.Name
			if _, excepted := longFunctions[name]; excepted {
				delete(unused, name)
				continue
			}
			t.Errorf("%s: %s has %d lines, the limit is %d", file.at(function.Pos()), name, lines, functionLinesMax)
		}
	}
	for name := range unused {
		t.Errorf("longFunctions in tidy_test.go still lists %s, which is short enough now or gone: remove it", name)
	}
}

// tableLines counts the lines of the tables that a test function holds: a table grows by a line
// a case, and is easier to read beside the test than away from it.
func tableLines(file sourceFile, function *ast.FuncDecl) int {
	total := 0
	ast.Inspect(function.Body, func(node ast.Node) bool {
		literal, ok := node.(*ast.CompositeLit)
		if !ok {
			return true
		}
		switch literal.Type.(type) {
		case *ast.ArrayType, *ast.MapType:
			total += file.lines(literal)
			return false
		}
		return true
	})
	return total
}

// receiverPrefix gives "Type." for a method, and nothing for a function.
func receiverPrefix(function *ast.FuncDecl) string {
	name := receiverType(function)
	if name == "" {
		return ""
	}
	return name + "."
}

func receiverType(function *ast.FuncDecl) string {
	if function.Recv == nil || len(function.Recv.List) == 0 {
		return ""
	}
	expression := function.Recv.List[0].Type
	for {
		switch inner := expression.(type) {
		case *ast.StarExpr:
			expression = inner.X
		case *ast.IndexExpr:
			expression = inner.X
		case *ast.IndexListExpr:
			expression = inner.X
		case *ast.Ident:
			return inner.Name
		default:
			return ""
		}
	}
}

// TestSleepAndSkip looks at calls in tests: none sleeps, and none is skipped in silence.
func TestSleepAndSkip(t *testing.T) {
	unused := maps.Clone(sleepingTests)
	for _, file := range goFiles(t) {
		if !file.test {
			continue
		}
		var polls []*ast.ForStmt
		ast.Inspect(file.syntax, func(node ast.Node) bool {
			if loop, ok := node.(*ast.ForStmt); ok {
				polls = append(polls, loop)
			}
			call, ok := node.(*ast.CallExpr)
			if !ok {
				return true
			}
			selector, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			target, _ := selector.X.(*ast.Ident)
			switch {
			case target != nil && target.Name == "time" && selector.Sel.Name == "Sleep":
				if _, excepted := sleepingTests[file.path]; excepted {
					delete(unused, file.path)
				} else if !slices.ContainsFunc(polls, func(loop *ast.ForStmt) bool { return loop.Pos() < call.Pos() && call.End() < loop.End() }) {
					t.Errorf("%s: a test sleeps: poll with a deadline, or give the reason in sleepingTests", file.at(call.Pos()))
				}
			case (selector.Sel.Name == "SkipNow" || selector.Sel.Name == "Skip" && target != nil && target.Name == "t") &&
				len(call.Args) == 0 && !file.remarked(call):
				t.Errorf("%s: a test is skipped without a word: t.Skip(reason), or say why on the same line", file.at(call.Pos()))
			}
			return true
		})
	}
	for name := range unused {
		t.Errorf("sleepingTests in tidy_test.go still lists %s, which does not sleep or is gone: remove it", name)
	}
}

func TestPackageComments(t *testing.T) {
	commented := make(map[string]bool)
	for _, file := range goFiles(t) {
		if file.syntax.Name.Name == "util" || file.syntax.Name.Name == "utils" {
			t.Errorf("%s: a package is named for what it provides, never util", file.path)
		}
		commented[file.folder] = commented[file.folder] || file.syntax.Doc != nil
	}
	for folder, ok := range commented {
		if !ok {
			t.Errorf("%s: no file has a package comment: say what the package is, and its story", folder)
		}
	}
}

// forbidden holds what may stand in no file of the project. The patterns are written so that
// they do not match themselves, and each begins with plain text, which is found fast.
var forbidden = []struct {
	name     string
	patterns []string
	advice   string
}{
	{"unfinished work", []string{`TO` + `DO\b`, `FIX` + `ME\b`, `X` + `XX\b`}, "do it, or open an issue"},
	{"a path of one machine", []string{`/wor` + `k/`, `/far` + `m/`, `/ro` + `ot/`, `/home/[a-z]+/`, `/tmp/w` + `t/`}, "use a relative path or a temporary folder"},
	{"a package registry", []string{`registry\.npm` + `js`, `proxy\.gol` + `ang`, `reg` + `istry\.yarn`}, "lock files do without it"},
}

func TestForbiddenWords(t *testing.T) {
	for _, name := range committed(t) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.IndexByte(text, 0) >= 0 {
			continue
		}
		for _, rule := range forbidden {
			for _, pattern := range rule.patterns {
				for _, found := range regexp.MustCompile(pattern).FindAllIndex(text, -1) {
					line := 1 + bytes.Count(text[:found[0]], []byte("\n"))
					t.Errorf("%s:%d holds %s: %s", name, line, rule.name, rule.advice)
				}
			}
		}
	}
}
