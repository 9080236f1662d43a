// Package deflate makes compressed bytes that many streams can share, and undoes those of clients.
//
// # Blocks that fit anywhere
//
// A compressed stream is a row of blocks (RFC 1951), and what is special about ours is that each
// begins and ends at a whole byte and refers to nothing before it. Such a block can be put into any
// stream at any place, so an event is compressed once for everybody who takes it compressed:
//
//	alone   refers to nothing outside of itself: fits behind anything         [AppendBlock]
//	after   refers to one text that stands right before it: fits behind that  [AppendBlock, with a dictionary]
//	stored  not compressed at all: fits behind anything, tells no lengths     [AppendStored]
//
// References are distances backwards, so an after-block is right for every stream whose last bytes
// are that text, whatever stands before them. That is most of the gain: an event of 160 bytes
// alone saves a tenth, behind its predecessor three quarters.
//
// # What may not stand together
//
// The length of compressed text tells what it has in common with its surroundings. Here a block's
// surroundings are itself and, for an after-block, one text that the caller chose: the caller must
// never choose one that a stranger may not know (CRIME, BREACH).
//
// The package is pure: bytes in, bytes out. Its functions may be called from any goroutine; an
// [Inflater] belongs to one.
package deflate
