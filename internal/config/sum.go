package config

import "github.com/ds4relay/ds4relay/internal/uci"

// sumOf returns the checksum of all sections but those of proxies, which are not the kernel's matter. It is FNV-1a,
// which tells an edited file from the one before, and keeps nobody from making equal ones; it is never 0.
func sumOf(file *uci.File) uint64 {
	sum := uint64(noSum)
	add := func(word string) { sum = added(sum, word) }
	for i := range file.Sections {
		s := &file.Sections[i]
		if s.Type == "proxy" {
			continue
		}
		add(s.Type)
		add(s.Name)
		for j := range s.Options {
			add(s.Options[j].Name)
			for _, v := range s.Options[j].Values {
				add(v.Text)
			}
			add("")
		}
		add("")
	}
	return max(sum, 1)
}

// Checksum tells texts from others, as the one of a file does.
func Checksum(texts ...string) uint64 {
	sum := uint64(noSum)
	for _, text := range texts {
		sum = added(sum, text)
	}
	return sum
}

// noSum is the checksum of nothing.
const noSum = 14695981039346656037

// added is a checksum that goes on with one more word.
func added(sum uint64, word string) uint64 {
	for i := range len(word) {
		sum = (sum ^ uint64(word[i])) * 1099511628211
	}
	return sum * 1099511628211 // a zero byte at the end
}

// told adds to the lower half of the checksum what a home has told.
func (c *Config) told(what string) {
	const lower = 1<<32 - 1
	c.Sum = c.Sum&^lower | added(c.Sum, what)&lower
}

// SameFile reports whether two checksums are of the same file, whatever homes have told.
func SameFile(a, b uint64) bool { return a>>32 == b>>32 }
