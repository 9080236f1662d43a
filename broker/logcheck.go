package broker

import (
	"math"

	"github.com/millrace/millrace/proto"
)

// logInfo is what XINFO STREAM says of a log.
type logInfo struct {
	exists  bool
	length  uint64
	first   Position // of the oldest entry, where length is not 0
	last    Position // last-generated-id: where the newest entry is, or was
	deleted Position // max-deleted-entry-id: the newest one that XDEL removed
	added   uint64   // entries ever added, or addedUnknown
}

// logRead is one look at a log from a cursor on, and what was known there.
type logRead struct {
	cursor Position
	added  uint64 // entries ever added up to the cursor, or addedUnknown
	info   logInfo
	// entries come after the cursor. held says that the cursor's own entry stood before them,
	// full that more may follow.
	entries    []Entry
	held, full bool
	oddType    bool // the key holds something else, and counts as absent
}

// verdict is what a look at a log showed.
type verdict struct {
	hole   bool
	reason proto.GapReason
	from   Position // where the log goes on
	added  uint64   // up to the end of the entries, or addedUnknown
}

// judge finds out whether all that was appended after the cursor is still there. All parts of the
// read are of one moment.
//
// Redis counts every entry that was ever added. What was added after the cursor and is not there
// was removed unseen, by whatever means. Where the count is not known at the cursor, as in the
// middle of a long catch-up, the marks decide that trimming (the first entry) and XDEL leave, and
// then a hole too many is possible.
//
// What leaves no trace in Redis is not found: a log that was deleted and begun anew between two
// looks, if of the old one nothing had been seen, or if of the new one exactly as many entries
// were trimmed as the old one ever had.
func (l *logRead) judge() verdict {
	zero := Position{}
	switch {
	case !l.info.exists && l.cursor == zero:
		return verdict{}
	case !l.info.exists:
		return verdict{hole: true, reason: proto.GapTrimmed}
	case l.info.last.Before(l.cursor) && l.timeOnly():
		return verdict{from: l.cursor, added: l.info.added}
	case l.info.last.Before(l.cursor):
		// The log lost its end, as after a failover. Going on from its last position, nothing is
		// handed over twice.
		return verdict{hole: true, reason: proto.GapRewound, from: l.info.last, added: l.info.added}
	}
	given := verdict{from: l.cursor, added: l.addedAfter()}
	given.hole, given.reason = l.missing()
	if given.hole {
		given.from = l.info.last
		if len(l.entries) > 0 {
			given.from = l.entries[0].Position.previous()
		}
		if given.from.Before(l.cursor) {
			given.from = l.cursor
		}
	}
	return given
}

// timeOnly reports whether the cursor stands for the end of a millisecond, not for an entry.
func (l *logRead) timeOnly() bool { return l.cursor.Sequence == math.MaxUint64 }

// beyond reports whether the oldest entry that is left comes after the cursor.
func (l *logRead) beyond() bool { return l.info.length == 0 || l.cursor.Before(l.info.first) }

// missing reports whether entries that were added after the cursor, or by the count before it
// after the last look, are gone.
func (l *logRead) missing() (bool, proto.GapReason) {
	present, known := uint64(len(l.entries)), !l.full
	if l.beyond() {
		present, known = l.info.length, true
	}
	if known && l.added != addedUnknown && l.info.added != addedUnknown {
		switch added := l.info.added - l.added; {
		case l.info.added < l.added, added < present:
			return true, proto.GapRewound // the count began anew: another log of the same name
		case added > present:
			return true, proto.GapTrimmed
		default:
			// One was deleted behind the cursor, though by the count none is gone: another log.
			return l.cursor.Before(l.info.deleted), proto.GapRewound
		}
	}
	switch {
	case l.info.last == l.cursor:
		return false, proto.GapTrimmed // nothing was added
	case l.beyond(), l.cursor.Before(l.info.deleted):
		return true, proto.GapTrimmed
	case !l.held && !l.timeOnly() && l.info.deleted.Before(l.cursor):
		return true, proto.GapRewound // the cursor was never in this log
	}
	return false, proto.GapTrimmed
}

// addedAfter is how many entries were ever added up to the last of the read's entries.
func (l *logRead) addedAfter() uint64 {
	switch {
	case !l.full || l.info.added == addedUnknown:
		return l.info.added
	case l.beyond():
		return l.info.added - l.info.length + uint64(len(l.entries))
	case l.added == addedUnknown:
		return addedUnknown
	}
	return l.added + uint64(len(l.entries))
}
