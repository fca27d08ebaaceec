package uci

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/ds4relay/ds4relay/internal/message"
)

// Limits of a file. They are far above real configurations, and keep parsing fast and its memory small.
const (
	maxSize     = 4 << 20  // bytes
	maxValue    = 64 << 10 // bytes of one word
	maxSections = 25000
	maxOptions  = 200    // of one section
	maxValues   = 5000   // of one list
	maxTotal    = 120000 // options and list values
)

// MaxErrors is how many mistakes of a file are reported. One more message says how many others there are.
const MaxErrors = 100

// File is a UCI configuration file.
type File struct {
	Path     string
	Sections []Section
}

// Section is a `config` statement with its options. Sections with the same name are merged.
type Section struct {
	Type, Name string
	Anonymous  bool // Name is ""
	Line       int
	Options    []Option
}

// Option is an `option`, or all `list` statements with the same name.
type Option struct {
	Name   string
	List   bool
	Values []Value // one for an option
	Line   int     // first statement that is in effect
}

// Value is one value of an option.
type Value struct {
	Text string
	Line int
}

// A SyntaxError is text that libuci would not read, or would read differently from what it looks like.
type SyntaxError struct {
	Path string
	Line int
	Text *message.Text
}

// Error writes it as PATH:LINE: MESSAGE.
func (e *SyntaxError) Error() string { return fmt.Sprintf("%s:%d: %v", e.Path, e.Line, e.Text) }

// Errors are the first mistakes of a file, sorted by line, and how many more there are.
type Errors []*SyntaxError

// Error returns one line per mistake.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Load reads the file at path, of at most 4 MiB. Mistakes in it are returned as Errors.
func Load(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var text strings.Builder
	text.Grow(int(min(max(info.Size(), 0), maxSize) + 1))
	if _, err := io.CopyBuffer(&text, io.LimitReader(f, maxSize+1), make([]byte, 16<<10)); err != nil {
		return nil, err
	}
	return parse(path, text.String())
}

// Parse parses data; path is for messages. Mistakes are returned as Errors.
func Parse(path string, data []byte) (*File, error) { return parse(path, string(data)) }

// byteOrderMark begins a file that some editors have saved.
const byteOrderMark = "\ufeff"

func parse(path, text string) (*File, error) {
	if len(text) > maxSize {
		return nil, message.New("%s: longer than 4 MiB; that is no configuration of ds4relay", path)
	}
	text = strings.TrimPrefix(text, byteOrderMark)
	p := &parser{path: path, lexer: lexer{data: text, line: 1}}
	p.parse()
	if len(p.errors) > 0 {
		return nil, p.errors
	}
	file := &File{Path: path, Sections: p.sections}
	if err := readBack(file); err != nil {
		return nil, message.New("%s: %v", path, err)
	}
	return file, nil
}
