package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// family gives the process ids of roots and of all their descendants.
func family(roots []int) []int {
	var all []int
	for queue := roots; len(queue) > 0; {
		pid := queue[0]
		queue = queue[1:]
		all = append(all, pid)
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
		for _, list := range lists {
			text, _ := os.ReadFile(list)
			for _, field := range strings.Fields(string(text)) {
				if descendant, err := strconv.Atoi(field); err == nil {
					queue = append(queue, descendant)
				}
			}
		}
	}
	return all
}

// cpuTime is the time that processes and their descendants have run, in nanoseconds, user and
// system together: the scheduler's own account where the kernel keeps it, else in clock ticks.
func cpuTime(roots []int) (int64, error) {
	var total int64
	for _, pid := range family(roots) {
		threads, err := threadTime(pid)
		if err != nil {
			if threads, err = tickTime(pid); err != nil {
				return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
			}
		}
		total += threads
	}
	return total, nil
}

// threadTime adds up schedstat over the threads of a process.
func threadTime(pid int) (int64, error) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if len(files) == 0 {
		return 0, os.ErrNotExist
	}
	var total int64
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread ended
		}
		first, _, _ := strings.Cut(string(text), " ")
		ran, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s holds %q", file, first)
		}
		total += ran
	}
	return total, nil
}

// clockTick is USER_HZ, which is 100 on every Linux that runs Go.
const clockTick = 10 * time.Millisecond

func tickTime(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may hold anything; utime and stime are fields 14 and 15.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat is too short", pid)
	}
	user, errUser := strconv.ParseInt(fields[11], 10, 64)
	system, errSystem := strconv.ParseInt(fields[12], 10, 64)
	if errUser != nil || errSystem != nil {
		return 0, fmt.Errorf("/proc/%d/stat has no times", pid)
	}
	return (user + system) * int64(clockTick), nil
}

// residentBytes is the proportional set size of processes and their descendants: what is shared
// is counted once among those who share it.
func residentBytes(roots []int) (int64, error) {
	var total int64
	for _, pid := range family(roots) {
		kilobytes, err := fieldOf(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:")
		if err != nil {
			return 0, fmt.Errorf("memory of process %d: %w", pid, err)
		}
		total += kilobytes << 10
	}
	return total, nil
}

// kernelBytes is what the kernel of this machine has in use of its slabs, in sum: every socket
// costs there, whoever owns it. Where only root may see that (slabinfo), it is what all slabs take,
// the unused part included, which lags behind.
func kernelBytes() (int64, error) {
	if text, err := os.ReadFile("/proc/slabinfo"); err == nil {
		if used := slabsUsed(string(text)); used > 0 {
			return used, nil
		}
	}
	kilobytes, err := fieldOf("/proc/meminfo", "Slab:")
	return kilobytes << 10, err
}

// slabsUsed adds up objects in use times their size (slabinfo(5), version 2.1).
func slabsUsed(slabinfo string) int64 {
	var total int64
	for line := range strings.Lines(slabinfo) {
		fields := strings.Fields(line)
		if len(fields) < 4 {
			continue
		}
		used, errUsed := strconv.ParseInt(fields[1], 10, 64)
		size, errSize := strconv.ParseInt(fields[3], 10, 64)
		if errUsed == nil && errSize == nil {
			total += used * size
		}
	}
	return total
}

// availableBytes is what this machine could still give to processes.
func availableBytes() (int64, error) {
	kilobytes, err := fieldOf("/proc/meminfo", "MemAvailable:")
	return kilobytes << 10, err
}

// fieldOf reads the number behind a name in a file of lines "Name: NUMBER kB".
func fieldOf(path, name string) (int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 2 && fields[0] == name {
			return strconv.ParseInt(fields[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}
