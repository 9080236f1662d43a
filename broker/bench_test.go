package broker_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/polltest"
	"github.com/millrace/millrace/internal/redistest"
)

// counting returns callbacks that count events.
func counting(events *atomic.Int64, confirmed *atomic.Int64) broker.Callbacks {
	return broker.Callbacks{
		Event:     func(string, []byte, time.Time) { events.Add(1) },
		Confirmed: func(subs []broker.Subscription, _ bool) { confirmed.Add(int64(len(subs))) },
		Lost:      func([]broker.Subscription) {},
		Refused:   func(broker.Subscription, error) {},
		Health:    func(broker.Health) {},
		Value:     func(string, []byte, time.Time) {},
		Log:       func(broker.LogUpdate, time.Time) {},
	}
}

func startCounting(b *testing.B, url string) (made *broker.Redis, events, confirmed *atomic.Int64) {
	b.Helper()
	made, err := broker.NewRedis(broker.RedisOptions{URL: url, Logger: quiet()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = made.Close() })
	events, confirmed = new(atomic.Int64), new(atomic.Int64)
	if err := made.Start(counting(events, confirmed)); err != nil {
		b.Fatal(err)
	}
	polltest.Eventually(b, "Redis delivers", func() bool { return made.Health().Delivering })
	return made, events, confirmed
}

