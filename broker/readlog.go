package broker

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/rueidis"
)

// ReadLog implements [Broker].
func (r *Redis) ReadLog(ctx context.Context, channel string, after Position, count int) (LogChunk, error) {
	count = min(max(count, 1), ReadLogMax)
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, publishTimeout)
		defer cancel()
	}
	chunk, err := r.readLog(ctx, channel, after, count)
	if err != nil {
		return LogChunk{}, fmt.Errorf("read the log %s: %w", channel, err)
	}
	return chunk, nil
}

// readLog asks the owner of the log, wherever it moves.
func (r *Redis) readLog(ctx context.Context, channel string, after Position, count int) (LogChunk, error) {
	name := r.prefix + channel
	slot := noSlot
	r.mutex.Lock()
	if r.cluster {
		slot = int(slotOf(name))
	}
	r.mutex.Unlock()
	var err error
	for range publishTries {
		session, fault := r.awaitPublisher(ctx, slot)
		if fault != nil {
			return LogChunk{}, fmt.Errorf("%w: %w", ErrUnavailable, fault)
		}
		var chunk LogChunk
		chunk, err = session.readLog(ctx, name, after, count)
		if err == nil {
			return chunk, nil
		}
		if errors.Is(err, errTorn) {
			continue
		}
		if class, _, isReply := diagnoseReply(err); !isReply || class != causeTopology || slot == noSlot {
			break
		}
		r.askTopology()
		if !pause(ctx, jitter(movedRetry), nil) {
			break
		}
	}
	return LogChunk{}, explainReply(err)
}

// readLog reads a log by the command connection. While the entry at after is still there nothing
// behind it was trimmed; only otherwise Redis is asked for more.
func (s *session) readLog(ctx context.Context, name string, after Position, count int) (LogChunk, error) {
	reply, err := s.client.Do(ctx, rangeCommand(s.client.B(), name, after, count)).ToMessage()
	if err != nil && !wrongType(err) {
		return LogChunk{}, err
	}
	if err == nil {
		entries, held, _, err := parseEntries(reply, after)
		if err != nil {
			return LogChunk{}, err
		}
		if held {
			return LogChunk{Entries: entries, End: len(entries) < count}, nil
		}
	}
	read, _, err := readCheck(s.client.DoMulti(ctx, checkCommands(s.client.B(), name, after, count)...), after, count)
	if err != nil {
		return LogChunk{}, err
	}
	read.added = addedUnknown
	if after == (Position{}) {
		read.added = 0
	}
	told := read.judge()
	return LogChunk{Entries: read.entries, End: !read.full, Hole: told.hole, Reason: told.reason}, nil
}

// rangeCommand reads the entry at from, and count entries behind it.
func rangeCommand(b rueidis.Builder, name string, from Position, count int) rueidis.Completed {
	return b.Xrange().Key(name).Start(from.String()).End("+").Count(int64(count) + 1).Build()
}

// checkCommandCount is how many commands checkCommands gives.
const checkCommandCount = 3

// errTorn says that a log changed while it was looked at.
var errTorn = errors.New("the log changes too fast to be looked at")

// checkCommands reads a log, and what XINFO says of it before and after: if that is the same, all is
// of one moment. A transaction would be so at once, but Redis takes none while it is out of memory,
// when logs must be read no less.
func checkCommands(b rueidis.Builder, name string, from Position, count int) []rueidis.Completed {
	return []rueidis.Completed{
		b.XinfoStream().Key(name).Build(), rangeCommand(b, name, from, count), b.XinfoStream().Key(name).Build(),
	}
}

// readCheck reads the answers to checkCommands, and how many bytes the entries have. With errTorn
// they are to be asked for again.
func readCheck(answers []rueidis.RedisResult, cursor Position, count int) (read logRead, size int, err error) {
	for _, answer := range answers {
		if err := answer.NonRedisError(); err != nil {
			return logRead{}, 0, err
		}
	}
	before, _ := answers[0].ToMessage() // parseInfo has what Redis refuses
	after, _ := answers[2].ToMessage()
	read.cursor, read.oddType = cursor, wrongType(before.Error())
	if read.info, err = parseInfo(before); err != nil {
		return logRead{}, 0, err
	}
	still, err := parseInfo(after)
	if err != nil {
		return logRead{}, 0, err
	}
	if still != read.info {
		return logRead{}, 0, errTorn
	}
	if !read.info.exists {
		return read, 0, nil
	}
	entries, err := answers[1].ToMessage()
	if err != nil {
		return logRead{}, 0, err
	}
	read.entries, read.held, size, err = parseEntries(entries, cursor)
	if read.full = len(read.entries) > count || read.held && len(read.entries) == count; read.full {
		read.entries = read.entries[:count]
	}
	return read, size, err
}
