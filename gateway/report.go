package gateway

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// limitedLog lets one line a message and minute through, so that a publisher of rubbish cannot
// flood the log; the next line says how many were held back.
type limitedLog struct {
	mutex sync.Mutex
	held  map[string]*heldBack
}

type heldBack struct {
	until time.Time
	count int
}

const reportEvery = time.Minute

func (l *limitedLog) warn(logger *slog.Logger, message string, arguments ...any) {
	l.mutex.Lock()
	if l.held == nil {
		l.held = make(map[string]*heldBack)
	}
	held := l.held[message]
	if held == nil {
		held = &heldBack{}
		l.held[message] = held
	}
	now := time.Now()
	if now.Before(held.until) {
		held.count++
		l.mutex.Unlock()
		return
	}
	count := held.count
	held.until, held.count = now.Add(reportEvery), 0
	l.mutex.Unlock()
	if count > 0 {
		arguments = append(arguments, "heldBack", count)
	}
	logger.Warn(message, arguments...)
}

// loopLogMax is how many lines may wait to be written for the loops.
const loopLogMax = 1024

// loopLog takes log lines from loops, which must not wait for a disk or a terminal, and writes
// them from a goroutine of its own. Lines that find it full are dropped and counted.
type loopLog struct {
	logger  *slog.Logger
	lines   chan loopLine
	dropped atomic.Uint64
	ended   chan struct{}
}

type loopLine struct {
	level     slog.Level
	message   string
	arguments []any
}

func newLoopLog(logger *slog.Logger) *loopLog {
	l := &loopLog{logger: logger, lines: make(chan loopLine, loopLogMax), ended: make(chan struct{})}
	go func() {
		defer close(l.ended)
		for line := range l.lines {
			logger.Log(context.Background(), line.level, line.message, line.arguments...)
		}
	}()
	return l
}

func (l *loopLog) write(level slog.Level, message string, arguments ...any) {
	select {
	case l.lines <- loopLine{level, message, arguments}:
	default:
		l.dropped.Add(1)
	}
}

// close writes what waits. No loop may be running any more.
func (l *loopLog) close() {
	close(l.lines)
	<-l.ended
}
