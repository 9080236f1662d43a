package gateway

import (
	"log/slog"
	"sync"
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
