package hub

import (
	"math"
	"testing"
)

func TestShortNumbers(t *testing.T) {
	for _, n := range []uint64{1, 2, shortMantissaMax - 1, shortMantissaMax, shortMantissaMax + 1, 1 << 20, 1<<20 + 1, 123_456_789_123, 1<<49 + 12345} {
		got := makeShort(n).number()
		if got < n || got-n > n>>(shortMantissaBits-1) || n <= shortMantissaMax && got != n {
			t.Errorf("%d becomes %d", n, got)
		}
	}
	if (shortNumber{}).number() != 0 {
		t.Error("the zero value is not 0")
	}
	if last := uint64(math.MaxUint32) << 17; makeShort(last).number() < last {
		t.Error("a large number is rounded down")
	}
}
