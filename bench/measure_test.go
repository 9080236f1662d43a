package bench

import (
	"os"
	"runtime/debug"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSlabsUsed(t *testing.T) {
	const slabinfo = "slabinfo - version: 2.1\n" +
		"# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>\n" +
		"TCP                  100    120   2368   13    8 : tunables    0    0    0 : slabdata     10     10      0\n" +
		"filp                  50     60    256   16    1 : tunables    0    0    0 : slabdata      4      4      0\n"
	if got, want := slabsUsed(slabinfo), int64(100*2368+50*256); got != want {
		t.Errorf("got %d, expected %d", got, want)
	}
	if got := slabsUsed("nothing of the kind"); got != 0 {
		t.Errorf("got %d of nothing", got)
	}
}

// TestCPUTimeGrows: the account of this very process goes on, by about as much as it works.
func TestCPUTimeGrows(t *testing.T) {
	before, err := cpuTime([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	const work = 50 * time.Millisecond
	deadline := time.Now().Add(10 * time.Second)
	for {
		now, err := cpuTime([]int{os.Getpid()})
		if err != nil {
			t.Fatal(err)
		}
		if now-before > int64(work) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s of work the account is at %v", time.Duration(now-before))
		}
	}
	if ticks, err := tickTime(os.Getpid()); err != nil || ticks <= 0 {
		t.Errorf("in clock ticks: %d, %v", ticks, err)
	}
}

// TestResidentBytesGrows: memory that is touched is counted.
func TestResidentBytesGrows(t *testing.T) {
	const size = 64 << 20
	touched, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(touched)
	debug.FreeOSMemory() // or what other tests left is given back meanwhile
	before, err := residentBytes([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < size; i += 4096 {
		touched[i] = 1
	}
	after, err := residentBytes([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	if grown := after - before; grown < size/2 {
		t.Errorf("%d bytes were touched, %d more are counted", len(touched), grown)
	}
}

// TestMonotonicIsTheKernels: what two processes compare is one clock.
func TestMonotonicIsTheKernels(t *testing.T) {
	for range 100 {
		before := kernelMonotonic()
		ours := monotonic()
		after := kernelMonotonic()
		const slack = int64(5 * time.Microsecond)
		if ours < before-slack || ours > after+slack {
			t.Fatalf("our clock says %d between %d and %d", ours, before, after)
		}
	}
}

// TestTimekeeperIsOnTime: it never comes early, and now and then within a millisecond.
func TestTimekeeperIsOnTime(t *testing.T) {
	keeper := newTimekeeper()
	defer keeper.release()
	best := int64(time.Hour)
	for range 50 {
		due := monotonic() + int64(500*time.Microsecond)
		keeper.until(due)
		late := monotonic() - due
		if late < -int64(5*time.Microsecond) { // what two looks at the clock may differ by
			t.Fatalf("%d ns early", -late)
		}
		best = min(best, late)
	}
	if best > int64(time.Millisecond) {
		t.Errorf("at best %v late", time.Duration(best))
	}
}
