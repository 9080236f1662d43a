package deflate

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/klauspost/compress/flate"
)

// GzipHead begins a gzip stream (RFC 1952, 2.3): deflate, no name, no time, unknown system.
const GzipHead = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"

// lastBlock is an empty block with fixed codes that is the last of its stream (RFC 1951, 3.2.3).
const lastBlock = "\x03\x00"

// AppendGzipEnd appends what ends a gzip stream: an empty last block, then the CRC-32 (IEEE) of
// all text that it held and its length modulo 2^32 (RFC 1952, 2.3.1).
func AppendGzipEnd(dst []byte, sum, length uint32) []byte {
	dst = append(dst, lastBlock...)
	dst = binary.LittleEndian.AppendUint32(dst, sum)
	return binary.LittleEndian.AppendUint32(dst, length)
}

// AppendGzip appends text as one whole gzip stream.
func AppendGzip(dst, text []byte) []byte {
	out := sink(append(dst, GzipHead...))
	if err := flate.StatelessDeflate(&out, text, true, nil); err != nil {
		panic(fmt.Sprintf("deflate: memory does not take bytes: %v", err))
	}
	dst = binary.LittleEndian.AppendUint32(out, crc32.ChecksumIEEE(text))
	return binary.LittleEndian.AppendUint32(dst, uint32(len(text)))
}
