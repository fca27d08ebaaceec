package lmo

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
)

// entry is one of the index: hash of the key, number of plural forms, place and length of the text.
type entry struct{ Key, Forms, Offset, Length uint32 }

// Compile makes a .lmo of the text of a .po file: the texts, each filled up to four bytes, the index in the order of
// the keys, and where the index begins. It is empty where there is no translation.
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
			if text != "" && hash(key) != hash(text) { // what is not translated LuCI shows as it is
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
