package logtest_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/millrace/millrace/internal/logtest"
)

// TestText: lines of many goroutines are all kept, each whole.
func TestText(t *testing.T) {
	const writers, each = 8, 100
	var text logtest.Text
	var group sync.WaitGroup
	for range writers {
		group.Go(func() {
			for range each {
				if n, err := text.Write([]byte("line\n")); n != 5 || err != nil {
					t.Errorf("wrote %d bytes, %v", n, err)
				}
				_ = text.String()
			}
		})
	}
	group.Wait()
	if text.String() != strings.Repeat("line\n", writers*each) {
		t.Errorf("kept %q", text.String())
	}
}
