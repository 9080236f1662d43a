package main

import (
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// logLinesMax is how many lines of the log may wait to be written.
	logLinesMax = 4096
	// logCloseWait bounds the wait for them at the end.
	logCloseWait = time.Second
)

// logQueue stands before the output of a log, so that nobody ever waits for it: a pipe that is not
// read, a terminal that is held, or a full disk would else stop whoever has something to say, and
// with it the streams. A goroutine of its own writes the lines; a line that finds the queue full, or
// that the output does not take, is dropped and counted. It is safe for use by many goroutines.
type logQueue struct {
	output  io.Writer
	lines   chan []byte
	closing chan struct{}
	once    sync.Once // closes closing
	ended   chan struct{}
	dropped atomic.Uint64
}

// newLogQueue makes a queue and starts its goroutine, which [logQueue.close] ends.
func newLogQueue(output io.Writer) *logQueue {
	q := &logQueue{
		output: output, lines: make(chan []byte, logLinesMax),
		closing: make(chan struct{}), ended: make(chan struct{}),
	}
	go q.run()
	return q
}

// Write takes one line, which it copies. It never blocks and never fails.
func (q *logQueue) Write(line []byte) (int, error) {
	select {
	case q.lines <- append([]byte(nil), line...):
	default:
		q.dropped.Add(1)
	}
	return len(line), nil
}

func (q *logQueue) run() {
	defer close(q.ended)
	for {
		select {
		case line := <-q.lines:
			q.print(line)
		case <-q.closing:
			for {
				select {
				case line := <-q.lines:
					q.print(line)
				default:
					return
				}
			}
		}
	}
}

func (q *logQueue) print(line []byte) {
	if _, err := q.output.Write(line); err != nil {
		q.dropped.Add(1)
	}
}

// close writes what waits, for at most logCloseWait. Lines that are written later are lost.
func (q *logQueue) close() {
	q.once.Do(func() { close(q.closing) })
	select {
	case <-q.ended:
	case <-time.After(logCloseWait):
	}
}
