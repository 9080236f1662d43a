package council

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// run is one council under way.
type run struct {
	councils *Councils
	log      string
	user     string
	begun    time.Time

	asking    context.Context // ends, with the reason as its cause, when the requests are to end
	cancel    context.CancelCauseFunc
	free      func()          // lets go of the timers of asking
	appending context.Context // ends when there is no use in appending any more
	quit      context.CancelFunc
	wake      chan struct{} // there is something to append; buffered by one
	ended     chan struct{} // closed when it is over

	models  sync.WaitGroup // those that are being asked
	mutex   sync.Mutex
	watched time.Time // when somebody was last known to watch
	seats   []*seat
}

// seat is one model in one council.
type seat struct {
	judge   *judge
	speech  speech   // under run.mutex
	verdict *verdict // under run.mutex; set once, at its end
	told    bool     // the recorder has taken the verdict
}

func newRun(c *Councils, log, user string, now time.Time) *run {
	r := &run{councils: c, log: log, user: user, begun: now, watched: now, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	limited, free := context.WithDeadlineCause(context.Background(), now.Add(c.settings.Deadline), errDeadline)
	r.asking, r.cancel = context.WithCancelCause(limited)
	r.free = free
	r.appending, r.quit = context.WithDeadline(context.Background(), now.Add(c.settings.Deadline+appendPatience))
	return r
}

// begin asks every model.
func (r *run) begin(prompt string) {
	for index := range r.councils.judges {
		r.seats = append(r.seats, &seat{judge: &r.councils.judges[index]})
	}
	for _, s := range r.seats {
		r.models.Go(func() { r.ask(s, prompt) })
	}
	go r.record()
}

// seen notes that the council is watched.
func (r *run) seen(now time.Time) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.watched = now
}

// abandon ends a council because its gateway ends; nothing is appended after ctx.
func (r *run) abandon(ctx context.Context) {
	r.cancel(errClosing)
	context.AfterFunc(ctx, r.quit)
}

func (r *run) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// ask asks one model and notes how it ended.
func (r *run) ask(s *seat, prompt string) {
	begun := time.Now()
	err := r.askSafely(s, prompt)
	v := verdict{took: time.Since(begun)}
	kind, cause := Scored, error(nil)
	r.mutex.Lock()
	found, ok := s.speech.end()
	var failed *failure
	switch {
	case errors.As(err, &failed):
		kind, v.fault, cause = failed.kind, failed.message, failed.cause
	case !ok:
		kind, v.fault = NoScore, "gave no score"
	default:
		v.score, v.reason = found.score, found.reason
	}
	s.verdict = &v
	r.mutex.Unlock()
	r.councils.ended(s.judge.Name, kind, cause)
	r.signal()
}

// askSafely asks and gives nil or a [*failure]. A panic is one model's failure, and not the
// gateway's end.
func (r *run) askSafely(s *seat, prompt string) (err error) {
	defer func() {
		if value := recover(); value != nil {
			r.councils.logger.Error("a model's answer made the gateway panic", "model", s.judge.Name, "panic", fmt.Sprintf("%T", value), "stack", string(debug.Stack()))
			err = &failure{kind: Failed, message: errPanicked.Error(), cause: errPanicked}
		}
	}()
	ctx, timeout := r.asking, s.judge.settings.Timeout
	if timeout > 0 {
		var free context.CancelFunc
		ctx, free = context.WithTimeoutCause(ctx, timeout, errTimeout)
		defer free()
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	tooLong := fail(TooLong, "said more than %d bytes", textBytesMax)
	said := func(text string) {
		if text == "" {
			return
		}
		if !r.hear(s, text) {
			stop(tooLong)
		}
		r.signal()
	}
	err = s.judge.asker.ask(ctx, prompt, said)
	switch {
	case errors.Is(context.Cause(ctx), tooLong):
		return tooLong
	case err != nil:
		return failureOf(ctx, err, timeout)
	}
	return nil
}

// hear takes what a model says; false if it is too much.
func (r *run) hear(s *seat, text string) (taken bool) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return s.speech.add(text)
}

