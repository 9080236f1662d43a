package netio

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file sends to many sockets with one system call, by io_uring (io_uring(7)). It is used for
// that alone: every send is told not to wait, so it is over, one way or the other, when the call
// returns, and nothing is ever under way that somebody would have to wait for or take back
// (docs/decisions/0030).

// ringEntries is how many sends one call takes.
const ringEntries = flushBatchMax

// ring is one io_uring instance. It belongs to one loop, whose goroutine may move between threads:
// so it must not be bound to the thread that made it (IORING_SETUP_SINGLE_ISSUER).
type ring struct {
	fd          int
	queues      []byte // the kernel's memory: heads and tails, completions
	submissions []byte // and submissions

	tail               *uint32 // of submissions; the kernel takes them all during a call
	doneHead, doneTail *uint32 // of completions
	mask, doneMask     uint32
	entries            []ringEntry
	done               []ringDone
	messages           [ringEntries]unix.Msghdr // of sends of several pieces
}

// ringEntry is the kernel's struct io_uring_sqe, as far as a send uses it.
type ringEntry struct {
	operation uint8
	_         uint8
	_         uint16
	fd        int32
	_         uint64
	address   uint64
	length    uint32
	flags     uint32 // MSG_ flags
	number    uint64 // comes back in the completion
	_         [3]uint64
}

// ringDone is the kernel's struct io_uring_cqe.
type ringDone struct {
	number uint64
	result int32 // bytes, or an errno below zero
	_      uint32
}

// ringParameters is the kernel's struct io_uring_params.
type ringParameters struct {
	entries, doneEntries, flags, _, _, features, _ uint32
	_                                              [3]uint32
	queue                                          struct{ head, tail, mask, entries, flags, dropped, array, _ uint32 }
	_                                              uint64
	doneQueue                                      struct{ head, tail, mask, entries, overflow, entriesAt, flags, _ uint32 }
	_                                              uint64
}

// What of linux/io_uring.h is used.
const (
	ringSetupSubmitAll = 1 << 7 // one entry that fails stops no other; since Linux 5.18
	ringFeatureOneMap  = 1 << 0 // both queues are in one piece of memory
	ringMapQueues      = 0
	ringMapEntries     = 0x10000000
	ringEnterWait      = 1 << 0
	ringOperationMany  = 9  // IORING_OP_SENDMSG
	ringOperationSend  = 26 // IORING_OP_SEND
	ringEntrySize      = 64
	ringDoneSize       = 16
	ringSendFlags      = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL
)

// newRing makes a ring. Its error says why there is none: the kernel is older than 5.18, or does
// not allow it.
func newRing() (*ring, error) {
	parameters := ringParameters{flags: ringSetupSubmitAll}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, ringEntries, uintptr(unsafe.Pointer(&parameters)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", errno)
	}
	r := &ring{fd: int(fd)}
	if parameters.features&ringFeatureOneMap == 0 {
		r.close()
		return nil, fmt.Errorf("io_uring_setup: features %#x are those of an old kernel", parameters.features)
	}
	if err := r.mapMemory(&parameters); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *ring) mapMemory(p *ringParameters) (err error) {
	const access, how = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	size := max(p.queue.array+4*p.entries, p.doneQueue.entriesAt+ringDoneSize*p.doneEntries)
	if r.queues, err = unix.Mmap(r.fd, ringMapQueues, int(size), access, how); err != nil {
		return fmt.Errorf("map the queues of an io_uring: %w", err)
	}
	if r.submissions, err = unix.Mmap(r.fd, ringMapEntries, int(ringEntrySize*p.entries), access, how); err != nil {
		return fmt.Errorf("map the entries of an io_uring: %w", err)
	}
	at := func(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.queues[offset])) }
	r.tail, r.mask = at(p.queue.tail), *at(p.queue.mask)
	r.doneHead, r.doneTail, r.doneMask = at(p.doneQueue.head), at(p.doneQueue.tail), *at(p.doneQueue.mask)
	r.entries = unsafe.Slice((*ringEntry)(unsafe.Pointer(&r.submissions[0])), p.entries)
	r.done = unsafe.Slice((*ringDone)(unsafe.Pointer(&r.queues[p.doneQueue.entriesAt])), p.doneEntries)
	places := unsafe.Slice(at(p.queue.array), p.entries)
	for i := range places {
		places[i] = uint32(i) // entry i stands in place i, always
	}
	return nil
}

// send carries out a batch of at most ringEntries. It reports false if the kernel takes no more: what
// was not finished then was not begun, and the ring is of no further use.
func (r *ring) send(batch []transfer) (all bool) {
	tail := *r.tail
	for i := range batch {
		r.fill(&r.entries[(tail+uint32(i))&r.mask], i, &batch[i])
	}
	atomic.StoreUint32(r.tail, tail+uint32(len(batch)))
	for submitted, finished := 0, 0; finished < len(batch); {
		taken, errno := r.enter(len(batch)-submitted, submitted-finished)
		submitted += taken
		finished += r.collect(batch)
		if taken == 0 && submitted == finished && errno != unix.EINTR {
			return false
		}
	}
	return true
}

func (r *ring) fill(e *ringEntry, number int, t *transfer) {
	*e = ringEntry{fd: int32(t.fd), flags: ringSendFlags, number: uint64(number)}
	if first := &t.vectors[0]; len(t.vectors) == 1 {
		e.operation, e.address, e.length = ringOperationSend, uint64(uintptr(unsafe.Pointer(first.Base))), uint32(first.Len)
		return
	}
	message := &r.messages[number]
	message.Iov, message.Iovlen = &t.vectors[0], uint64(len(t.vectors))
	e.operation, e.address, e.length = ringOperationMany, uint64(uintptr(unsafe.Pointer(message))), 1
}

// enter has the kernel take so many entries. It waits for those that it took before and did not
// finish: there should be none.
func (r *ring) enter(entries, unfinished int) (taken int, errno unix.Errno) {
	flags := uintptr(0)
	if unfinished > 0 {
		flags = ringEnterWait
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(entries), uintptr(unfinished), flags, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// collect takes the results that there are.
func (r *ring) collect(batch []transfer) (count int) {
	head, tail := *r.doneHead, atomic.LoadUint32(r.doneTail)
	for ; head != tail; head++ {
		done := &r.done[head&r.doneMask]
		t := &batch[done.number]
		t.finished = true
		if done.result < 0 {
			t.errno = unix.Errno(-done.result)
		} else {
			t.written = int(done.result)
		}
		count++
	}
	atomic.StoreUint32(r.doneHead, head)
	return count
}

// close gives the ring back. A second call does nothing.
func (r *ring) close() {
	for _, memory := range []*[]byte{&r.submissions, &r.queues} {
		if *memory != nil {
			_ = unix.Munmap(*memory) // the only error is about memory that was not mapped
			*memory = nil
		}
	}
	if r.fd >= 0 {
		unix.Close(r.fd)
		r.fd = -1
	}
}
