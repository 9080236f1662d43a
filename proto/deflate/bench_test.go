package deflate

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkAppendBlock is what an event costs a loop that is the first to write it compressed.
func BenchmarkAppendBlock(b *testing.B) {
	text := func(n, size int) []byte {
		var all strings.Builder
		for all.Len() < size {
			fmt.Fprintf(&all, `{"type":"progress","jobId":"job_123","percent":%d,"stage":"encode","at":%d},`, n, all.Len()*n)
		}
		return []byte(all.String()[:size])
	}
	for _, size := range []int{200, 4 << 10, 64 << 10, 1 << 20} {
		for name, dictionary := range map[string][]byte{"alone": nil, "behind another": text(1, size)} {
			b.Run(fmt.Sprintf("%d bytes %s", size, name), func(b *testing.B) {
				this := text(2, size)
				var block []byte
				b.SetBytes(int64(size))
				for b.Loop() {
					block = AppendBlock(block[:0], this, dictionary)
				}
			})
		}
	}
}
