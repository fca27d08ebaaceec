package config

import (
	"hash/fnv"
	"strconv"

	"github.com/ds4relay/ds4relay/internal/uci"
)

// sumOf returns the checksum of all sections but those of proxies, which are not the kernel's matter.
func sumOf(file *uci.File) string {
	sum := fnv.New64a()
	add := func(word string) { _, _ = sum.Write(append([]byte(word), 0)) }
	for _, s := range file.Sections {
		if s.Type == "proxy" {
			continue
		}
		add(s.Type)
		add(s.Name)
		for _, o := range s.Options {
			add(o.Name)
			for _, v := range o.Values {
				add(v.Text)
			}
			add("")
		}
		add("")
	}
	return strconv.FormatUint(sum.Sum64(), 16)
}
