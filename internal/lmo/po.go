package lmo

import (
	"fmt"
	"strconv"
	"strings"
)

// A message is an entry of a .po file. The file's header is the message without an id.
type message struct {
	context, id, plural *string
	texts               []string // one, or one per plural form
}

// parse reads a .po file. Escapes other than \" and \\ stay as they are: LuCI resolves them when it sends the texts.
func parse(po string) ([]message, error) {
	var messages []message
	var m message
	var target *string
	number := 0
	finish := func() {
		if len(m.texts) > 0 {
			messages = append(messages, m)
		}
		m, target = message{}, nil
	}
	for line := range strings.Lines(po) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		word, rest := "", line
		if line[0] != '"' {
			word, rest, _ = strings.Cut(line, " ")
		}
		switch {
		case word == "msgctxt":
			finish()
			m.context = new(string)
			target = m.context
		case word == "msgid":
			if len(m.texts) > 0 {
				finish()
			}
			m.id = new(string)
			target = m.id
		case word == "msgid_plural":
			m.plural = new(string)
			target = m.plural
		case strings.HasPrefix(word, "msgstr"):
			form := 0
			if word != "msgstr" {
				var err error
				if form, err = strconv.Atoi(strings.Trim(word[len("msgstr"):], "[]")); err != nil ||
					form != len(m.texts) {
					return nil, fmt.Errorf("line %d: %q: the plural forms are numbered from 0 on", number, word)
				}
			}
			m.texts = append(m.texts, "")
			target = &m.texts[form]
		case word != "":
			return nil, fmt.Errorf("line %d: %q is no keyword of a .po file", number, word)
		}
		text, err := unquote(strings.TrimSpace(rest))
		if err != nil || target == nil {
			return nil, fmt.Errorf("line %d: there should be a text in quotation marks, after a keyword", number)
		}
		*target += text
	}
	finish()
	return messages, nil
}

func unquote(quoted string) (string, error) {
	if len(quoted) < 2 || quoted[0] != '"' || quoted[len(quoted)-1] != '"' {
		return "", strconv.ErrSyntax
	}
	return strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(quoted[1 : len(quoted)-1]), nil
}
