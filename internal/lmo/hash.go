package lmo

// hash is Paul Hsieh's SuperFastHash (azillionmonkeys.com/qed/hash.html) with the length as initial value. LuCI looks
// texts up by it.
func hash(text string) uint32 {
	if text == "" {
		return 0
	}
	h := uint32(len(text))
	word := func(i int) uint32 { return uint32(text[i]) | uint32(text[i+1])<<8 }
	signed := func(i int) uint32 { return uint32(int8(text[i])) }
	i := 0
	for ; i+4 <= len(text); i += 4 {
		h += word(i)
		h = h<<16 ^ word(i+2)<<11 ^ h
		h += h >> 11
	}
	switch len(text) - i {
	case 3:
		h += word(i)
		h ^= h << 16
		h ^= signed(i+2) << 18
		h += h >> 11
	case 2:
		h += word(i)
		h ^= h << 11
		h += h >> 17
	case 1:
		h += signed(i)
		h ^= h << 10
		h += h >> 1
	}
	h ^= h << 3
	h += h >> 5
	h ^= h << 4
	h += h >> 17
	h ^= h << 25
	h += h >> 6
	return h
}
