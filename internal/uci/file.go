package uci

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxSize bounds a configuration file in bytes, maxErrors how many mistakes of one file are reported.
const (
	maxSize   = 4 << 20
	maxErrors = 50
)

// File is a UCI configuration file.
type File struct {
	Path     string
	Sections []Section
}

// Section is a `config` statement with what follows it. Sections of the same name are one.
type Section struct {
	Type, Name string
	Anonymous  bool // Name is "" then
	Line       int
	Options    []Option
}

// Option is an `option`, or the `list` statements of one name.
type Option struct {
	Name   string
	List   bool
	Values []Value // one for an option
	Line   int     // of the first statement that still counts
}

// Value is one value of an option.
type Value struct {
	Text string
	Line int
}

// A SyntaxError is a place that libuci would not read, or would read other than it looks.
type SyntaxError struct {
	Path string
	Line int
	Msg  string
}

// Error writes it as PATH:LINE: MESSAGE.
func (e *SyntaxError) Error() string { return fmt.Sprintf("%s:%d: %s", e.Path, e.Line, e.Msg) }

// Errors are all mistakes of a file, by line; at most 50.
type Errors []*SyntaxError

// Error has a line for each.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Load reads the file at path, which may be 4 MiB long. Mistakes in it come as Errors.
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
	data := bytes.NewBuffer(make([]byte, 0, min(max(info.Size(), 0), maxSize)+bytes.MinRead))
	if _, err := data.ReadFrom(io.LimitReader(f, maxSize+1)); err != nil {
		return nil, err
	}
	if data.Len() > maxSize {
		return nil, fmt.Errorf("%s: longer than 4 MiB; that is no configuration of ds4relay", path)
	}
	return Parse(path, data.Bytes())
}

// Parse reads data; path is for messages. Mistakes come as Errors.
func Parse(path string, data []byte) (*File, error) {
	p := &parser{path: path, lexer: lexer{data: data, line: 1}, names: map[string]int{}}
	p.parse()
	if len(p.errors) > 0 {
		return nil, p.errors
	}
	file := &File{Path: path, Sections: p.sections}
	if err := readBack(file); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return file, nil
}
