package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/rueidis"
)

const (
	// logReadMax is how many entries one read of a log asks for, logReadBytes how many bytes they
	// may be expected to have, going by those of the last read.
	logReadMax   = 128
	logReadBytes = 1 << 20
)

// keyRead is one read of one key: first what was asked, then what came of it.
type keyRead struct {
	index   uint32
	channel string
	kind    Kind
	form    keyForm
	cursor  Position
	added   uint64
	count   int                   // of entries asked for
	answers []rueidis.RedisResult // to the commands behind CLIENT CACHING YES

	received time.Time
	good     bool // the key was read and its changes are told from here on
	oddType  bool // it holds what its kind can't be read from
	tooLarge bool // it is over the bound
	more     bool // a log has more entries
	// What is to be handed over.
	give    bool // payload, of a State
	payload []byte
	updates []LogUpdate // of a Log
}

// add puts the read that a key needs into the batch.
func (b *readBatch) add(sub Subscription, key *trackedKey, index uint32) {
	read := keyRead{index: index, channel: sub.Channel, kind: sub.Kind, form: key.form}
	if sub.Kind == Log {
		read.count = logReadMax
		if key.size > 0 {
			read.count = min(max(logReadBytes/int(key.size), 1), logReadMax)
		}
		switch {
		case key.has(keyFresh):
			read.form = formStart
		case key.form == formRange && (key.has(keySwept|keyDoubt) || key.cursor == Position{}):
			read.form = formCheck // the others would come to it after XRANGE
		}
		read.cursor, read.added = key.cursor, key.sum
		b.bytes += read.count * int(key.size)
	} else {
		b.bytes += int(key.size)
	}
	if key.has(keyDirty) {
		key.flags &^= keyDirty | keySwept
	}
	b.reads = append(b.reads, read)
}

// fetch sends the reads and takes their answers. It reports false if the connection, or the
// session, is over.
func (t *tracker) fetch(batch *readBatch) bool {
	b := t.client.B()
	var commands []rueidis.Completed
	if batch.canary {
		commands = append(commands, t.cachingYes(), canaryCommand(b, *t.canary.name.Load()))
	}
	for index := range batch.reads {
		commands = append(commands, t.cachingYes())
		commands = append(commands, t.commands(b, &batch.reads[index])...)
	}
	ctx, cancel := context.WithTimeout(t.session.ctx, readTimeout)
	defer cancel()
	answers := t.client.DoMulti(ctx, commands...)
	received := time.Now()
	for _, answer := range answers {
		if t.failed("read keys", answer.NonRedisError()) {
			return false
		}
	}
	if batch.canary {
		t.readMark(answers[1])
		answers = answers[2:]
	}
	for index := range batch.reads {
		read := &batch.reads[index]
		length := read.form.commandCount()
		if err := answers[0].Error(); err != nil {
			t.session.fail(fmt.Errorf("client caching: %w", err))
			return false
		}
		read.answers, read.received = answers[1:1+length], received
		answers = answers[1+length:]
	}
	t.broker.keys.reads.Add(uint64(len(batch.reads)))
	return true
}

// cachingYes has Redis remember the key of the next command.
func (t *tracker) cachingYes() rueidis.Completed { return t.client.B().ClientCaching().Yes().Build() }

func (f keyForm) commandCount() int {
	if f == formCheck {
		return checkCommandCount
	}
	return 1
}

// commands is what reads a key in its form.
func (t *tracker) commands(b rueidis.Builder, read *keyRead) []rueidis.Completed {
	name := t.broker.prefix + read.channel
	var one rueidis.Completed
	switch read.form {
	case formString:
		one = b.Getrange().Key(name).Start(0).End(int64(t.broker.valueBytesMax)).Build()
	case formEmpty:
		one = b.Get().Key(name).Build()
	case formCount:
		one = b.Hlen().Key(name).Build()
	case formHash:
		one = b.Hgetall().Key(name).Build()
	case formStart:
		one = b.XinfoStream().Key(name).Build()
	case formRange:
		one = rangeCommand(b, name, read.cursor, read.count)
	case formCheck:
		return checkCommands(b, name, read.cursor, read.count)
	}
	return []rueidis.Completed{one}
}

