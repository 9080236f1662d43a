package main

import (
	"compress/gzip"
	"io"
	"iter"
	"net/http/httputil"
)

// zipped is an event stream that the gateway compresses.
type zipped struct{ sse }

func (z zipped) request(host, channel string) []byte {
	text := z.sse.request(host, channel)
	return append(text[:len(text)-len("\r\n")], "Accept-Encoding: gzip\r\n\r\n"...)
}

// unzipper decompresses one stream, piece by piece as it comes. The decompressor runs as a coroutine
// that stands still where it would have to wait for more.
type unzipper struct {
	piece []byte // what it has not read yet
	text  []byte // what it said since the last piece came
	next  func() (error, bool)
	stop  func()
	yield func(error) bool
}

func newUnzipper() *unzipper {
	u := &unzipper{}
	u.next, u.stop = iter.Pull(func(yield func(error) bool) {
		u.yield = yield
		zip, err := gzip.NewReader(httputil.NewChunkedReader(u))
		if err == nil {
			_, err = io.Copy((*unzipped)(u), zip)
		}
		if err == nil {
			err = io.EOF
		}
		yield(err)
	})
	return u
}

// add takes what was read, and gives the text that it says, which is good until the next add. An
// error, io.EOF where the stream was ended in order, comes with what was said before.
func (u *unzipper) add(piece []byte) ([]byte, error) {
	u.piece, u.text = piece, u.text[:0]
	err, _ := u.next()
	return u.text, err
}

// Read is what the decompressor reads from.
func (u *unzipper) Read(to []byte) (int, error) {
	for len(u.piece) == 0 {
		if !u.yield(nil) {
			return 0, io.ErrClosedPipe // stopped
		}
	}
	n := copy(to, u.piece)
	u.piece = u.piece[n:]
	return n, nil
}

// unzipped is where an unzipper's decompressor writes to.
type unzipped unzipper

func (u *unzipped) Write(text []byte) (int, error) {
	u.text = append(u.text, text...)
	return len(text), nil
}
