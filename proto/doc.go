// Package proto holds everything that Millrace says and understands on a wire: the text of
// Server-Sent Events, the frames of RFC 6455, the JSON commands and answers, the names of
// channels and the ids of events.
//
// It is pure: bytes in, values out. Nothing here opens a socket, reads a clock or starts a
// goroutine, so every rule can be tested with a table and fuzzed. A parser that has not seen
// enough says so and is called again with more; it never waits ([MessageReader], [SSEDecoder]).
//
// # An event's way
//
//	payload ── NewEvent ── judged once: UTF-8, JSON, type, timestamp
//	               │
//	               └─ Bytes(form) ── written when first asked for, then shared
//	                    FormSSE       chunk( id: event: data: )
//	                    FormSSEPlain         id: event: data:
//	                    FormText      frame( payload ), or the envelope if its type is reserved
//	                    FormEnvelope  frame( {"type":"event","channel":..,"id":..,"data":payload} )
//	                    FormSSEGzip   chunk( piece of a gzip stream that says FormSSEPlain )
//	                    FormTextDeflate, FormEnvelopeDeflate  frame( payload, compressed )
//	                    FormSSEPacked, FormTextPacked, ..     as above, {"type":"compressed",..} in a large payload's place
//
// An event is encoded at most once per wire form ([Form]) and the bytes are shared by every
// stream that wants that form; they are immutable from the moment they are made. Of a gzip form
// there may be two: a [Piece] has a short one besides, which fits behind one other event alone.
// What may not be compressed ([Event.MayCompress]) is carried in those forms as it is. What the gateway
// itself has to say to a whole channel goes the same way by [NewNotice]; what it says to one
// stream is put together by the Append functions.
//
// # Who is believed
//
// Nobody. A channel's name is judged by [ParseChannel] wherever it came from, an id by
// [ParseID], a payload by [NewEvent] even when it came from Redis, a command by [ParseCommand], a
// handshake by [CheckUpgrade], a frame by [MessageReader]. Errors say what was wrong and where,
// and repeat of what they refuse at most 64 bytes of a channel's name, escaped.
package proto
