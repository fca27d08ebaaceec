package config

import (
	"fmt"
	"sort"
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
			fmt.Fprintf(&b, " %q", short(p.Value))
		}
		b.WriteString(": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// Problems are a file's mistakes, sorted by line: at most 100, and a last one with the number of the others.
type Problems []Problem

// Count returns their number, or "over 100" if not all are listed.
func (p Problems) Count() string {
	if len(p) > maxProblems {
		return fmt.Sprint("over ", maxProblems)
	}
	return fmt.Sprint(len(p))
}

// Error returns one line for each.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Limits of what is reported.
const (
	maxProblems = 100
	maxShown    = 100 // bytes of a value or a name
	maxListed   = 8   // of what a message lists
)

// short cuts a long text.
func short(text string) string {
	if len(text) <= maxShown {
		return text
	}
	return strings.ToValidUTF8(text[:maxShown], "") + "…"
}

// listed joins the first items of a list, and adds the total if there are more than most.
func listed[T any](list []T, most int, text func(T) string) string {
	var b strings.Builder
	for i, one := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		if i == most {
			fmt.Fprintf(&b, "… (%d)", len(list))
			break
		}
		b.WriteString(text(one))
	}
	return b.String()
}

// report collects problems: the first ones by line, and the number of the others.
type report struct {
	kept Problems
	more int
}

func (r *report) add(p Problem) {
	if r.kept = append(r.kept, p); len(r.kept) == 2*maxProblems {
		r.cut()
	}
}

// cut keeps the first problems by line, and returns the number of the others.
func (r *report) cut() int {
	sort.SliceStable(r.kept, func(i, j int) bool { return r.kept[i].Line < r.kept[j].Line })
	if n := len(r.kept) - maxProblems; n > 0 {
		clear(r.kept[maxProblems:])
		r.kept = r.kept[:maxProblems]
		r.more += n
	}
	return r.more
}

// list returns the problems by line; last is the message about those left out.
func (r *report) list(last string) Problems {
	if r.cut() == 0 {
		return r.kept
	}
	end := r.kept[len(r.kept)-1]
	return append(r.kept, Problem{File: end.File, Line: end.Line, Message: last})
}
