package main

import "testing"

func TestConnection(t *testing.T) {
	cases := []struct{ name, text, id, kind string }{
		{"the publisher's", "id=3 addr=127.0.0.1:1 name=audit flags=N", "", ""},
		{"pub/sub", "id=4 addr=127.0.0.1:1 name=millrace flags=P", "4", "pub/sub"},
		{"tracking", "id=5 addr=127.0.0.1:1 name=millrace flags=t", "5", "tracking"},
		{"command", "id=6 addr=127.0.0.1:1 name=millrace flags=N", "6", "command"},
		{"nothing", "\n", "", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if id, kind := connection(c.text); id != c.id || kind != c.kind {
				t.Errorf("got %q, %q", id, kind)
			}
		})
	}
}
