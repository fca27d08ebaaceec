package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/ds4relay/ds4relay/internal/uci"
)

// section is a section as rpcd's uci object has it: its type and options, a list being a slice.
type section struct {
	name, typ string
	anonymous bool
	options   map[string]any
	order     []string // of options, as they were set
}

// store is one configuration file, and the changes that a session has not applied.
type store struct {
	path     string
	sections []*section
	changes  [][]string
	next     int // number of the next anonymous section
}

func (s *store) load() error {
	s.sections, s.changes = nil, nil
	file, err := uci.Load(s.path)
	if err != nil {
		return err
	}
	for _, raw := range file.Sections {
		sec := &section{name: raw.Name, typ: raw.Type, anonymous: raw.Anonymous, options: map[string]any{}}
		if raw.Anonymous {
			sec.name = s.anonymous()
		}
		for _, option := range raw.Options {
			var values []string
			for _, value := range option.Values {
				values = append(values, value.Text)
			}
			if option.List {
				sec.set(option.Name, values)
			} else {
				sec.set(option.Name, values[0])
			}
		}
		s.sections = append(s.sections, sec)
	}
	return nil
}

func (s *store) anonymous() string {
	s.next++
	return fmt.Sprintf("cfg%06x", s.next)
}

func (s *store) find(name string) *section {
	i := slices.IndexFunc(s.sections, func(sec *section) bool { return sec.name == name })
	if i < 0 {
		return nil
	}
	return s.sections[i]
}

func (sec *section) set(option string, value any) {
	if _, ok := sec.options[option]; !ok {
		sec.order = append(sec.order, option)
	}
	sec.options[option] = value
}

func (sec *section) unset(option string) {
	delete(sec.options, option)
	sec.order = slices.DeleteFunc(sec.order, func(name string) bool { return name == option })
}

// values is the answer of uci get.
func (s *store) values() map[string]any {
	answer := map[string]any{}
	for i, sec := range s.sections {
		object := map[string]any{".anonymous": sec.anonymous, ".type": sec.typ, ".name": sec.name, ".index": i}
		maps.Copy(object, sec.options)
		answer[sec.name] = object
	}
	return answer
}

// text is the file as libuci writes it.
func (s *store) text() string {
	var b strings.Builder
	quote := func(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
	for _, sec := range s.sections {
		b.WriteString("\nconfig " + sec.typ)
		if !sec.anonymous {
			b.WriteString(" " + quote(sec.name))
		}
		b.WriteString("\n")
		for _, name := range sec.order {
			switch value := sec.options[name].(type) {
			case string:
				b.WriteString("\toption " + name + " " + quote(value) + "\n")
			case []string:
				for _, item := range value {
					b.WriteString("\tlist " + name + " " + quote(item) + "\n")
				}
			}
		}
	}
	return b.String()
}

// commit writes the file.
func (s *store) commit() error {
	if err := os.WriteFile(s.path, []byte(s.text()), 0o600); err != nil {
		return err
	}
	return s.load()
}

// setValues sets options of a section out of JSON; what is empty is deleted, as libuci does.
func (s *store) setValues(sec *section, values map[string]json.RawMessage) {
	for _, option := range slices.Sorted(maps.Keys(values)) {
		var list []string
		if json.Unmarshal(values[option], &list) == nil && list != nil {
			sec.set(option, list)
			s.changes = append(s.changes, []string{"set", sec.name, option, strings.Join(list, " ")})
			continue
		}
		var text any
		if json.Unmarshal(values[option], &text) != nil || text == nil || text == "" {
			sec.unset(option)
			continue
		}
		sec.set(option, fmt.Sprint(text))
		s.changes = append(s.changes, []string{"set", sec.name, option, fmt.Sprint(text)})
	}
}

// call is the object uci on ubus for this configuration: a status and an answer.
func (s *store) call(method string, arguments json.RawMessage) (int, any) {
	var a struct {
		Section  string                     `json:"section"`
		Sections []string                   `json:"sections"`
		Type     string                     `json:"type"`
		Name     string                     `json:"name"`
		Values   map[string]json.RawMessage `json:"values"`
		Option   string                     `json:"option"`
		Options  []string                   `json:"options"`
	}
	if err := json.Unmarshal(arguments, &a); err != nil {
		return 2, nil
	}
	switch method {
	case "get":
		return 0, map[string]any{"values": s.values()}
	case "add":
		sec := &section{name: a.Name, typ: a.Type, anonymous: a.Name == "", options: map[string]any{}}
		if sec.anonymous {
			sec.name = s.anonymous()
		}
		s.sections = append(s.sections, sec)
		s.changes = append(s.changes, []string{"add", sec.name, sec.typ})
		s.setValues(sec, a.Values)
		return 0, map[string]any{"section": sec.name}
	case "set":
		sec := s.find(a.Section)
		if sec == nil {
			return 4, nil
		}
		s.setValues(sec, a.Values)
		return 0, nil
	case "delete":
		sec := s.find(a.Section)
		if sec == nil {
			return 4, nil
		}
		if a.Option != "" {
			a.Options = append(a.Options, a.Option)
		}
		for _, option := range a.Options {
			sec.unset(option)
			s.changes = append(s.changes, []string{"remove", sec.name, option})
		}
		if a.Options == nil {
			s.sections = slices.DeleteFunc(s.sections, func(other *section) bool { return other == sec })
			s.changes = append(s.changes, []string{"remove", sec.name})
		}
		return 0, nil
	case "order":
		position := func(sec *section) int { return slices.Index(a.Sections, sec.name) }
		slices.SortStableFunc(s.sections, func(x, y *section) int { return position(x) - position(y) })
		s.changes = append(s.changes, []string{"order", "", "0"})
		return 0, nil
	}
	return 3, nil
}
