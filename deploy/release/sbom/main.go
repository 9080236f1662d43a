// Command sbom writes a software bill of materials for a Go binary, as CycloneDX 1.5 in JSON: what the
// toolchain wrote into the binary itself, so the modules that are linked and no others.
//
//	sbom BINARY > sbom.json
//
// The same binary gives the same bytes: there is no time in it, and its serial number is made from
// its content.
package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"runtime/debug"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: sbom BINARY")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func run(path string, output io.Writer) error {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read what %s is made of: %w", path, err)
	}
	binary, err := os.Open(path)
	if err != nil {
		return err
	}
	defer binary.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, binary); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	encoder := json.NewEncoder(output)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(billOf(info, hash.Sum(nil)))
}

// bill is a CycloneDX document, as far as it is used here.
type bill struct {
	Format       string       `json:"bomFormat"`
	SpecVersion  string       `json:"specVersion"`
	Serial       string       `json:"serialNumber"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Component component `json:"component"`
}

type component struct {
	Reference  string     `json:"bom-ref"`
	Type       string     `json:"type"`
	Name       string     `json:"name"`
	Version    string     `json:"version,omitempty"`
	URL        string     `json:"purl"`
	Hashes     []hash     `json:"hashes,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Reference string   `json:"ref"`
	DependsOn []string `json:"dependsOn,omitempty"`
}

// billOf makes the document from what the toolchain wrote and the SHA-256 of the binary.
func billOf(info *debug.BuildInfo, sum []byte) bill {
	main := component{
		Type: "application", Name: info.Main.Path, Version: info.Main.Version,
		Hashes: []hash{{"SHA-256", fmt.Sprintf("%x", sum)}},
	}
	for _, setting := range info.Settings {
		switch setting.Key {
		case "GOOS", "GOARCH", "CGO_ENABLED", "vcs.revision", "vcs.modified":
			main.Properties = append(main.Properties, property{"go:" + setting.Key, setting.Value})
		}
	}
	locate(&main)
	standard := component{Type: "library", Name: "std", Version: strings.TrimPrefix(info.GoVersion, "go")}
	locate(&standard)
	document := bill{
		Format: "CycloneDX", SpecVersion: "1.5", Serial: serial(sum), Version: 1,
		Metadata: metadata{main}, Components: []component{standard},
	}
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		library := component{Type: "library", Name: module.Path, Version: module.Version}
		if module.Sum != "" { // the hash of a go.sum, which is none that CycloneDX has a name for
			library.Properties = []property{{"go:sum", module.Sum}}
		}
		locate(&library)
		document.Components = append(document.Components, library)
	}
	all := dependency{Reference: main.Reference}
	for _, library := range document.Components {
		all.DependsOn = append(all.DependsOn, library.Reference)
	}
	document.Dependencies = []dependency{all}
	return document
}

// locate names a module by its package URL, which is also what the document calls it.
func locate(c *component) {
	c.URL = "pkg:golang/" + strings.ToLower(c.Name)
	if c.Version != "" {
		c.URL += "@" + strings.ReplaceAll(url.PathEscape(c.Version), "+", "%2B")
	}
	c.Reference = c.URL
}

// serial makes a UUID (RFC 9562, version 8: of our own making) from the hash of the binary.
func serial(sum []byte) string {
	var id [16]byte
	copy(id[:], sum)
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}