// record appends what the models say until all have ended and the log is complete. It is the only
// one who appends.
func (r *run) record() {
	defer r.councils.leave(r)
	w := writer{run: r, appended: 1}
	turn := time.NewTimer(0)
	defer turn.Stop()
	for !w.complete {
		select {
		case <-turn.C:
		case <-r.appending.Done():
			return // what is left unsaid, others find by Story.Lost
		}
		r.stopIfUnwatched(time.Now())
		w.gather()
		if err := w.write(); err != nil {
			turn.Reset(w.retryWait())
			continue
		}
		if !w.complete && !w.more {
			r.sleep()
		}
		// What comes after a silence goes out at once, what follows on it a turn later.
		turn.Reset(max(r.councils.timings.Turn-time.Since(w.wrote), 0))
	}
}

// sleep waits until there may be something to do.
func (r *run) sleep() {
	look := time.NewTimer(r.councils.timings.Unwatched / 15)
	defer look.Stop()
	select {
	case <-r.wake:
	case <-look.C:
	case <-r.appending.Done():
	}
}

// stopIfUnwatched ends the requests of a council that nobody has watched for long enough.
func (r *run) stopIfUnwatched(now time.Time) {
	watched := r.councils.callbacks.Watched(r.log)
	r.mutex.Lock()
	if watched {
		r.watched = now
	}
	alone := now.Sub(r.watched)
	r.mutex.Unlock()
	if alone >= r.councils.timings.Unwatched {
		r.cancel(errUnwatched)
	}
}

// writer is the recorder's: what it has gathered and not appended yet.
type writer struct {
	run      *run
	unsent   [][]byte
	appended int       // entries that the log has for certain
	wrote    time.Time // when something was last appended
	doubtful bool      // the last append failed: some of unsent may be in the log all the same
	failures int       // in a row
	more     bool      // there was more than one turn takes
	last     bool      // unsent ends with the log's last entry
	complete bool      // the log is
}

// gather takes what the models have to tell, unless something waits already.
func (w *writer) gather() {
	if len(w.unsent) > 0 {
		return
	}
	r := w.run
	r.mutex.Lock()
	defer r.mutex.Unlock()
	w.more = false
	open := 0
	verdicts := make(map[string]verdict, len(r.seats))
	for _, s := range r.seats {
		name := s.judge.Name
		if text := s.speech.take(chunkBytesMax); text != "" {
			w.unsent = append(w.unsent, encode(entry{Model: name, Chunk: text}))
		}
		left := len(s.speech.ready) > 0
		w.more = w.more || left
		if s.verdict == nil || left {
			open++
			continue
		}
		verdicts[name] = *s.verdict
		if !s.told {
			s.told = true
			w.unsent = append(w.unsent, s.verdict.encode(name))
		}
	}
	if open == 0 {
		w.unsent = append(w.unsent, conclude(verdicts, errors.Is(context.Cause(r.asking), errCancelled)))
		w.last = true
	}
}

// write appends what was gathered. After a failure it first looks how much of it is there.
func (w *writer) write() error {
	if len(w.unsent) == 0 {
		return nil
	}
	r := w.run
	if w.doubtful {
		story, err := r.councils.callbacks.Read(r.appending, r.log)
		if err != nil {
			w.failures++
			return err
		}
		arrived := min(max(story.Entries-w.appended, 0), len(w.unsent))
		w.unsent, w.appended = w.unsent[arrived:], w.appended+arrived
		w.doubtful = false
	}
	if len(w.unsent) > 0 {
		keep := time.Duration(0)
		if w.last {
			keep = Kept
		}
		if err := r.councils.callbacks.Append(r.appending, r.log, w.unsent, keep); err != nil {
			w.failures++
			w.doubtful = true
			return err
		}
	}
	w.appended += len(w.unsent)
	w.wrote = time.Now()
	w.unsent, w.failures, w.complete = nil, 0, w.last
	return nil
}

// retryWait is the wait after a failed append: doubled each time, at most two seconds.
func (w *writer) retryWait() time.Duration {
	return min(100*time.Millisecond<<min(w.failures, 10), 2*time.Second)
}
