package netio

import (
	"errors"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/millrace/millrace/internal/sockettest"
)

func TestMailboxOrderAndBound(t *testing.T) {
	var box mailbox
	for n := range MailMax {
		if ok, _ := box.push(n, false); !ok {
			t.Fatalf("post %d refused", n)
		}
	}
	if ok, _ := box.push("one more", false); ok {
		t.Error("a full box took a post")
	}
	if ok, _ := box.push(MailMax, true); !ok {
		t.Error("a full box refused an urgent post")
	}
	want := 0
	for l := box.take(); l != nil; l = l.next {
		if l.item != want {
			t.Fatalf("item %v instead of %d", l.item, want)
		}
		want++
	}
	if want != MailMax+1 {
		t.Errorf("%d items", want)
	}
	box.close()
	if ok, _ := box.push(1, true); ok {
		t.Error("a closed box took a post")
	}
}

func TestMailFromManyKeepsEachOnesOrder(t *testing.T) {
	const posters, each = 8, 5000
	last := [posters]uint32{}
	var total atomic.Int64
	o := startLoop(t, LoopOptions{}, nil, func(o *owner) {
		o.events.Mail = func(item any) {
			v := item.(uint64)
			poster, n := v>>32, uint32(v)
			if n != last[poster]+1 {
				panic("out of order")
			}
			last[poster] = n
			total.Add(1)
		}
	})
	for poster := range uint64(posters) {
		go func() {
			for n := uint64(1); n <= each; n++ {
				for errors.Is(o.Post(poster<<32|n), ErrMailboxFull) {
					runtime.Gosched()
				}
			}
		}()
	}
	sockettest.Eventually(t, "all posts arrived", func() bool { return total.Load() == posters*each || o.panicked.Load() > 0 })
	if o.panicked.Load() > 0 {
		t.Error("posts of one poster came out of order")
	}
}