// apply takes what was read into the key's record and decides what is handed over and what comes
// next.
func (t *tracker) apply(read *keyRead) {
	r := t.broker
	var refused []Subscription
	var refusal error
	r.mutex.Lock()
	e := r.table.at(read.index)
	key := r.table.key(e)
	if key.askedIn != t.session.number || e.node != t.session.node.number {
		r.mutex.Unlock()
		return // it was moved meanwhile, and is read where it belongs
	}
	key.askedIn = 0
	var again bool
	var err error
	switch {
	case !e.has(flagWanted):
		// It is read when somebody comes back for it, and forgotten otherwise.
		key.flags |= keyDirty
		r.settle(read.index)
		r.mutex.Unlock()
		return
	case read.kind == State:
		again, err = t.applyState(read, key)
	default:
		again, err = t.applyLog(read, key)
	}
	switch {
	case err != nil:
		key.flags &^= keySwept
		refused, refusal = t.refusedRead(read, e, err)
	case again && !key.has(keySwept):
		key.flags |= keyDirty
	case !again:
		read.good = true
		key.flags &^= keyFresh | keySwept
		if read.more {
			key.flags |= keyDirty // and not read a moment ago: the rest follows at once
		} else {
			key.readAt = r.nowFine()
		}
		t.session.hold(e)
	}
	if (again || read.more) && !e.has(flagQueued) {
		e.flags |= flagQueued
		t.session.node.reads.push(read.index, true)
	} else if key.has(keyDirty) && !e.has(flagDelayed) {
		r.enqueue(read.index, e)
	}
	r.mutex.Unlock()
	t.advise(read)
	t.tellRefused(refused, refusal)
}

// advise counts and logs what is odd about a key.
func (t *tracker) advise(read *keyRead) {
	if read.oddType {
		t.broker.keys.wrongTypes.Add(1)
		t.broker.advise("key type", "a key holds another type than its mode reads, and counts as absent",
			"write a state with SET or HSET and a log with XADD, or correct the mode of its namespace", "channel", read.channel)
	}
	if read.tooLarge {
		t.broker.keys.tooLarge.Add(1)
		t.broker.advise("value size", "the value of a state is too large, and counts as absent",
			"write less, or raise max-event-bytes", "channel", read.channel)
	}
}

// refusedRead decides what becomes of a key that Redis did not let us read. The caller holds mutex.
func (t *tracker) refusedRead(read *keyRead, e *entry, err error) (refused []Subscription, refusal error) {
	r := t.broker
	key := r.table.key(e)
	key.flags |= keyDirty
	if r.table.confirmedIn(e) == t.session.number {
		t.session.release(e)
	}
	class, advice, _ := diagnoseReply(err)
	if class == causeTopology || class == causeLoading || class == causeReplica {
		// Its entries are late until it is read elsewhere: the horizon waits for them.
		t.pend(read.index, e)
		r.delayMoved(read.index, e)
		r.askTopology()
		return nil, nil
	}
	key.since = 0
	t.session.delayRefused(read.index, e)
	if !e.has(flagRefused) {
		e.flags |= flagRefused
		refused = []Subscription{r.table.subscription(e)}
	}
	return refused, fmt.Errorf("subscribe: %w: %s; %s", ErrRefused, plainWords(err), advice)
}

// tellRefused reports the refusal and tells it to those who did not hear it yet.
func (t *tracker) tellRefused(refused []Subscription, err error) {
	if err == nil {
		return
	}
	r := t.broker
	r.report(t.session.node.target(), err)
	if len(refused) == 0 {
		return
	}
	r.calls.Lock()
	defer r.calls.Unlock()
	t.session.tellRefused(refused, err)
}

// refuse answers a batch that can't be read since Redis refuses to track.
func (t *tracker) refuse(batch *readBatch, err error) {
	r := t.broker
	var refused []Subscription
	r.mutex.Lock()
	for index := range batch.reads {
		e := r.table.at(batch.reads[index].index)
		key := r.table.key(e)
		if key.askedIn != t.session.number {
			continue
		}
		key.askedIn = 0
		told, _ := t.refusedRead(&batch.reads[index], e, err)
		refused = append(refused, told...)
		r.settle(batch.reads[index].index)
	}
	r.mutex.Unlock()
	t.tellRefused(refused, fmt.Errorf("subscribe: %w: %w", ErrRefused, err))
}
