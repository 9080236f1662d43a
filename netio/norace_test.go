//go:build !race

package netio

const (
	churnCountDefault  = 20_000
	churnUnansweredMax = 0
)
