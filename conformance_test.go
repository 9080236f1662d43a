package millrace_test

import (
	"go/ast"
	"go/token"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// namedTest is a test as documents name it: folder.TestName/name of a case.
var namedTest = regexp.MustCompile("`([a-z][a-z0-9/]*)\\.((?:Test|Fuzz)[A-Za-z0-9_]+)(?:/([^`]+))?`")

// TestNamedTestsExist: each test that docs/conformance.md names exists, and so does the name of its
// case.
func TestNamedTestsExist(t *testing.T) {
	document, err := os.ReadFile("docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	functions := make(map[string]bool) // folder.TestName
	texts := make(map[string]bool)     // folder/ and a text that stands in its tests
	for _, file := range goFiles(t) {
		if !file.test {
			continue
		}
		ast.Inspect(file.syntax, func(node ast.Node) bool {
			switch node := node.(type) {
			case *ast.FuncDecl:
				functions[file.folder+"."+node.Name.Name] = true
			case *ast.BasicLit:
				if text, err := strconv.Unquote(node.Value); err == nil && node.Kind == token.STRING {
					texts[file.folder+"/"+text] = true
				}
			}
			return true
		})
	}
	found := 0
	for number, line := range strings.Split(string(document), "\n") {
		for _, named := range namedTest.FindAllStringSubmatch(line, -1) {
			found++
			folder, function, row := named[1], named[2], named[3]
			switch {
			case !functions[folder+"."+function]:
				t.Errorf("docs/conformance.md:%d names %s.%s, which does not exist", number+1, folder, function)
			case row != "" && !texts[folder+"/"+row]:
				t.Errorf("docs/conformance.md:%d names the case %q of %s.%s, which does not exist", number+1, row, folder, function)
			}
		}
	}
	if found < 100 {
		t.Errorf("docs/conformance.md names %d tests: the pattern that finds them is wrong", found)
	}
}
