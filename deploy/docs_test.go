package deploy

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// ownPages is where links that leave the repository's files, such as those of an npm package, name its
// pages.
const ownPages = "https://github.com/millrace/millrace/blob/main/"

// pagesOf finds every page that a reader may come to.
func pagesOf(t *testing.T) []string {
	t.Helper()
	pages, err := filepath.Glob("../changelog/unreleased/*.md") // none right after a release
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{
		"../*.md", "../docs/*.md", "../docs/decisions/*.md", "../changelog/*.md", "../examples/*/README.md", "../web/*/README.md",
	} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("no pages %s found: %v", pattern, err)
		}
		pages = append(pages, found...)
	}
	return pages
}

// TestLinks follows every link of the pages from one file of the repository to another, to the
// heading that it names.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, page := range pagesOf(t) {
		for _, found := range link.FindAllStringSubmatch(read(t, page), -1) {
			target, anchor, _ := strings.Cut(found[1], "#")
			path := page
			switch own, ours := strings.CutPrefix(target, ownPages); {
			case ours:
				path = filepath.Join("..", own)
			case strings.Contains(target, "://"):
				continue
			case target != "":
				path = filepath.Join(filepath.Dir(page), target)
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s links to %s, which is not there", page, found[1])
				continue
			}
			if anchor == "" {
				continue
			}
			if _, there := sectionsOf(read(t, path))[anchor]; !there {
				t.Errorf("%s links to %s: no such heading", page, found[1])
			}
		}
	}
}
