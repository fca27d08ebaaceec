package lmo

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
)

// entry is an entry of the index: hash of the key, number of plural forms, offset and length of the text.
type entry struct{ Key, Forms, Offset, Length uint32 }

// Compile converts a .po file to .lmo: the texts, each padded to a multiple of four bytes, the index sorted by key, and
// the offset of the index. If nothing is translated the result is empty.
func Compile(po string) ([]byte, error) {
	messages, err := parse(po)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	var index []entry
	add := func(key, forms uint32, text string) {
		index = append(index, entry{key, forms, uint32(out.Len()), uint32(len(text))})
		out.WriteString(text)
		for out.Len()%4 != 0 {
			out.WriteByte(0)
		}
	}
	for _, m := range messages {
		if m.id == nil || *m.id == "" {
			for field := range strings.SplitSeq(m.texts[0], `\n`) {
				const name = "Plural-Forms: "
				if len(field) >= len(name) && strings.EqualFold(field[:len(name)], name) {
					add(0, 0, field[len(name):])
				}
			}
			continue
		}
		for form, text := range m.texts {
			key := *m.id
			if m.context != nil {
				key = *m.context + "\x01" + key
			}
			if m.plural != nil {
				key += "\x02" + strconv.Itoa(form)
			}
			if text != "" && hash(key) != hash(text) { // LuCI shows untranslated texts as they are
				add(hash(key), uint32(len(m.texts)), text)
			}
		}
	}
	if len(index) == 0 {
		return nil, nil
	}
	slices.SortStableFunc(index, func(a, b entry) int { return cmp.Compare(a.Key, b.Key) })
	start := uint32(out.Len())
	for _, value := range []any{index, start} {
		if err := binary.Write(&out, binary.BigEndian, value); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}
