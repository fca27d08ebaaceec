package uci

import (
	"bytes"
	"os"
	"strconv"
	"strings"

	goci "github.com/digineo/go-uci"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/message"
)

// Limits of what go-uci reads at once. It searches sections and options one after the other, so its time grows with
// their square.
const (
	chunkBytes    = 64 << 10
	chunkColumns  = 1024
	columnsAtOnce = 16 // in one section of go-uci's
)

// A column is an option's name, with its values from anywhere in the file: one value for go-uci, which takes much
// longer for a statement than for a long value.
type column struct {
	name   string
	text   []byte
	values []*Value
}

// separator precedes each value of a column. Values have it only encoded.
const separator = '\t'

// readBack writes the file's options in go-uci's subset and replaces each value by what go-uci reads, a chunk at a
// time. If a value is like the one of that option before it, as many are, it is read only once.
func readBack(file *File) error {
	r, err := newReader()
	if err != nil {
		return message.New("no room to read the configuration: %v", err)
	}
	defer r.file.Close()
	for i := range file.Sections {
		for j := range file.Sections[i].Options {
			option := &file.Sections[i].Options[j]
			for k := range option.Values {
				if r.size > chunkBytes || len(r.columns) == chunkColumns {
					if err := r.flush(); err != nil {
						return err
					}
				}
				r.add(option.Name, &option.Values[k])
			}
		}
	}
	return r.flush()
}

// reader collects columns into a chunk.
type reader struct {
	file    *os.File // in memory; go-uci reads only files
	columns []*column
	named   map[string]*column
	size    int
}

func newReader() (*reader, error) {
	fd, err := unix.MemfdCreate("ds4relay", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate("ds4relay", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, err
	}
	return &reader{file: os.NewFile(uintptr(fd), "ds4relay"), named: map[string]*column{}}, nil
}

func (r *reader) add(option string, value *Value) {
	c := r.named[option]
	if c == nil {
		c = &column{name: option}
		r.named[option], r.columns = c, append(r.columns, c)
	}
	if n := len(c.values); n > 0 && c.values[n-1].Text == value.Text {
		return
	}
	before := len(c.text)
	c.text, c.values = encode(append(c.text, separator), value.Text), append(c.values, value)
	r.size += len(c.text) - before
}

// flush passes the collected columns to go-uci.
func (r *reader) flush() error {
	if len(r.columns) == 0 {
		return nil
	}
	if err := r.file.Truncate(0); err != nil {
		return err
	}
	if _, err := r.file.WriteAt(rewrite(r.columns), 0); err != nil {
		return message.New("no room to read the configuration: %v", err)
	}
	name := strconv.Itoa(int(r.file.Fd()))
	tree := goci.NewTree("/proc/self/fd")
	if err := tree.LoadConfig(name, false); err != nil {
		return message.New("go-uci: %v", err)
	}
	for i, c := range r.columns {
		text := ""
		if values, _ := tree.Get(name, sectionName(i), c.name); len(values) > 0 {
			text = values[0]
		}
		for _, value := range c.values {
			var ok bool
			if text, ok = strings.CutPrefix(text, string(separator)); !ok {
				return message.New("line %d: go-uci has fewer values of %s than the file", value.Line, c.name)
			}
			end := strings.IndexByte(text, separator)
			if end < 0 {
				end = len(text)
			}
			read, err := decode(text[:end])
			if err != nil {
				return message.New("line %d: %v", value.Line, err)
			}
			if value.Text != read { // else keep the file's string, so that memory holds one copy
				value.Text = read
			}
			text = text[end:]
		}
	}
	r.columns, r.named, r.size = nil, map[string]*column{}, 0
	return nil
}

func sectionName(column int) string { return "s" + strconv.Itoa(column/columnsAtOnce) }

// rewrite writes a file in go-uci's subset: one-line values in single quotes, without quotes and backslashes. The
// original sections are not needed.
func rewrite(columns []*column) []byte {
	var b bytes.Buffer
	for i, c := range columns {
		if i%columnsAtOnce == 0 {
			b.WriteString("config section '" + sectionName(i) + "'\n")
		}
		b.WriteString("\toption " + c.name + " '")
		b.Write(c.text)
		b.WriteString("'\n")
	}
	return b.Bytes()
}

// encode appends a value's text, with %XX for characters that go-uci does not accept.
func encode(b []byte, text string) []byte {
	const hex = "0123456789abcdef"
	for i := range len(text) {
		if c := text[i]; c < ' ' || c == '\'' || c == '\\' || c == '%' || c >= 0x7f {
			b = append(b, '%', hex[c>>4], hex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return b
}

func decode(text string) (string, error) {
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
			return "", message.New("go-uci returned %q", text)
		}
		c, err := strconv.ParseUint(text[i+1:i+3], 16, 8)
		if err != nil {
			return "", message.New("go-uci returned %q", text)
		}
		b.WriteByte(byte(c))
		i += 2
	}
	return b.String(), nil
}