// BenchmarkEvents is one event of 154 bytes from the socket to the callback. The publisher writes
// finished bytes from a connection of its own, so that what is measured in allocations is ours.
func BenchmarkEvents(b *testing.B) {
	server := redistest.Start(b)
	made, events, confirmed := startCounting(b, server.URL())
	made.Subscribe(plain("job:1"))
	polltest.Eventually(b, "the channel is confirmed", func() bool { return confirmed.Load() > 0 })
	connection, err := net.Dial("tcp", server.Addr)
	if err != nil {
		b.Fatal(err)
	}
	defer connection.Close()
	go func() { _, _ = io.Copy(io.Discard, connection) }()
	const perWrite = 256
	payload := strings.Repeat("x", 154)
	one := fmt.Sprintf("*3\r\n$7\r\nPUBLISH\r\n$5\r\njob:1\r\n$154\r\n%s\r\n", payload)
	many := bytes.Repeat([]byte(one), perWrite)
	b.ReportAllocs()
	b.ResetTimer()
	for sent := 0; sent < b.N; sent += perWrite {
		count := min(perWrite, b.N-sent)
		if _, err := connection.Write(many[:count*len(one)]); err != nil {
			b.Fatal(err)
		}
		for int64(sent)-events.Load() > 20_000 { // stay below the output buffer limit
			time.Sleep(100 * time.Microsecond)
		}
	}
	for events.Load() < int64(b.N) { // finer than polltest: the wait is in what is measured, here and below
		time.Sleep(100 * time.Microsecond)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkSubscribe100k is the time from the first Subscribe to the last confirmation.
func BenchmarkSubscribe100k(b *testing.B) {
	const channels = 100_000
	names := make([]string, channels)
	for number := range names {
		names[number] = "job:" + strconv.Itoa(number)
	}
	server := redistest.Start(b)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		made, _, confirmed := startCounting(b, server.URL())
		b.StartTimer()
		for _, name := range names {
			made.Subscribe(plain(name))
		}
		for confirmed.Load() < channels {
			time.Sleep(time.Millisecond)
		}
		b.StopTimer()
		_ = made.Close()
		b.StartTimer()
	}
}

// BenchmarkPublish is one Publish of one message by several callers at once.
func BenchmarkPublish(b *testing.B) {
	server := redistest.Start(b)
	made, _, _ := startCounting(b, server.URL())
	payload := []byte(strings.Repeat("x", 154))
	for _, callers := range []int{1, 64} {
		b.Run(strconv.Itoa(callers)+" callers", func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(callers)
			b.RunParallel(func(next *testing.PB) {
				for next.Next() {
					if _, err := made.Publish(context.Background(), []broker.Message{{Channel: "job:1", Payload: payload}}); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// BenchmarkMemory is one event through the memory broker.
func BenchmarkMemory(b *testing.B) {
	made := broker.NewMemory(broker.MemoryOptions{})
	b.Cleanup(func() { _ = made.Close() })
	events, confirmed := new(atomic.Int64), new(atomic.Int64)
	if err := made.Start(counting(events, confirmed)); err != nil {
		b.Fatal(err)
	}
	made.Subscribe(plain("job:1"))
	polltest.Eventually(b, "the channel is confirmed", func() bool { return confirmed.Load() > 0 })
	message := []broker.Message{{Channel: "job:1", Payload: []byte(strings.Repeat("x", 154))}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := made.Publish(context.Background(), message); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStateChange is the time from a SET by somebody else to the callback, one at a time and
// slowly enough that no read waits for its interval.
func BenchmarkStateChange(b *testing.B) {
	benchmarkChange(b, broker.Subscription{Channel: "state:1", Kind: broker.State}, 20*time.Millisecond,
		"*3\r\n$3\r\nSET\r\n$7\r\nstate:1\r\n$8\r\n%08d\r\n")
}

// BenchmarkLogAppend is the same of an XADD.
func BenchmarkLogAppend(b *testing.B) {
	benchmarkChange(b, broker.Subscription{Channel: "log:1", Kind: broker.Log}, 10*time.Millisecond,
		"*5\r\n$4\r\nXADD\r\n$5\r\nlog:1\r\n$1\r\n*\r\n$4\r\ndata\r\n$8\r\n%08d\r\n")
}

func benchmarkChange(b *testing.B, sub broker.Subscription, apart time.Duration, command string) {
	server := redistest.Start(b)
	made, err := broker.NewRedis(broker.RedisOptions{URL: server.URL(), Logger: quiet()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = made.Close() })
	came := make(chan time.Time, 16)
	confirmed := make(chan struct{}, 16)
	callbacks := counting(new(atomic.Int64), new(atomic.Int64))
	callbacks.Confirmed = func([]broker.Subscription, bool) { confirmed <- struct{}{} }
	callbacks.Value = func(_ string, payload []byte, _ time.Time) {
		if payload != nil {
			came <- time.Now()
		}
	}
	callbacks.Log = func(update broker.LogUpdate, _ time.Time) {
		if len(update.Entries) > 0 {
			came <- time.Now()
		}
	}
	if err := made.Start(callbacks); err != nil {
		b.Fatal(err)
	}
	made.Subscribe(sub)
	<-confirmed
	connection, err := net.Dial("tcp", server.Addr)
	if err != nil {
		b.Fatal(err)
	}
	defer connection.Close()
	go func() { _, _ = io.Copy(io.Discard, connection) }()
	var took []time.Duration
	pace := time.NewTicker(apart)
	defer pace.Stop()
	for number := range b.N {
		<-pace.C
		began := time.Now()
		if _, err := fmt.Fprintf(connection, command, number); err != nil {
			b.Fatal(err)
		}
		took = append(took, (<-came).Sub(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
}

// BenchmarkResubscribe10k is the time from the loss of the connection to the last of ten thousand
// values read anew.
func BenchmarkResubscribe10k(b *testing.B) {
	const keys = 10_000
	server := redistest.Start(b)
	made, _, confirmed := startCounting(b, server.URL())
	for number := range keys {
		made.Subscribe(broker.Subscription{Channel: "state:" + strconv.Itoa(number), Kind: broker.State})
	}
	polltest.Eventually(b, "all keys are read", func() bool { return confirmed.Load() >= keys })
	for b.Loop() {
		before := made.Stats().Reads
		for line := range strings.Lines(server.CLI(b, "CLIENT", "LIST", "TYPE", "normal")) {
			if strings.Contains(line, "flags=t") {
				id, _, _ := strings.Cut(strings.TrimPrefix(line, "id="), " ")
				server.CLI(b, "CLIENT", "KILL", "ID", id)
			}
		}
		for made.Stats().Reads < before+keys {
			time.Sleep(time.Millisecond)
		}
	}
}
