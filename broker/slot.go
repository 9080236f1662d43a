package broker

import "strings"

// slotCount is the number of hash slots of a Redis Cluster.
const slotCount = 16384

// slotTable is CRC-16/XMODEM, polynomial 0x1021, one entry a byte.
var slotTable = func() (table [256]uint16) {
	for index := range table {
		value := uint16(index) << 8
		for range 8 {
			carry := value & 0x8000
			value <<= 1
			if carry != 0 {
				value ^= 0x1021
			}
		}
		table[index] = value
	}
	return table
}()

// slotOf returns the hash slot of a key or sharded channel: of what stands between the first
// brace and the next closing one, where there is something, else of the whole.
func slotOf(key string) uint16 {
	if open := strings.IndexByte(key, '{'); open >= 0 {
		if length := strings.IndexByte(key[open+1:], '}'); length > 0 {
			key = key[open+1 : open+1+length]
		}
	}
	var sum uint16
	for index := range len(key) {
		sum = sum<<8 ^ slotTable[byte(sum>>8)^key[index]]
	}
	return sum % slotCount
}
