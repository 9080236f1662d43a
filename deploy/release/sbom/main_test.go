package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"os"
	"regexp"
	"testing"
)

// TestBill makes the bill of this very test, twice.
func TestBill(t *testing.T) {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var first, second bytes.Buffer
	for _, output := range []*bytes.Buffer{&first, &second} {
		if err := run(path, output); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two bills of one binary differ")
	}
	var document bill
	if err := json.Unmarshal(first.Bytes(), &document); err != nil {
		t.Fatal(err)
	}
	if document.Format != "CycloneDX" || document.SpecVersion != "1.5" || document.Version != 1 {
		t.Errorf("the document says that it is %s %s", document.Format, document.SpecVersion)
	}
	if !regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(document.Serial) {
		t.Errorf("the serial number %s is no UUID", document.Serial)
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := len(info.Deps) + 1; len(document.Components) != want || len(document.Dependencies[0].DependsOn) != want {
		t.Errorf("%d components, %d dependencies, want %d: every module, and the standard library",
			len(document.Components), len(document.Dependencies[0].DependsOn), want)
	}
}

func TestPackageURLs(t *testing.T) {
	for _, test := range []struct{ name, version, want string }{
		{"github.com/BurntSushi/toml", "v1.4.1", "pkg:golang/github.com/burntsushi/toml@v1.4.1"},
		{"example.com/a", "v2.0.0+incompatible", "pkg:golang/example.com/a@v2.0.0%2Bincompatible"},
		{"std", "1.26", "pkg:golang/std@1.26"},
		{"github.com/millrace/millrace", "", "pkg:golang/github.com/millrace/millrace"},
	} {
		c := component{Name: test.name, Version: test.version}
		locate(&c)
		if c.URL != test.want || c.Reference != test.want {
			t.Errorf("%s %s is %s, want %s", test.name, test.version, c.URL, test.want)
		}
	}
}

func TestNotABinary(t *testing.T) {
	if err := run("main.go", &bytes.Buffer{}); err == nil {
		t.Error("a source file has a bill")
	}
}
