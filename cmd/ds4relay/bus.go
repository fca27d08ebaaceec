package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/plain"
)

// output is what a command prints.
func (a *app) output(command ...string) (string, error) {
	out, problems := &answer{most: a.most}, &answer{most: a.most / 8}
	inner := *a
	inner.stdout, inner.stderr = plain.Writer{To: out}, plain.Writer{To: problems}
	err := inner.dispatch(append([]string{"-c", a.path, "--run", a.run}, command...))
	var code exitCode
	switch {
	case errors.As(err, &code) && code != exitDiffers && code != exitSilent: // what is wrong is printed
		return "", message.Plain(strings.TrimSpace(problems.String()))
	case err != nil && code == 0:
		return "", err
	case out.more:
		return "", message.New("the answer is longer than %d bytes; type the command instead: ds4relay %s", a.most,
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
	Version   int                  `json:"version"`
	Sections  []config.SectionSpec `json:"sections"`
	Protocols []config.Protocol    `json:"protocols"`
	Role      config.Role          `json:"role"` // default of `option role`
}

// checked is the answer of the method check.
type checked struct {
	Version  int              `json:"version"`
	OK       bool             `json:"ok"`
	Errors   []config.Problem `json:"errors"`
	Warnings []config.Problem `json:"warnings"`
}

// checkText checks a configuration that is not saved yet, or the saved one if text is empty.
func (a *app) checkText(text string) (any, error) {
	var warnings config.Problems
	var err error
	if text != "" {
		_, warnings, err = config.Parse(a.path, []byte(text), a.defaults())
	} else {
		_, warnings, err = config.Load(a.path, a.defaults())
	}
	var problems config.Problems
	if err != nil && !errors.As(err, &problems) {
		return nil, err
	}
	return checked{Version: message.AnswersVersion, OK: err == nil, Errors: a.shown(problems),
		Warnings: a.shown(warnings)}, nil
}

// shown are the problems as they are answered: of the file that the user knows.
func (a *app) shown(problems config.Problems) []config.Problem {
	shown := problems.Bounded()
	for i := range shown {
		shown[i].File = a.path
	}
	return shown
}

func (a *app) printJSON(value any) error {
	encoder := json.NewEncoder(a.stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}
