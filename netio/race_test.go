//go:build race

package netio

const (
	// The race detector makes everything some ten times slower.
	churnCountDefault = 4_000
	// churnUnansweredMax is how many clients of TestChurn may find their connection closed without a
	// byte. With the race detector, and only then, netpoll knows the connection of an event by its
	// descriptor's number (poll_default_linux_race.go): an event that was fetched before its
	// connection ended closes the one that got the number in the same turn. One in 250,000 does.
	churnUnansweredMax = 2
)
