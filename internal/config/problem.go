package config

import (
	"fmt"
	"strings"
)

// A Problem is one mistake in the file, or one warning about it.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Section string `json:"section,omitempty"` // as `relay "home"`
	Option  string `json:"option,omitempty"`
	Value   string `json:"value,omitempty"`
	Message string `json:"message"` // what is wrong, and what is allowed
}

// Error writes it on one line: FILE:LINE: SECTION: option NAME "VALUE": MESSAGE.
func (p Problem) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d: ", p.File, p.Line)
	if p.Section != "" {
		b.WriteString(p.Section + ": ")
	}
	if p.Option != "" {
		b.WriteString("option " + p.Option)
		if p.Value != "" {
			fmt.Fprintf(&b, " %q", p.Value)
		}
		b.WriteString(": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// Problems are all mistakes of a file, by line.
type Problems []Problem

// Error has a line for each.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].Error()
	}
	return strings.Join(lines, "\n")
}
