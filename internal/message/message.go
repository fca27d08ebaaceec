// Package message has what the program tells people: a code with arguments. English is made of it here, other languages
// by who shows it (LuCI, by its catalogue).
package message

import (
	"errors"
	"fmt"
	"strings"
)

// AnswersVersion counts the changes of the answers of check, doctor and the buses after which a program that reads them
// has to be changed; docs/answers.md describes them.
const AnswersVersion = 1

// Text is a sentence, or a part of one. nil is none: its English is "".
type Text struct {
	// Code is the English sentence as a format of package fmt, as a msgid of gettext is. Its verbs are %s, %v, %d
	// and %q.
	Code string `json:"code"`
	// Args are strings, integers and Texts.
	Args []any `json:"args,omitempty"`

	errs []error // those of the arguments
}

// New makes a Text of strings, integers and Texts. Errors and Stringers among the arguments become Texts or strings;
// errors.Is and errors.As find the errors nevertheless.
func New(code string, args ...any) *Text {
	if false {
		_ = fmt.Sprintf(code, args...) // so that go vet checks the arguments of New, and of what calls it
	}
	t := &Text{Code: code}
	if len(args) > 0 {
		t.Args = make([]any, len(args))
	}
	for i, arg := range args {
		switch a := arg.(type) {
		case *Text:
			if a != nil {
				t.errs = append(t.errs, a)
			}
		case error:
			t.errs = append(t.errs, a)
			if text := Of(a); text.Code != "%s" {
				arg = text
			} else {
				arg = a.Error()
			}
		case fmt.Stringer:
			arg = a.String()
		}
		t.Args[i] = arg
	}
	return t
}

// Plain is text without a code: what another program says, a command, a name.
func Plain(text string) *Text { return &Text{Code: "%s", Args: []any{text}} }

// Error is the Text in English: every Text can be an error.
func (t *Text) Error() string {
	if t == nil {
		return ""
	}
	return fmt.Sprintf(t.Code, t.Args...)
}

// Unwrap is for errors.Is and errors.As: the errors among the arguments.
func (t *Text) Unwrap() []error {
	if t == nil {
		return nil
	}
	return t.errs
}

// Is tells whether another error is a Text with the same code.
func (t *Text) Is(other error) bool {
	text, ok := other.(*Text)
	return ok && t != nil && text != nil && text.Code == t.Code
}

// Coded is an error, or something else to be told, that is more than a Text.
type Coded interface {
	AsText() *Text
}

// Of makes a Text of an error: the one that it is, or one without a code of its own. Of errors.Join it has a line for
// each.
func Of(err error) *Text {
	switch err := err.(type) {
	case *Text:
		return err
	case Coded:
		return err.AsText()
	}
	return Join("\n", Lines(err)...)
}

// joined are the errors that errors.Join has made one of.
func joined(err error) []error {
	list, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	parts := list.Unwrap()
	if len(parts) == 0 || errors.Join(parts...).Error() != err.Error() { // fmt.Errorf has such an Unwrap too
		return nil
	}
	return parts
}

// Join makes one Text of several, as strings.Join does. nil is left out.
func Join(separator string, texts ...*Text) *Text {
	joined := &Text{}
	for _, t := range texts {
		if t == nil {
			continue
		}
		if joined.Args != nil {
			joined.Code += separator
		}
		joined.Code += "%s"
		joined.Args = append(joined.Args, t)
	}
	switch len(joined.Args) {
	case 0:
		return nil
	case 1:
		return joined.Args[0].(*Text)
	}
	return joined
}

// Lines are the Texts of an error, one for each line.
func Lines(err error) (lines []*Text) {
	if err == nil {
		return nil
	}
	for _, part := range joined(err) {
		lines = append(lines, Lines(part)...)
	}
	if lines != nil {
		return lines
	}
	english := err.Error()
	switch err.(type) {
	case *Text, Coded:
		if !strings.Contains(english, "\n") {
			return []*Text{Of(err)}
		}
	}
	for _, line := range strings.Split(english, "\n") {
		lines = append(lines, Plain(line))
	}
	return lines
}
