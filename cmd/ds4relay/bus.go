package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/plain"
)

// output runs a command and returns its output; the text on standard error becomes the error.
func (a *app) output(command ...string) (string, error) {
	out, problems := &answer{most: a.most}, &answer{most: a.most / 8}
	inner := *a
	inner.stdout, inner.stderr = plain.Writer{To: out}, plain.Writer{To: problems}
	code := inner.main(append([]string{"-c", a.path, "--run", a.run}, command...))
	switch {
	case code != 0 && code != exitDiffers:
		return "", errors.New(strings.TrimSpace(problems.String()))
	case out.more:
		return "", fmt.Errorf("the answer is longer than %d bytes; type the command instead: ds4relay %s", a.most,
			command[0])
	}
	return out.String(), nil
}

// answer keeps the beginning of what is written, and whether there was more.
type answer struct {
	bytes.Buffer
	most int
	more bool
}

func (w *answer) Write(p []byte) (int, error) {
	room := w.most - w.Len()
	if len(p) > room {
		w.more = true
	}
	w.Buffer.Write(p[:min(len(p), max(room, 0))])
	return len(p), nil
}

func (a *app) object(command ...string) (any, error) {
	text, err := a.output(command...)
	return json.RawMessage(text), err
}

// schema is the answer of the method schema: what a form needs.
type schema struct {
	Sections  []config.SectionSpec `json:"sections"`
	Protocols []config.Protocol    `json:"protocols"`
	Role      config.Role          `json:"role"` // default of `option role`
}

// checked is the answer of the method check.
type checked struct {
	OK       bool             `json:"ok"`
	Errors   []config.Problem `json:"errors"`
	Warnings []config.Problem `json:"warnings"`
}

// checkText checks a configuration that is not saved yet, or the saved one if text is empty.
func (a *app) checkText(text string) (any, error) {
	var warnings config.Problems
	var err error
	if text != "" {
		_, warnings, err = config.Parse(a.path, []byte(text), here().DefaultRole())
	} else {
		_, warnings, err = config.Load(a.path, here().DefaultRole())
	}
	var problems config.Problems
	if err != nil && !errors.As(err, &problems) {
		return nil, err
	}
	return checked{OK: err == nil, Errors: a.shown(problems), Warnings: a.shown(warnings)}, nil
}

// maxText limits a value or a message in an answer, in bytes.
const maxText = 300

// shown returns the problems for an answer: with the path that the user knows.
func (a *app) shown(problems []config.Problem) []config.Problem {
	shown := []config.Problem{}
	for _, p := range problems {
		p.File, p.Value, p.Message = a.path, bounded(p.Value), bounded(p.Message)
		shown = append(shown, p)
	}
	return shown
}

func bounded(text string) string {
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText], "") + "…"
}

func (a *app) printJSON(value any) error {
	encoder := json.NewEncoder(a.stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}
