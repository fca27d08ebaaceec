package pairing

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/message"
)

// answer is what a VPS says.
type answer struct {
	Version  int       `json:"version"` // 1
	State    string    `json:"state"`   // ok or refused
	Problems []problem `json:"problems"`
}

type problem struct {
	Code    string `json:"code"`
	Args    []any  `json:"args"`
	Section string `json:"section"`
	Option  string `json:"option"`
	Value   string `json:"value"`
}

// Bounds of an answer. The VPS is trusted with what comes through its tunnel, not with this end's memory or terminal.
const (
	maxProblems = 100
	maxVerbs    = 20
	maxDepth    = 4
	maxWord     = 200 // bytes
)

// errAnswer is the error about an answer of another program, or of one that is too long.
var errAnswer = message.New("the answer is none of ds4relay")

// Read reads the VPS's answer: its problems, none if it has taken what it was told. relay is the one that the problems
// are about; nil if they are about no section.
func Read(text string, relay *config.Relay) ([]kernel.PushProblem, error) {
	var a answer
	err := json.Unmarshal([]byte(text), &a)
	switch {
	case err != nil || a.Version != 1 || a.State != "ok" && a.State != "refused":
		shown := escaped(strings.Join(strings.Fields(text), " "), maxWord)
		return nil, message.New("%v: %s", errAnswer, shown)
	case a.State == "ok":
		return nil, nil
	}
	problems := []kernel.PushProblem{}
	for _, p := range a.Problems[:min(len(a.Problems), maxProblems)] {
		t := told(p.Code, p.Args, 0)
		problems = append(problems, kernel.PushProblem{Section: ownSection(escaped(p.Section, maxWord), relay),
			Option: escaped(p.Option, maxWord), Value: escaped(p.Value, maxWord), Message: t.Error(), Code: t.Code,
			Args: t.Args})
	}
	if len(problems) == 0 {
		text := message.New("the VPS gives no reason")
		problems = append(problems, kernel.PushProblem{Message: text.Error(), Code: text.Code})
	}
	return problems, nil
}

// ownSection puts the name that a section has at this end into `forward "web"`.
func ownSection(section string, relay *config.Relay) string {
	name, ok := strings.CutPrefix(section, `forward "`)
	if !ok || relay == nil {
		return section
	}
	return `forward "` + config.PushedSection(relay, strings.TrimSuffix(name, `"`)) + `"`
}

// told makes a Text of a code and arguments from elsewhere. What is no code of package message becomes plain words.
func told(code string, args []any, depth int) *message.Text {
	if code = escaped(code, 1000); !isFormat(code, len(args)) || depth > maxDepth {
		return message.Plain(code)
	}
	t := &message.Text{Code: code}
	for _, arg := range args {
		switch a := arg.(type) {
		case float64:
			arg = int64(a)
		case map[string]any:
			code, _ := a["code"].(string)
			list, _ := a["args"].([]any)
			arg = told(code, list, depth+1)
		case string:
			arg = escaped(a, maxWord)
		default:
			data, _ := json.Marshal(a)
			arg = escaped(string(bytes.TrimSpace(data)), maxWord)
		}
		t.Args = append(t.Args, arg)
	}
	return t
}

// isFormat reports whether a format has one plain verb for each argument, and no widths: those take memory.
func isFormat(code string, args int) bool {
	verbs := 0
	for i := 0; i < len(code); i++ {
		if code[i] != '%' {
			continue
		}
		if i++; i == len(code) || !strings.ContainsRune("svdq%", rune(code[i])) {
			return false
		}
		if code[i] != '%' {
			verbs++
		}
	}
	return verbs == args && verbs <= maxVerbs
}
