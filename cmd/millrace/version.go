package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// versionCommand is `millrace version`.
type versionCommand struct{}

// libraries are those whose behaviour a bug report needs.
var libraries = []struct{ name, path string }{
	{"netpoll", "github.com/cloudwego/netpoll"},
	{"ws", "github.com/gobwas/ws"},
	{"rueidis", "github.com/redis/rueidis"},
	{"sonic", "github.com/bytedance/sonic"},
	{"compress", "github.com/klauspost/compress"},
}

// Run prints what the Go toolchain wrote into the binary.
func (*versionCommand) Run(world *process) error {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return fmt.Errorf("this binary was built without build information: build it with `go build` from a checkout")
	}
	return printVersion(world.stdout, info)
}

func printVersion(output io.Writer, info *debug.BuildInfo) error {
	linked := map[string]string{}
	for _, module := range info.Deps {
		if module.Replace != nil {
			linked[module.Path] = module.Replace.Version + " (replaced)"
			continue
		}
		linked[module.Path] = module.Version
	}
	rows := [][2]string{
		{"millrace", moduleVersion(info)},
		{"commit", commit(info)},
		{"go", info.GoVersion + " " + runtime.GOOS + "/" + runtime.GOARCH},
	}
	for _, library := range libraries {
		version := linked[library.path]
		if version == "" {
			version = "not linked"
		}
		rows = append(rows, [2]string{library.name, version})
	}
	for _, row := range rows {
		if _, err := fmt.Fprintf(output, "%-9s %s\n", row[0], row[1]); err != nil {
			return err
		}
	}
	return nil
}

// stamp is the version of a build that has none of its own: -ldflags "-X main.stamp=v1.2.3-mine".
var stamp string

// softwareVersion names this build to another process of ours.
func softwareVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return stamp
	}
	return moduleVersion(info)
}

// moduleVersion gives the version of this module, "devel" where the build knows none.
func moduleVersion(info *debug.BuildInfo) string {
	if stamp != "" {
		return stamp
	}
	if info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}

// commit gives the revision that was built and whether the tree had changes.
func commit(info *debug.BuildInfo) string {
	revision, changed := "unknown (built outside a checkout)", ""
	for _, setting := range info.Settings {
		switch {
		case setting.Key == "vcs.revision":
			revision = setting.Value
		case setting.Key == "vcs.modified" && setting.Value == "true":
			changed = " with local changes"
		}
	}
	return revision + changed
}

// userAgent names this program to the gateways that it calls.
func userAgent() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "millrace"
	}
	return "millrace/" + moduleVersion(info)
}
