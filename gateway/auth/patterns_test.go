package auth

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestPatternsMatch: nothing matches by accident.
func TestPatternsMatch(t *testing.T) {
	for name, test := range map[string]struct {
		patterns []string
		channel  string
		want     bool
	}{
		"nothing granted":                  {nil, "user:1", false},
		"exact":                            {[]string{"user:1"}, "user:1", true},
		"exact with three parts":           {[]string{"job:1:ada"}, "job:1:ada", true},
		"a longer id":                      {[]string{"user:1"}, "user:10", false},
		"a shorter id":                     {[]string{"user:10"}, "user:1", false},
		"another case":                     {[]string{"user:a"}, "user:A", false},
		"type in another case":             {[]string{"user:*"}, "User:a", false},
		"a dot behind":                     {[]string{"user:1"}, "user:1.", false},
		"two parts do not grant three":     {[]string{"job:1"}, "job:1:ada", false},
		"type":                             {[]string{"user:*"}, "user:1", true},
		"type with three parts":            {[]string{"job:*"}, "job:1:ada", true},
		"a longer type":                    {[]string{"user:*"}, "users:1", false},
		"a shorter type":                   {[]string{"users:*"}, "user:1", false},
		"type with a byte below the colon": {[]string{"user:*"}, "user.x:1", false},
		"the wildcard itself":              {[]string{"user:*"}, "user:*", true},
		"exact does not grant wildcard":    {[]string{"user:1"}, "user:*", false},
		"everything":                       {[]string{"*"}, "user:1", true},
		"everything, the wildcard":         {[]string{"a:b", "*"}, "user:*", true},
		"second of several":                {[]string{"a:b", "user:*", "z:z"}, "user:9", true},
		"between others of the type":       {[]string{"user:+", "user:*", "user:a"}, "user:9", true},
		"others of the type only":          {[]string{"user:+", "user:a"}, "user:9", false},
	} {
		t.Run(name, func(t *testing.T) {
			patterns, err := ParsePatterns(test.patterns)
			if err != nil {
				t.Fatal(err)
			}
			typ, _, _ := strings.Cut(test.channel, ":")
			if got := patterns.Match(test.channel, typ); got != test.want {
				t.Fatalf("%q grants %q: %v, want %v", test.patterns, test.channel, got, test.want)
			}
			if patterns.Empty() != (len(test.patterns) == 0) {
				t.Fatalf("Empty is %v", patterns.Empty())
			}
		})
	}
}

func TestParsePatternsRefuses(t *testing.T) {
	long := strings.Repeat("a", 129)
	for _, pattern := range []string{
		"", ":", "user", "user:", ":1", "user:1*", "user:*1", "user:**", "use*:1", "*:1", "*:*", "**", "user:1:*",
		"user:*:1", "a:b:c:d", "user:1 ", " user:1", "user:1\n", "user:\x00", "user:ü", "user:%2F", "user:a/b", "user:[a]", "user:?",
		"__gate:1", "__gate:*", long + ":1", "a:" + long, strings.Repeat("a", 128) + ":" + strings.Repeat("b", 127), "\xff:1",
	} {
		patterns, err := ParsePatterns([]string{"ok:1", pattern})
		if err == nil {
			t.Errorf("%q is taken for a pattern: %q", pattern, patterns.List())
		} else if !strings.HasPrefix(err.Error(), "pattern 2 is none") {
			t.Errorf("%q: %v", pattern, err)
		}
	}
	if _, err := ParsePatterns(slices.Repeat([]string{"a:b"}, PatternsMax+1)); err == nil {
		t.Error("1,001 patterns are taken")
	}
	if _, err := ParsePatterns([]string{strings.Repeat("a", 127) + ":" + strings.Repeat("b", 127), strings.Repeat("a", 128) + ":*", "a:" + strings.Repeat("b", 128)}); err != nil {
		t.Errorf("patterns as long as allowed: %v", err)
	}
}

func TestPatternsMatchAllocatesNothing(t *testing.T) {
	list := make([]string, PatternsMax)
	for number := range list {
		list[number] = fmt.Sprintf("type%d:*", number)
	}
	patterns := must(ParsePatterns(list))
	granted := 0
	allocations := testing.AllocsPerRun(1000, func() {
		if patterns.Match("type500:1", "type500") && !patterns.Match("type:1", "type") && !patterns.Match("x:1:2", "x") {
			granted++
		}
	})
	if allocations != 0 || granted == 0 {
		t.Fatalf("%v allocations, %d granted", allocations, granted)
	}
}

// FuzzPatterns holds Match to the plainest way of saying the same.
func FuzzPatterns(f *testing.F) {
	f.Add("user:1 user:* *", "user:1")
	f.Add("a:b a:b:c", "a:b:c")
	f.Add("user:1* x", "user:10")
	f.Add("user.x:* user:+", "user:*")
	f.Fuzz(func(t *testing.T, joined, channel string) {
		list := strings.Fields(joined)
		patterns, err := ParsePatterns(list)
		if err != nil {
			return
		}
		typ, _, _ := strings.Cut(channel, ":")
		want := slices.Contains(list, "*") || slices.Contains(list, channel) || slices.Contains(list, typ+":*")
		if got := patterns.Match(channel, typ); got != want {
			t.Fatalf("%q grants %q: %v, want %v", list, channel, got, want)
		}
		if _, err := ParsePatterns(patterns.List()); err != nil {
			t.Fatalf("the list of %q is refused: %v", list, err)
		}
	})
}

func BenchmarkPatternsMatch(b *testing.B) {
	for _, size := range []int{1, 10, 1000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			list := make([]string, size)
			for number := range list {
				list[number] = fmt.Sprintf("job_progress:job_%d", number)
			}
			patterns := must(ParsePatterns(list))
			b.ReportAllocs()
			for b.Loop() {
				patterns.Match("job_progress:job_0", "job_progress")
			}
		})
	}
}
