package hub

import (
	"container/heap"
	"sync"
	"time"
)

// schedule calls functions when their time has come, one after the other, from one goroutine that
// begins with the first of them. It belongs to all goroutines.
type schedule struct {
	mutex   sync.Mutex
	tasks   tasks
	running bool
	closed  bool
	changed chan struct{} // of one: an earlier task came
	done    chan struct{}
	ended   sync.WaitGroup
}

type task struct {
	at  time.Time
	due func()
}

func newSchedule() *schedule {
	return &schedule{changed: make(chan struct{}, 1), done: make(chan struct{})}
}

// after has due called once wait has passed; never, if the schedule is closed before. due must not
// block.
func (s *schedule) after(wait time.Duration, due func()) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.closed {
		return
	}
	if !s.running {
		s.running = true
		s.ended.Add(1)
		go s.run()
	}
	at := time.Now().Add(wait)
	heap.Push(&s.tasks, task{at: at, due: due})
	if s.tasks[0].at.Equal(at) {
		select {
		case s.changed <- struct{}{}:
		default:
		}
	}
}

func (s *schedule) run() {
	defer s.ended.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(s.runDue())
		select {
		case <-timer.C:
		case <-s.changed:
		case <-s.done:
			return
		}
	}
}

// runDue calls what is due and says how long it is until the next.
func (s *schedule) runDue() time.Duration {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for len(s.tasks) > 0 && !s.closed {
		if wait := time.Until(s.tasks[0].at); wait > 0 {
			return wait
		}
		due := heap.Pop(&s.tasks).(task).due
		s.mutex.Unlock()
		due()
		s.mutex.Lock()
	}
	return time.Hour // until something comes
}

// close forgets all tasks and waits for the one that is being called.
func (s *schedule) close() {
	s.mutex.Lock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
	s.mutex.Unlock()
	s.ended.Wait()
}

// tasks is a heap, the earliest first.
type tasks []task

func (t tasks) Len() int           { return len(t) }
func (t tasks) Less(i, j int) bool { return t[i].at.Before(t[j].at) }
func (t tasks) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *tasks) Push(one any)      { *t = append(*t, one.(task)) }

func (t *tasks) Pop() any {
	last := len(*t) - 1
	one := (*t)[last]
	(*t)[last] = task{}
	*t = (*t)[:last]
	return one
}
