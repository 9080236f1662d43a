package hostile

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Some faults nothing from outside can cause: a panic, a clock that jumps. They are put into the
// running gateway, through its memory, as a debugger would: the binary is the one that ships.

const modulePath = "github.com/millrace/millrace/"

// symbols gives the gateway's symbols by name, once.
var symbols = sync.OnceValues(func() (map[string]elf.Symbol, error) {
	path, err := gatewayPath()
	if err != nil {
		return nil, err
	}
	file, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if file.Type != elf.ET_EXEC || file.Machine != elf.EM_X86_64 {
		return nil, errors.New("the gateway was not built for fixed addresses on amd64")
	}
	list, err := file.Symbols()
	if err != nil {
		return nil, err
	}
	table := make(map[string]elf.Symbol, len(list))
	for _, symbol := range list {
		table[symbol.Name] = symbol
	}
	return table, nil
})

// inside reaches into the memory of the case's gateway.
type inside struct {
	w      *world
	memory *os.File
	symbol map[string]elf.Symbol

	clockAt int64 // where the seconds stand that are added to the clock, 0: not led astray yet
}

// inside opens the gateway's memory. Where that cannot be, the case is skipped.
func (w *world) inside() *inside {
	w.Helper()
	if runtime.GOARCH != "amd64" {
		w.Skip("what is put into the gateway is written for amd64")
	}
	table, err := symbols()
	if err != nil {
		w.Fatal(err)
	}
	memory, err := os.OpenFile("/proc/"+strconv.Itoa(w.gateway.command.Process.Pid)+"/mem", os.O_RDWR, 0)
	if errors.Is(err, os.ErrPermission) {
		w.Skipf("the memory of a child cannot be opened here: %v", err)
	}
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { memory.Close() })
	return &inside{w: w, memory: memory, symbol: table}
}

// find gives the address of a symbol, which has at least so many bytes.
func (i *inside) find(name string, size uint64) int64 {
	i.w.Helper()
	symbol, there := i.symbol[name]
	if !there || symbol.Size < size {
		i.w.Fatalf("the gateway has no %s of %d bytes: choose another", name, size)
	}
	return int64(symbol.Value)
}

func (i *inside) read(at int64, size int) []byte {
	i.w.Helper()
	bytes := make([]byte, size)
	if _, err := i.memory.ReadAt(bytes, at); err != nil {
		i.w.Fatalf("reading the gateway's memory: %v", err)
	}
	return bytes
}

// whileStopped holds the gateway still, so that no thread stands in the middle of what changes.
func (i *inside) whileStopped(change func()) {
	i.w.Helper()
	i.w.gateway.signal(syscall.SIGSTOP)
	defer i.w.gateway.signal(syscall.SIGCONT)
	i.w.within(patience, "the gateway is stopped", func() bool {
		text, err := os.ReadFile("/proc/" + strconv.Itoa(i.w.gateway.command.Process.Pid) + "/stat")
		return err == nil && strings.HasPrefix(string(text[strings.LastIndexByte(string(text), ')')+1:]), " T")
	})
	change()
}

func (i *inside) write(at int64, bytes []byte) {
	i.w.Helper()
	if _, err := i.memory.WriteAt(bytes, at); err != nil {
		i.w.Fatalf("writing the gateway's memory: %v", err)
	}
}

// fault makes every call of a function panic, by a write to address 0 in place of its first
// instruction, until mend is called.
func (i *inside) fault(function string) (mend func()) {
	i.w.Helper()
	writeToNil := []byte{0x31, 0xc0, 0x89, 0x00} // xor eax, eax; mov [rax], eax
	at := i.find(modulePath+function, uint64(len(writeToNil)))
	good := i.read(at, len(writeToNil))
	i.whileStopped(func() { i.write(at, writeToNil) })
	return func() { i.whileStopped(func() { i.write(at, good) }) }
}

// moveClock has the gateway's wall clock, and no other clock, show what the machine's shows and so
// many seconds more. Its runtime asks the kernel's vDSO through a pointer; that is led to code that
// asks in its place and adds. The code stands where the demo does, which does not run here.
func (i *inside) moveClock(seconds int32) {
	i.w.Helper()
	if i.clockAt != 0 {
		i.whileStopped(func() { i.write(i.clockAt, binary.LittleEndian.AppendUint32(nil, uint32(seconds))) })
		return
	}
	pointer := i.find("runtime.vdsoClockgettimeSym", 8)
	ask := i.read(pointer, 8)
	if binary.LittleEndian.Uint64(ask) == 0 {
		i.w.Skip("this kernel gives no vDSO")
	}
	var code []byte
	code = append(code, 0x85, 0xff, 0x74, 0x0c)                    // test edi, edi (CLOCK_REALTIME is 0); jz realtime
	code = append(append(code, 0x48, 0xb8), ask...)                // mov rax, ask
	code = append(code, 0xff, 0xe0)                                // jmp rax
	code = append(append(code, 0x56, 0x48, 0xb8), ask...)          // realtime: push rsi; mov rax, ask
	code = append(code, 0xff, 0xd0, 0x5e, 0x48, 0x81, 0x06)        // call rax; pop rsi; add qword [rsi],
	seat := len(code)                                              //
	code = binary.LittleEndian.AppendUint32(code, uint32(seconds)) //   seconds
	code = append(code, 0xc3)                                      // ret
	at := i.find(modulePath+"gateway.(*Gateway).demonstrate", uint64(len(code)))
	i.whileStopped(func() {
		i.write(at, code)
		i.write(pointer, binary.LittleEndian.AppendUint64(nil, uint64(at)))
	})
	i.clockAt = at + int64(seat)
}

