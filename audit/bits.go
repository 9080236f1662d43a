package main

// bits is a set of numbers.
type bits []uint64

func (b bits) has(number uint32) bool {
	word := int(number / 64)
	return word < len(b) && b[word]&(1<<(number%64)) != 0
}

func (b *bits) add(number uint32) {
	for int(number/64) >= len(*b) {
		*b = append(*b, 0)
	}
	(*b)[number/64] |= 1 << (number % 64)
}

// addRange adds all from first up to and including last.
func (b *bits) addRange(first, last uint32) {
	for number := first; number <= last; number++ {
		b.add(number)
	}
}
