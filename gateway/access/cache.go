package access

import "time"

const (
	// answersMax bounds the cache; with the longest names an entry is about 700 bytes.
	answersMax = 10_000
	// evictionLooks is how many entries, at random, are looked at to make room for one.
	evictionLooks = 16
)

// answerCache keeps decisions until they run out. A full cache gives up, of a few entries picked
// at random, the one that would have run out first. It is not safe for concurrent use.
type answerCache struct {
	entries map[question]cachedAnswer
}

type cachedAnswer struct {
	decision Decision
	until    time.Time
}

func newAnswerCache() answerCache {
	return answerCache{entries: map[question]cachedAnswer{}}
}

func (c *answerCache) get(asked question, now time.Time) (Decision, bool) {
	answer, found := c.entries[asked]
	if !found {
		return Decision{}, false
	}
	if !now.Before(answer.until) {
		delete(c.entries, asked)
		return Decision{}, false
	}
	return answer.decision, true
}

func (c *answerCache) put(asked question, decision Decision, until, now time.Time) {
	if _, there := c.entries[asked]; !there && len(c.entries) >= answersMax {
		c.makeRoom(now)
	}
	c.entries[asked] = cachedAnswer{decision: decision, until: until}
}

// forget removes the answers to questions that are meant.
func (c *answerCache) forget(meant func(question) bool) {
	for asked := range c.entries {
		if meant(asked) {
			delete(c.entries, asked)
		}
	}
}

// makeRoom removes what has run out among the entries looked at, or else the one nearest to it.
func (c *answerCache) makeRoom(now time.Time) {
	var nearest question
	var nearestUntil time.Time
	looked, removed := 0, false
	for asked, answer := range c.entries {
		if !now.Before(answer.until) {
			delete(c.entries, asked)
			removed = true
		} else if looked == 0 || answer.until.Before(nearestUntil) {
			nearest, nearestUntil = asked, answer.until
		}
		if looked++; looked >= evictionLooks {
			break
		}
	}
	if !removed {
		delete(c.entries, nearest)
	}
}
