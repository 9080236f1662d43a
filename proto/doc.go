// Package proto holds everything that Millrace says and understands on a wire: the text of
// Server-Sent Events, the frames of RFC 6455, the JSON commands and answers, the names of
// channels and the ids of events.
//
// It is pure: bytes in, values out. Nothing here opens a socket, reads a clock or starts a
// goroutine, so every rule can be tested with a table and fuzzed. A parser that has not seen
// enough says so ([NeedMore]) and is called again with more; it never waits.
//
// An event is encoded at most once per wire form ([Form]) and the bytes are shared by every
// stream that wants that form; they are immutable from the moment they are made.
package proto
