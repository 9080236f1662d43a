package auth

import (
	"fmt"
	"slices"
	"strings"

	"github.com/millrace/millrace/proto"
)

// PatternsMax is the number of patterns that one claim may hold.
const PatternsMax = 1000

const wildcardSuffix = ":*"

// Patterns is the list of channels that a claim grants: exact names of channels, TYPE:* for every
// channel of a type and for the wildcard subscription TYPE:* itself, or * for everything. The
// zero value grants nothing. It is immutable and safe for concurrent use.
type Patterns struct {
	// sorted holds names and TYPE:* patterns together, without duplicates.
	sorted     []string
	everything bool
}

// ParsePatterns makes Patterns of at most [PatternsMax] patterns; the error names the first that
// is none by its place and never by its text. The list is copied.
func ParsePatterns(list []string) (Patterns, error) {
	if len(list) > PatternsMax {
		return Patterns{}, fmt.Errorf("%d patterns: the most that one claim may hold is %d; grant a whole type by TYPE:*", len(list), PatternsMax)
	}
	var patterns Patterns
	for place, pattern := range list {
		switch {
		case pattern == "*":
			patterns.everything = true
		case validPattern(pattern):
			patterns.sorted = append(patterns.sorted, pattern)
		default:
			return Patterns{}, fmt.Errorf("pattern %d is none: write a channel's exact name (TYPE:ID or TYPE:ID:USER), TYPE:* or *", place+1)
		}
	}
	if patterns.everything {
		patterns.sorted = nil
		return patterns, nil
	}
	slices.Sort(patterns.sorted)
	patterns.sorted = slices.Clip(slices.Compact(patterns.sorted))
	return patterns, nil
}

// Match reports whether the channel called name, whose type is typ, is granted. For the wildcard
// subscription the name is TYPE:*. The comparison is byte for byte. It allocates nothing and may
// be called on a loop: at most 2 x log2([PatternsMax]) comparisons.
func (p Patterns) Match(name, typ string) bool {
	if p.everything {
		return true
	}
	if len(p.sorted) == 0 {
		return false
	}
	if _, found := slices.BinarySearch(p.sorted, name); found {
		return true
	}
	_, found := slices.BinarySearchFunc(p.sorted, typ, compareWildcard)
	return found
}

// Empty reports whether nothing is granted.
func (p Patterns) Empty() bool { return !p.everything && len(p.sorted) == 0 }

// List gives the patterns, sorted, in a slice that is the caller's.
func (p Patterns) List() []string {
	if p.everything {
		return []string{"*"}
	}
	return slices.Clone(p.sorted)
}

// compareWildcard orders pattern against typ + ":*" without building that string.
func compareWildcard(pattern, typ string) int {
	if len(pattern) < len(typ) {
		if order := strings.Compare(pattern, typ[:len(pattern)]); order != 0 {
			return order
		}
		return -1
	}
	if order := strings.Compare(pattern[:len(typ)], typ); order != 0 {
		return order
	}
	return strings.Compare(pattern[len(typ):], wildcardSuffix)
}

// validPattern reports whether pattern is TYPE:* or the exact name of a channel.
func validPattern(pattern string) bool {
	_, err := proto.ParseChannel(pattern)
	return err == nil
}
