// Package cgroup says how much memory this process may take, where a control group of Linux bounds
// it, and how much is taken. Beyond the bound the kernel ends processes of the group.
//
// Both versions are known: the files memory.max and memory.current of version 2, and
// memory.limit_in_bytes and memory.usage_in_bytes of version 1. What the group has cached of files
// that nobody uses does not count, since the kernel lets go of it before it ends anybody.
package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"strconv"
	"strings"
)

// unlimited is from where on a number of version 1 means that there is no bound.
const unlimited = math.MaxInt64 / 2

// Memory is the memory of one control group. Its methods may be called from any goroutine.
type Memory struct {
	root   fs.FS
	folder string
	names  files
	limit  int64
}

// files are the names that one version gives to what is read. inactive begins a line of stat.
type files struct {
	limit, usage, stat, inactive string
}

var (
	version1 = files{"memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat", "total_inactive_file "}
	version2 = files{"memory.max", "memory.current", "memory.stat", "inactive_file "}
)

// Own gives the group with the least bound among those that this process is in, nil if none of them
// has one, or none can be read.
func Own() *Memory { return own(os.DirFS("/")) }

func own(root fs.FS) (least *Memory) {
	text, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		// hierarchy:controllers:path (cgroups(7)); version 2 has hierarchy 0 and no controllers.
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		var found *Memory
		switch {
		case parts[0] == "0" && parts[1] == "":
			found = bounded(root, "sys/fs/cgroup", parts[2], version2)
		case strings.Contains(","+parts[1]+",", ",memory,"):
			found = bounded(root, "sys/fs/cgroup/memory", parts[2], version1)
		}
		if found != nil && (least == nil || found.limit < least.limit) {
			least = found
		}
	}
	return least
}

// bounded looks for the least bound from a group up to the root of its hierarchy. In a container
// the path may be one of the host, of which only the container's own part is there: then that is
// what the root shows.
func bounded(root fs.FS, top, group string, names files) (least *Memory) {
	for folder := path.Join(top, group); ; folder = path.Dir(folder) {
		if limit, err := readNumber(root, path.Join(folder, names.limit)); err == nil && limit < unlimited && (least == nil || limit < least.limit) {
			least = &Memory{root: root, folder: folder, names: names, limit: limit}
		}
		if folder == top || !strings.HasPrefix(folder, top) {
			return least
		}
	}
}

// Limit is the bound, in bytes.
func (m *Memory) Limit() int64 { return m.limit }

// Used is how much of it is taken, in bytes, less what the kernel would let go of first.
func (m *Memory) Used() (int64, error) {
	usage, err := readNumber(m.root, path.Join(m.folder, m.names.usage))
	if err != nil {
		return 0, err
	}
	stat, err := fs.ReadFile(m.root, path.Join(m.folder, m.names.stat))
	if err != nil {
		return 0, fmt.Errorf("cgroup: %w", err)
	}
	for line := range bytes.Lines(stat) {
		if number, found := strings.CutPrefix(string(line), m.names.inactive); found {
			inactive, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("cgroup: %s: %w", m.names.stat, err)
			}
			return max(usage-inactive, 0), nil
		}
	}
	return usage, nil
}

var errNoBound = errors.New("cgroup: no bound")

func readNumber(root fs.FS, name string) (int64, error) {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, fmt.Errorf("cgroup: %w", err)
	}
	word := strings.TrimSpace(string(text))
	if word == "max" {
		return 0, errNoBound
	}
	number, err := strconv.ParseInt(word, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("cgroup: %s: %w", name, err)
	}
	return number, nil
}
