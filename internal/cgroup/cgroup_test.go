package cgroup

import (
	"testing"
	"testing/fstest"
)

func TestOwn(t *testing.T) {
	const none = "9223372036854771712\n"
	for _, c := range []struct {
		name        string
		files       map[string]string
		limit, used int64 // limit 0: no group with a bound
	}{
		{"no control groups", nil, 0, 0},
		{"version 2 in a container", map[string]string{
			"proc/self/cgroup":         "0::/\n",
			"sys/fs/cgroup/memory.max": "1000\n", "sys/fs/cgroup/memory.current": "700\n",
			"sys/fs/cgroup/memory.stat": "anon 600\ninactive_file 50\nactive_file 50\n",
		}, 1000, 650},
		{"version 2, a service without a bound", map[string]string{
			"proc/self/cgroup":                                       "0::/system.slice/millrace.service\n",
			"sys/fs/cgroup/system.slice/memory.max":                  "max\n",
			"sys/fs/cgroup/system.slice/millrace.service/memory.max": "max\n",
		}, 0, 0},
		{"version 2, the slice is narrower than the service", map[string]string{
			"proc/self/cgroup":                                       "0::/system.slice/millrace.service\n",
			"sys/fs/cgroup/system.slice/memory.max":                  "500\n",
			"sys/fs/cgroup/system.slice/memory.current":              "400\n",
			"sys/fs/cgroup/system.slice/memory.stat":                 "inactive_file 1\n",
			"sys/fs/cgroup/system.slice/millrace.service/memory.max": "1000\n",
		}, 500, 399},
		{"version 1", map[string]string{
			"proc/self/cgroup":                               "5:cpu:/a\n4:memory:/a/b\n0::/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":     none,
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes":   none,
			"sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": "2000\n", "sys/fs/cgroup/memory/a/b/memory.usage_in_bytes": "1500\n",
			"sys/fs/cgroup/memory/a/b/memory.stat": "inactive_file 1\ntotal_inactive_file 500\n",
		}, 2000, 1000},
		{"version 1, the path is the host's", map[string]string{
			"proc/self/cgroup":                           "4:memory:/docker/0123\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "2000\n", "sys/fs/cgroup/memory/memory.usage_in_bytes": "1500\n",
			"sys/fs/cgroup/memory/memory.stat": "cache 3\n",
		}, 2000, 1500},
		{"no bound anywhere", map[string]string{
			"proc/self/cgroup": "4:memory:/\n0::/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": none,
		}, 0, 0},
		{"files that are not what they were", map[string]string{
			"proc/self/cgroup": "what\n4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "much\n",
		}, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := make(fstest.MapFS)
			for name, text := range c.files {
				root[name] = &fstest.MapFile{Data: []byte(text)}
			}
			m := own(root)
			if (m != nil) != (c.limit > 0) {
				t.Fatalf("found %+v", m)
			}
			if m == nil {
				return
			}
			used, err := m.Used()
			if err != nil || m.Limit() != c.limit || used != c.used {
				t.Errorf("limit %d, used %d, %v, want %d and %d", m.Limit(), used, err, c.limit, c.used)
			}
		})
	}
}

func TestUsedFails(t *testing.T) {
	root := fstest.MapFS{"f/memory.current": &fstest.MapFile{Data: []byte("5\n")}}
	m := &Memory{root: root, folder: "f", names: version2, limit: 10}
	if _, err := m.Used(); err == nil {
		t.Error("there is no memory.stat, and no error")
	}
	root["f/memory.stat"] = &fstest.MapFile{Data: []byte("inactive_file some\n")}
	if _, err := m.Used(); err == nil {
		t.Error("memory.stat holds a word, and no error says so")
	}
}

// TestThisMachine asks the real files, whatever they say.
func TestThisMachine(t *testing.T) {
	m := Own()
	if m == nil {
		t.Skip("no control group bounds the memory of this process")
	}
	if used, err := m.Used(); err != nil || used <= 0 || m.Limit() <= 0 {
		t.Errorf("%d of %d bytes are used, %v", used, m.Limit(), err)
	}
}
