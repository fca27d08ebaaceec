package config

import (
	"fmt"
	"sort"
	"strings"

	"github.com/ds4relay/ds4relay/internal/message"
)

// A Problem is one mistake in the file, or one warning about it.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Section string `json:"section,omitempty"` // as `relay "home"`
	Option  string `json:"option,omitempty"`
	Value   string `json:"value,omitempty"`
	Message string `json:"message"` // what is wrong, and what is allowed, in English
	Code    string `json:"code"`    // of the message.Text that it is made of
	Args    []any  `json:"args,omitempty"`
}

func newProblem(file string, line int, section, option, value string, text *message.Text) Problem {
	return Problem{file, line, section, option, value, text.Error(), text.Code, text.Args}
}

// allowed is what an option takes, of the schema or of a part of it.
func allowed(code string) *message.Text { return &message.Text{Code: code} }

// Error writes it on one line: FILE:LINE: SECTION: option NAME "VALUE": MESSAGE.
func (p Problem) Error() string { return p.where() + p.Message }

// AsText is the same as a Text.
func (p *Problem) AsText() *message.Text {
	return message.New("%s%s", p.where(), &message.Text{Code: p.Code, Args: p.Args})
}

// where is FILE:LINE: SECTION: option NAME "VALUE": and a blank.
func (p *Problem) where() string {
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
	return b.String()
}

// Problems are a file's mistakes, sorted by line: at most 100, and a last one with the number of the others.
type Problems []Problem

// Bounded are the problems for an answer: long values are cut, as they are in messages already.
func (p Problems) Bounded() []Problem {
	bounded := make([]Problem, len(p))
	for i, problem := range p {
		problem.Value = cut(problem.Value, maxText)
		bounded[i] = problem
	}
	return bounded
}

// Count is how many there are, "over 100" where not all are listed.
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
	maxText     = 300 // bytes of a value in an answer
)

// short is the beginning of a long text.
func short(text string) string { return cut(text, maxShown) }

func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
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

// list are the problems by line; last speaks of those that it leaves out.
func (r *report) list(last *message.Text) Problems {
	if r.cut() == 0 {
		return r.kept
	}
	end := r.kept[len(r.kept)-1]
	return append(r.kept, newProblem(end.File, end.Line, "", "", "", last))
}
