//go:build race

package auth

// raceEnabled says that pools drop some of what they keep, so that allocations are not what they are.
const raceEnabled = true
