//go:build !openwrt

package debian

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// InterfacesPath is ifupdown's configuration. We only read it.
const InterfacesPath = "/etc/network/interfaces"

// Line is a line of somebody else's file, including continuation lines (backslash).
type Line struct {
	File   string
	Number int
	Text   string // without indentation
}

// Where returns FILE:LINE for messages.
func (l Line) Where() string { return fmt.Sprintf("%s:%d", l.File, l.Number) }

// Words returns the line's words.
func (l Line) Words() []string { return strings.Fields(l.Text) }

// Stanza is an `iface` of ifupdown with its options.
type Stanza struct {
	Line
	Name    string
	Options []Line
}

// Option returns the words after the first option of that name.
func (s Stanza) Option(name string) []string {
	for _, line := range s.Options {
		if words := line.Words(); words[0] == name {
			return words[1:]
		}
	}
	return nil
}

// maxSources limits the number of sourced files, which may source each other.
const maxSources = 100

// Interfaces reads the stanzas of path and of the files that it sources (interfaces(5)). A missing file has none.
func Interfaces(path string) ([]Stanza, error) {
	r := &interfacesReader{left: maxSources}
	if err := r.file(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return r.stanzas, nil
}

type interfacesReader struct {
	stanzas []Stanza
	open    bool // the next lines belong to the last stanza
	left    int
}

// directoryName matches the file names that source-directory accepts (run-parts(8)).
var directoryName = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)

func (r *interfacesReader) file(path string) error {
	if r.left--; r.left < 0 {
		return fmt.Errorf("%s: too many files source each other", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	r.open = false
	for _, line := range logicalLines(path, string(data)) {
		words := line.Words()
		switch {
		case words[0] == "iface" && len(words) > 1:
			r.stanzas, r.open = append(r.stanzas, Stanza{Line: line, Name: words[1]}), true
		case words[0] == "source" && len(words) > 1, words[0] == "source-directory" && len(words) > 1:
			if err := r.source(filepath.Dir(path), words[1], words[0] == "source-directory"); err != nil {
				return err
			}
			r.open = false
		case words[0] == "auto", words[0] == "mapping", strings.HasPrefix(words[0], "allow-"),
			strings.HasPrefix(words[0], "no-"), words[0] == "rename":
			r.open = false
		case r.open:
			last := &r.stanzas[len(r.stanzas)-1]
			last.Options = append(last.Options, line)
		}
	}
	return nil
}

func (r *interfacesReader) source(dir, pattern string, directory bool) error {
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(dir, pattern)
	}
	if directory {
		pattern = filepath.Join(pattern, "*")
	}
	paths, err := filepath.Glob(pattern)
	if err != nil {
		return fmt.Errorf("source %s: %w", pattern, err)
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || directory &&
			!directoryName.MatchString(filepath.Base(path)) {
			continue
		}
		if err := r.file(path); err != nil {
			return err
		}
	}
	return nil
}

// logicalLines returns the lines of a text without comments and empty lines; a backslash at the end continues a line.
func logicalLines(path, text string) []Line {
	var lines []Line
	for number, raw := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(raw)
		if last := len(lines) - 1; last >= 0 {
			if start, goesOn := strings.CutSuffix(lines[last].Text, "\\"); goesOn {
				lines[last].Text = start + trimmed
				continue
			}
		}
		if trimmed != "" && !strings.HasPrefix(trimmed, "#") {
			lines = append(lines, Line{path, number + 1, trimmed})
		}
	}
	return slices.DeleteFunc(lines, func(l Line) bool { return len(l.Words()) == 0 })
}

// DeviceOf returns the interface whose stanza has the address, or "".
func DeviceOf(stanzas []Stanza, address string) string {
	for _, s := range stanzas {
		for _, line := range s.Options {
			words := line.Words()
			if len(words) == 2 && words[0] == "address" {
				if own, _, _ := strings.Cut(words[1], "/"); own == address {
					return s.Name
				}
			}
		}
	}
	return ""
}
