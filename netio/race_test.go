//go:build race

package netio

// The race detector makes everything some ten times slower.
const churnCountDefault = 4_000
