package uci

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"strings"

	goci "github.com/digineo/go-uci"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/message"
)

// Limits of what go-uci reads at once. It searches sections, options and list values one after the other, so its time
// grows with their square.
const (
	chunkSections = 64
	chunkBytes    = 64 << 10
	sectionPieces = 16
	pieceValues   = 8
	maxSeen       = 4096 // different values to remember
)

// A piece is a part of an option's values, as many as go-uci reads at once.
type piece struct {
	option *Option
	values []Value
}

// readBack writes the file's options in go-uci's subset and replaces each value by what go-uci reads, a chunk at a
// time. An option with the same value in many sections is read once.
func readBack(file *File) error {
	type key struct{ name, value string }
	seen := map[key]bool{}
	r, err := newReader()
	if err != nil {
		return message.New("no room to read the configuration: %v", err)
	}
	defer r.file.Close()
	for i := range file.Sections {
		r.open = false // options of different sections may share a name
		for j := range file.Sections[i].Options {
			option := &file.Sections[i].Options[j]
			if k := (key{option.Name, option.Values[0].Text}); len(option.Values) == 1 {
				if seen[k] {
					continue
				}
				if len(seen) < maxSeen {
					seen[k] = true
				}
			}
			for values := range slices.Chunk(option.Values, pieceValues) {
				if err := r.add(piece{option, values}); err != nil {
					return err
				}
			}
		}
	}
	return r.flush()
}

// reader collects pieces into a chunk.
type reader struct {
	file     *os.File // in memory; go-uci reads only files
	sections [][]piece
	open     bool // the last section has room
	size     int
}

func newReader() (*reader, error) {
	fd, err := unix.MemfdCreate("ds4relay", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate("ds4relay", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, err
	}
	return &reader{file: os.NewFile(uintptr(fd), "ds4relay")}, nil
}

func (r *reader) add(p piece) error {
	last := len(r.sections) - 1
	if !r.open || len(r.sections[last]) == sectionPieces ||
		r.sections[last][len(r.sections[last])-1].option == p.option {
		if len(r.sections) == chunkSections || r.size > chunkBytes {
			if err := r.flush(); err != nil {
				return err
			}
		}
		if n := len(r.sections); n < cap(r.sections) {
			r.sections = r.sections[:n+1]
			r.sections[n] = r.sections[n][:0]
		} else {
			r.sections = append(r.sections, nil)
		}
		last, r.open = len(r.sections)-1, true
	}
	r.sections[last] = append(r.sections[last], p)
	for _, v := range p.values {
		r.size += len(v.Text)
	}
	return nil
}

// flush passes the collected pieces to go-uci.
func (r *reader) flush() error {
	if len(r.sections) == 0 {
		return nil
	}
	if err := r.file.Truncate(0); err != nil {
		return err
	}
	if _, err := r.file.WriteAt(rewrite(r.sections), 0); err != nil {
		return message.New("no room to read the configuration: %v", err)
	}
	name := strconv.Itoa(int(r.file.Fd()))
	tree := goci.NewTree("/proc/self/fd")
	if err := tree.LoadConfig(name, false); err != nil {
		return message.New("go-uci: %v", err)
	}
	for i, pieces := range r.sections {
		for _, p := range pieces {
			values, _ := tree.Get(name, sectionName(i), p.option.Name)
			if len(values) != len(p.values) {
				return message.New("line %d: go-uci has %d values of %s, the file %d", p.option.Line, len(values),
					p.option.Name, len(p.values))
			}
			for k, value := range values {
				text, err := decode(value)
				if err != nil {
					return message.New("line %d: %v", p.option.Line, err)
				}
				if p.values[k].Text != text { // else keep the file's string, so that memory holds one copy
					p.values[k].Text = text
				}
			}
		}
	}
	r.sections, r.size, r.open = r.sections[:0], 0, false
	return nil
}

func sectionName(index int) string { return "s" + strconv.Itoa(index) }

// rewrite writes a file in go-uci's subset: one-line values in single quotes, without quotes and backslashes, all
// different within a list (go-uci drops duplicates). The original section names and types are not needed.
func rewrite(sections [][]piece) []byte {
	var b bytes.Buffer
	for i, pieces := range sections {
		b.WriteString("config section '" + sectionName(i) + "'\n")
		for _, p := range pieces {
			keyword := "\toption "
			if p.option.List {
				keyword = "\tlist "
			}
			for k, value := range p.values {
				b.WriteString(keyword)
				b.WriteString(p.option.Name)
				b.WriteString(" '")
				encode(&b, k, value.Text)
				b.WriteString("'\n")
			}
		}
	}
	return b.Bytes()
}

// encode writes a value as its number, a colon, and its text, with %XX for characters that go-uci does not accept.
func encode(b *bytes.Buffer, number int, text string) {
	const hex = "0123456789abcdef"
	b.WriteString(strconv.Itoa(number) + ":")
	for i := range len(text) {
		if c := text[i]; c < ' ' || c == '\'' || c == '\\' || c == '%' || c >= 0x7f {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		} else {
			b.WriteByte(c)
		}
	}
}

func decode(s string) (string, error) {
	_, text, _ := strings.Cut(s, ":")
	if !strings.Contains(text, "%") {
		return text, nil
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			b.WriteByte(text[i])
			continue
		}
		if i+2 >= len(text) {
			return "", message.New("go-uci returned %q", s)
		}
		c, err := strconv.ParseUint(text[i+1:i+3], 16, 8)
		if err != nil {
			return "", message.New("go-uci returned %q", s)
		}
		b.WriteByte(byte(c))
		i += 2
	}
	return b.String(), nil
}
