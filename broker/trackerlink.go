package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/rueidis"
)

const (
	// linkEndTimeout bounds the wait for the end of a connection that has failed.
	linkEndTimeout = 2 * time.Second
	// linksUnprovedMax is how many connections in a row may end before their canary came back. With
	// more of them logs and states stand still, which is then said.
	linksUnprovedMax = 3
)

var (
	// errOtherData is of a server that came back, but may not hold what it had answered for.
	errOtherData = errors.New("the server does not prove that it holds what it held")
	errLinkHangs = errors.New("the tracking connection failed and did not end")
)

// run reads what has changed until the session ends. A connection that ends alone is replaced: all
// that it told changes of is read again, and nothing is missed, where a new session would be a gap
// on every channel of events. That Redis is away, or another than before, ends the session.
func (t *tracker) run() {
	defer close(t.over)
	var again backoff
	unproved := 0
	for {
		began := time.Now()
		err := t.read()
		t.down.Store(true)
		t.closeLink()
		if t.session.ctx.Err() != nil {
			return
		}
		if time.Since(began) >= backoffForget {
			again.reset()
		}
		t.adviseEnded(err)
		t.forget()
		unproved++
		if !t.doubted.Swap(true) {
			unproved = 0
		}
		if unproved == linksUnprovedMax {
			t.tellStandstill(err)
		}
		for {
			if !pause(t.session.ctx, again.step(), nil) {
				return
			}
			failure := t.reopen(err)
			if failure == nil {
				break
			}
			t.tellStandstill(failure)
		}
	}
}

// open makes the connection that reads keys and reads the canary, so that the first one that is
// written proves it.
func (t *tracker) open() error {
	t.client, _ = t.session.client.Dedicate()
	t.ended = t.client.SetOnInvalidations(t.invalidated)
	select {
	case err := <-t.ended:
		return t.hasEnded(err)
	default:
	}
	if err := t.enable(); err != nil {
		return err
	}
	return t.readCanary()
}

// reopen makes another connection after one ended for a reason. The session ends for that reason
// where its server may have lost data meanwhile: the next one finds out which.
func (t *tracker) reopen(reason error) error {
	err := t.open()
	if err == nil {
		var identity string
		identity, err = t.session.askIdentity(t.client)
		if err == nil && (identity == "" || identity != t.session.identity) {
			err = errOtherData
			t.session.fail(reason)
		}
	}
	if err != nil {
		_ = t.awaitEnd()
		t.closeLink()
		return err
	}
	t.again = true
	if t.canary != nil {
		t.canary.returned.Store(max(int64(time.Since(t.session.opened)), 1)) // silence counts from now
	}
	t.down.Store(false)
	return nil
}

// enable asks Redis to track what is read here. That it refuses is no error of the session, which
// has other subscriptions.
func (t *tracker) enable() error {
	ctx, cancel := context.WithTimeout(t.session.ctx, canaryEnterTimeout)
	defer cancel()
	err := t.client.Do(ctx, t.client.B().ClientTracking().On().Optin().Build()).Error()
	if _, isReply := redisReply(err); !isReply && err != nil {
		return err
	}
	if err != nil {
		if class, _ := diagnose(err); class != causePermission {
			err = fmt.Errorf("%w: %w", errTracking, err)
		}
		if t.canary != nil {
			t.canary.refused.Store(true)
		}
	}
	t.broker.mutex.Lock()
	t.canaryDirty = t.canaryDirty || t.refused != nil && err == nil
	t.refused = err
	t.broker.mutex.Unlock()
	return nil
}

// failed reports whether err says that the connection is no good any more. An error reply of Redis
// leaves it as it is; a server that does not answer ends the whole session.
func (t *tracker) failed(doing string, err error) bool {
	if _, isReply := redisReply(err); isReply || err == nil {
		return false
	}
	if errors.Is(err, context.DeadlineExceeded) {
		t.session.failReply(doing, err)
	}
	return true
}

// hasEnded notes the end of the connection and says why.
func (t *tracker) hasEnded(err error) error {
	t.ended = nil
	if err == nil {
		err = rueidis.ErrClosing
	}
	return fmt.Errorf("the tracking connection ended: %w", err)
}

// awaitEnd waits until a connection that failed has ended, and returns why. One that lives on can
// only be cut with the session.
func (t *tracker) awaitEnd() error {
	if t.ended == nil {
		return nil
	}
	timer := time.NewTimer(linkEndTimeout)
	defer timer.Stop()
	select {
	case err := <-t.ended:
		return t.hasEnded(err)
	case <-timer.C:
		t.session.fail(errLinkHangs)
	case <-t.session.ctx.Done():
	}
	return context.Cause(t.session.ctx)
}

// closeLink waits until the connection is gone. It, or the session, has failed before; the order
// matters, as in [session.finish].
func (t *tracker) closeLink() {
	if t.ended != nil {
		<-t.ended
		t.ended = nil
	}
	if t.client != nil {
		t.client.Close()
		t.client = nil
	}
}

// finish waits until nothing of the tracker is left. The session has failed before.
func (t *tracker) finish() {
	if t.over == nil {
		t.closeLink()
		return
	}
	<-t.over
}

// adviseEnded logs that the connection ended alone.
func (t *tracker) adviseEnded(err error) {
	address := t.session.node.target()
	_, advice := diagnose(err)
	t.broker.advise("tracking connection "+address, "the connection by which redis tells what changed has ended; logs and states are read again",
		advice, "node", address, "error", plainWords(err))
}

// tellStandstill tells that there is no connection that would tell changes of keys, however well
// events go. It is over once the canary of a connection comes back.
func (t *tracker) tellStandstill(err error) {
	s := t.session
	if s.ctx.Err() != nil {
		return
	}
	err = fmt.Errorf("logs and states stand still: %w", err)
	t.broker.report(s.node.target(), err)
	if s.delivered.Swap(false) {
		s.node.setFault(err)
	}
}

// forget has all that was read by a connection that has ended read again by the next one.
func (t *tracker) forget() {
	r := t.broker
	r.mutex.Lock()
	t.flushed, t.canaryDirty, t.marks = false, false, nil
	r.mutex.Unlock()
	t.marked = 0
	t.forEach(func(index uint32, e *entry) {
		key := r.table.key(e)
		switch {
		case r.table.confirmedIn(e) == t.session.number:
			t.session.release(e)
		case key.askedIn != t.session.number:
			return
		}
		key.forsake()
		if e.has(flagWanted) {
			r.enqueue(index, e)
		} else {
			r.settle(index)
		}
	})
}
