package names

import (
	"strconv"
	"testing"
)

// BenchmarkIndex adds a million names, finds each and misses as many.
func BenchmarkIndex(b *testing.B) {
	const count = 1_000_000
	all := make([]string, 1, count+1)
	missing := make([]string, count)
	for n := range count {
		all = append(all, "job_progress:"+strconv.Itoa(n))
		missing[n] = "alerts:" + strconv.Itoa(n)
	}
	b.ResetTimer()
	for b.Loop() {
		x := New(func(entry uint32) string { return all[entry] })
		for entry := range uint32(count) {
			if x.Find(all[entry+1]) != 0 {
				b.Fatal("found before it was added")
			}
			x.Add(entry + 1)
		}
		for entry := range uint32(count) {
			if x.Find(all[entry+1]) != entry+1 || x.Find(missing[entry]) != 0 {
				b.Fatal("lost, or found what never was there")
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/count, "ns/name")
}
