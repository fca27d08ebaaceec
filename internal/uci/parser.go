package uci

import (
	"errors"
	"slices"
	"sort"
	"strings"

	"github.com/ds4relay/ds4relay/internal/message"
)

// parser builds sections from statements like libuci's uci_parse_line in strict mode.
type parser struct {
	path string
	lexer
	sections []Section
	names    map[string]int // section name → index
	current  *Section       // new options go here
	usual    int            // options of the section before
	spare    []Value        // for options, in one piece for many
	total    int            // options and list values
	errors   Errors         // the first ones
	more     int            // number of further errors
	full     bool           // over a limit; the rest is not read
}

func (p *parser) fail(line int, code string, args ...any) { p.report(line, message.New(code, args...)) }

func (p *parser) report(line int, text *message.Text) {
	if len(p.errors) == MaxErrors {
		p.more++
		return
	}
	p.errors = append(p.errors, &SyntaxError{p.path, line, text})
}

// stop ends with a last error.
func (p *parser) stop(line int, code string, args ...any) {
	p.full = true
	p.fail(line, "%v; nothing behind it was read", message.New(code, args...))
}

// maxQuoted is how many bytes of a word a message shows.
const maxQuoted = 100

func short(word string) string {
	if len(word) <= maxQuoted {
		return word
	}
	return strings.ToValidUTF8(word[:maxQuoted], "") + "…"
}

func (p *parser) parse() {
	if i := strings.IndexByte(p.data, 0); i >= 0 {
		p.fail(1+strings.Count(p.data[:i], "\n"), "a byte of value 0; allowed is text")
		return
	}
	sections := min(strings.Count(p.data, "\nconfig "), maxSections) + 1
	p.sections, p.names = make([]Section, 0, sections), make(map[string]int, sections)
	for p.skipEmpty(); !p.end() && !p.full; p.skipEmpty() {
		line, pos := p.line, p.pos
		keyword := p.keyword()
		words, err := p.arguments()
		if err != nil {
			p.report(line, message.Of(err))
			if errors.Is(err, unclosed(0, 0)) {
				// What is wrong with the rest of the file is found by going on at the next line.
				p.line, p.pos = line, pos
				p.skipLine()
			}
			continue
		}
		p.statement(keyword, words, line)
	}
	sort.SliceStable(p.errors, func(i, j int) bool { return p.errors[i].Line < p.errors[j].Line })
	if p.more > 0 {
		p.errors = append(p.errors, &SyntaxError{p.path, p.errors[len(p.errors)-1].Line,
			message.New("%d more mistakes from here on", p.more)})
	}
}

func (p *parser) statement(keyword string, words []word, line int) {
	switch keyword {
	case "package", "p":
		if len(words) != 1 || !isName(words[0].text, true) {
			p.fail(line, "package takes one name out of a-z A-Z 0-9 _ -")
		}
	case "config", "c":
		p.section(words, line)
	case "option", "o":
		p.option(words, line, false)
	case "list", "l":
		p.option(words, line, true)
	default:
		p.fail(line, "unknown word %q; a line begins with config, option or list", short(keyword))
		if len(keyword) > 0 && keyword[0] == 'c' {
			p.current = nil
		}
	}
}

func isName(s string, hyphen bool) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && (c != '-' || !hyphen) {
			return false
		}
	}
	return s != ""
}

func (p *parser) section(words []word, line int) {
	if p.current != nil {
		p.usual = len(p.current.Options)
	}
	// Even if this statement is wrong, its options must not count as those of the previous section.
	p.current = &Section{}
	switch {
	case len(words) == 0 || words[0].text == "":
		p.fail(line, "config takes a type, as in: config relay 'home'")
		return
	case len(words) > 2:
		p.fail(line, "too many words after config; it takes a type and a name, as in: config relay 'home'")
		return
	}
	typ, name := words[0].text, ""
	for i := range len(typ) {
		if typ[i] < 33 || typ[i] > 126 {
			p.fail(line, "the section type %q has a character that is not allowed; letters, digits and _ are",
				short(typ))
			return
		}
	}
	if len(words) == 2 {
		name = words[1].text
	}
	if name != "" && !isName(name, false) {
		p.fail(line, "the section name %q has a character that is not allowed; letters, digits and _ are", short(name))
		return
	}
	if i, ok := p.names[name]; ok && name != "" {
		if p.sections[i].Type != typ {
			p.fail(line, "there is a section %q already, a %s (line %d); give this %s another name",
				short(name), short(p.sections[i].Type), p.sections[i].Line, short(typ))
			return
		}
		p.current = &p.sections[i]
		return
	}
	if len(p.sections) == maxSections {
		p.stop(line, "more than %d sections", maxSections)
		return
	}
	if name != "" {
		p.names[name] = len(p.sections)
	}
	p.sections = append(p.sections, Section{Type: typ, Name: name, Anonymous: name == "", Line: line})
	p.current = &p.sections[len(p.sections)-1]
}

func (p *parser) option(words []word, line int, list bool) {
	keyword := "option"
	if list {
		keyword = "list"
	}
	switch {
	case p.current == nil:
		p.fail(line, "%s before the first section; begin with a line such as: config relay 'home'", keyword)
		p.current = &Section{} // report this once
		return
	case len(words) == 0 || words[0].text == "":
		p.fail(line, "%s takes a name and a value, as in: %s ipaddr '198.51.100.144'", keyword, keyword)
		return
	case !isName(words[0].text, false):
		p.fail(line, "the option name %q has a character that is not allowed; letters, digits and _ are",
			short(words[0].text))
		return
	case len(words) > 2:
		p.fail(line, "too many words after %s %s; put a value with blanks into quotes", keyword, short(words[0].text))
		return
	}
	name, value := words[0].text, Value{Line: line}
	if len(words) == 2 {
		value = Value{Text: words[1].text, Line: words[1].line}
	}
	if p.total++; p.total > maxTotal {
		p.stop(line, "more than %d options and values of lists", maxTotal)
		return
	}
	i := slices.IndexFunc(p.current.Options, func(o Option) bool { return o.Name == name })
	switch {
	case !list && value.Text == "": // libuci: removes the option, or leaves it unset
	case i < 0 && len(p.current.Options) == maxOptions:
		p.stop(line, "more than %d options in one section", maxOptions)
	case i < 0:
		if p.current.Options == nil {
			p.current.Options = make([]Option, 0, min(max(p.usual, 1), maxUsual))
		}
		p.current.Options = append(p.current.Options,
			Option{Name: name, List: list, Values: p.only(value), Line: line})
	case list && len(p.current.Options[i].Values) == maxValues:
		p.stop(line, "more than %d values of one list", maxValues)
	case list:
		option := &p.current.Options[i]
		option.List, option.Values = true, append(option.Values, value)
	default:
		p.current.Options[i] = Option{Name: name, Values: p.only(value), Line: line}
	}
}

// maxUsual limits the room that a section gets for options before they are read.
const maxUsual = 8

// valuesAtOnce is how many values get their memory in one piece.
const valuesAtOnce = 64

// only returns a list of one value.
func (p *parser) only(value Value) []Value {
	if len(p.spare) == 0 {
		p.spare = make([]Value, valuesAtOnce)
	}
	list := p.spare[:1:1]
	p.spare, list[0] = p.spare[1:], value
	return list
}
