package main

import (
	"os"
	"testing"
)

// TestFileIsFresh: the committed file is what the generator writes.
func TestFileIsFresh(t *testing.T) {
	committed, err := os.ReadFile("../campaigns.csv")
	if err != nil {
		t.Fatal(err)
	}
	if string(committed) != generate() {
		t.Error("campaigns.csv is not what the generator writes: run go generate ./examples/workers/ads")
	}
}
