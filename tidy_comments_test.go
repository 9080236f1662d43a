package millrace_test

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// TestExportedComments holds every exported name of every library package to having a comment.
// In a struct, an interface or a group of constants one comment covers the lines below it up to
// the next blank line, so that a family of fields need not repeat itself; the comment of the
// whole covers its first lines. A field is covered, too, where that comment names it, and where
// its type is an exported one of the same package, which has a comment of its own.
func TestExportedComments(t *testing.T) {
	for _, file := range goFiles(t) {
		if file.test || file.syntax.Name.Name == "main" {
			continue
		}
		for _, declaration := range file.syntax.Decls {
			switch declaration := declaration.(type) {
			case *ast.FuncDecl:
				receiver := receiverType(declaration)
				reachable := receiver == "" || ast.IsExported(receiver) && !wellKnown[declaration.Name.Name]
				if reachable && declaration.Name.IsExported() && declaration.Doc == nil {
					t.Errorf("%s: %s%s has no comment", file.at(declaration.Pos()), receiverPrefix(declaration), declaration.Name.Name)
				}
			case *ast.GenDecl:
				checkGroup(t, file, declaration)
			}
		}
	}
}

// wellKnown methods mean in every Go program what the standard library says that they mean.
var wellKnown = map[string]bool{"Error": true, "String": true, "Unwrap": true}

// checkGroup looks at one const, var or type declaration, grouped or not.
func checkGroup(t *testing.T, file sourceFile, group *ast.GenDecl) {
	t.Helper()
	if group.Tok == token.IMPORT {
		return
	}
	cover := coverage{file: file}
	for _, spec := range group.Specs {
		switch spec := spec.(type) {
		case *ast.ValueSpec:
			covered := cover.next(spec, spec.Doc, spec.Comment)
			for _, name := range spec.Names {
				if name.IsExported() && group.Doc == nil && !covered {
					t.Errorf("%s: %s has no comment", file.at(name.Pos()), name.Name)
				}
			}
		case *ast.TypeSpec:
			if !spec.Name.IsExported() {
				continue
			}
			if group.Doc == nil && spec.Doc == nil {
				t.Errorf("%s: %s has no comment", file.at(spec.Pos()), spec.Name.Name)
			}
			if strings.HasPrefix(file.folder, "internal/") {
				continue // a test helper's fields may speak for themselves
			}
			checkMembers(t, file, spec, group.Doc.Text()+spec.Doc.Text())
		}
	}
}

// checkMembers looks at the fields of an exported struct and the methods of an exported interface.
func checkMembers(t *testing.T, file sourceFile, spec *ast.TypeSpec, comment string) {
	t.Helper()
	var members *ast.FieldList
	switch body := spec.Type.(type) {
	case *ast.StructType:
		members = body.Fields
	case *ast.InterfaceType:
		members = body.Methods
	default:
		return
	}
	cover := coverage{file: file, covered: comment != "", endLine: file.set.Position(members.Opening).Line}
	for _, member := range members.List {
		covered := cover.next(member, member.Doc, member.Comment)
		if kind, ok := member.Type.(*ast.Ident); ok && kind.IsExported() {
			covered = true
		}
		for _, name := range member.Names {
			if name.IsExported() && !covered && !slices.Contains(words(comment), name.Name) {
				t.Errorf("%s: %s.%s has no comment", file.at(name.Pos()), spec.Name.Name, name.Name)
			}
		}
	}
}

func words(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
}

// coverage follows the members of one group from top to bottom and says which ones a comment
// covers: their own, or one above with no blank line between.
type coverage struct {
	file    sourceFile
	covered bool // the member before was
	endLine int  // of the member before
}

func (c *coverage) next(member ast.Node, comments ...*ast.CommentGroup) bool {
	own := false
	for _, comment := range comments {
		own = own || comment != nil
	}
	start := c.file.set.Position(member.Pos()).Line
	c.covered = own || c.covered && start <= c.endLine+1
	c.endLine = c.file.set.Position(member.End()).Line
	return c.covered
}