// panicsInside has a handler, a callback of a loop and a callback of the broker panic.
func panicsInside(w *world) {
	in := w.inside()
	publish := func(want int) {
		if status, body := w.publishHTTP("", "job_progress:i3", `{"n":1}`); status != want {
			w.Errorf("publishing was answered with %d %s, want %d", status, body, want)
		}
	}
	victim, other := w.websocket("/ws"), w.websocket("/ws")
	victim.await("connected")
	other.await("connected")

	mend := in.fault("gateway.(*Gateway).servePublish")
	publish(500)
	mend()
	publish(200)

	mend = in.fault("gateway.(*sessions).command")
	victim.command(`{"type":"ping"}`)
	if _, ended := victim.over(); !ended {
		w.Error("the stream whose command panicked goes on")
	}
	mend()
	if answer := other.reply(`{"type":"ping"}`); answer.Type != "pong" {
		w.Errorf("another stream of the loop was answered with %s", answer.text)
	}

	told := func(text string) (count int) {
		for _, line := range w.gateway.lines() {
			if strings.Contains(line, text) {
				count++
			}
		}
		return count
	}
	mend = in.fault("hub.(*Hub).Event")
	w.within(patience, "a callback of the broker panics", func() bool { return told("a callback of the broker panicked") > 0 })
	mend()
	w.gapsHeard(make([]int, len(w.bystanders)), "a callback of the broker that panicked")
	w.wantAlive()
	for _, text := range []string{"panic in ", "a loop's callback panicked", `"a callback of the broker panicked"`} {
		if count := told(text); count != 1 {
			w.Errorf("%q stands in %d lines of the log, want one with the stack", text, count)
		}
	}
	w.note("500 for the request, the end of the stream, a gap for who was subscribed; nobody else notices; one line with the stack for each")
}

// clockJumps moves the wall clock by an hour to and fro under streams whose tokens end in between.
func clockJumps(w *world) {
	in := w.inside()
	now := time.Now()
	ending := w.secret(sign(map[string]any{"sub": "alice", "exp": now.Add(30 * time.Minute).Unix()}))
	beginning := w.secret(sign(map[string]any{"sub": "alice", "nbf": now.Add(-30 * time.Minute).Unix(), "exp": now.Add(10 * time.Hour).Unix()}))
	sse := w.stream("/api/stream?channel=job_progress:i6", bearer(ending)...).live()
	socket := w.websocket("/ws?channel=job_progress:i6", bearer(ending)...)
	socket.await("subscribed")
	streams := func() int {
		m, err := w.gateway.metrics()
		if err != nil {
			w.Fatal(err)
		}
		return int(m[`millrace_streams{wire="sse"}`] + m[`millrace_streams{wire="websocket"}`])
	}
	w.within(patience, "all are there", func() bool { return streams() == len(w.bystanders)+2 })
	for n, jump := range []struct {
		hours             int
		ending, beginning int // the answer to who comes with these tokens
	}{{1, 401, 200}, {-1, 200, 401}, {0, 200, 200}} {
		in.moveClock(int32(jump.hours * 3600))
		if got := w.streamStatus(ending); got != jump.ending {
			w.Errorf("%+d h: the token that ends in half an hour is answered with %d, want %d", jump.hours, got, jump.ending)
		}
		if got := w.streamStatus(beginning); got != jump.beginning {
			w.Errorf("%+d h: the token that began half an hour ago is answered with %d, want %d", jump.hours, got, jump.beginning)
		}
		w.within(patience, "who came is gone, and nobody else", func() bool { return streams() == len(w.bystanders)+2 })
		for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
			if left := streams(); left < len(w.bystanders)+2 {
				w.Fatalf("%+d h: %d streams are left of %d", jump.hours, left, len(w.bystanders)+2)
			}
		}
		event := fmt.Sprintf(`{"n":%d}`, n+1)
		w.publish("job_progress:i6", event)
		socket.wantText(event)
		if got := sse.await("the event", func(e sseEvent) bool { return e.name == "message" }); got.data != event {
			w.Errorf("%+d h: the stream brought %q, want %q", jump.hours, got.data, event)
		}
		w.wantAlive()
	}
	w.note("no stream ended, no gap; tokens are judged by the wall clock as it stands, 401 for one that has ended or not begun by it")
}
