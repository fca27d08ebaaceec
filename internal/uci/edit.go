package uci

import (
	"slices"
	"strconv"
	"strings"

	"github.com/ds4relay/ds4relay/internal/message"
)

// A Change is one change of a file. Sections are called by their names, or as uci(1) does: @forward[0] is the first
// section of that type, @forward[-1] the last.
type Change struct {
	verb            verb
	section, option string // of AddSection: the name, and the type
	value           string
}

type verb int

const (
	addSection verb = iota
	deleteSection
	set
	addList
	deleteOption
)

// AddSection adds a section to the end of the file, without a name if that is "". A section of that type and name may
// be there.
func AddSection(typ, name string) Change { return Change{addSection, name, typ, ""} }

// DeleteSection deletes a section with its options, the comments among them, and options in comments (`# option a 'b'`)
// directly below. It need not be there.
func DeleteSection(section string) Change { return Change{verb: deleteSection, section: section} }

// Set sets an option, in place of the value or the list that it has.
func Set(section, option, value string) Change { return Change{set, section, option, value} }

// AddList adds a value to the end of a list.
func AddList(section, option, value string) Change { return Change{addList, section, option, value} }

// Delete deletes an option, or all values of a list. It need not be there.
func Delete(section, option string) Change { return Change{deleteOption, section, option, ""} }

// Edit returns the text with the changes, made one after the other. Everything else in it stays byte for byte:
// comments, order, quotes, indentation. The text must be without mistakes. What comes out is parsed, and is an error
// unless it says what was meant.
func Edit(text []byte, changes ...Change) ([]byte, error) {
	mark := ""
	former := string(text)
	if strings.HasPrefix(former, byteOrderMark) {
		mark, former = byteOrderMark, strings.TrimPrefix(former, byteOrderMark)
	}
	meant, err := parse("the file", former)
	if err != nil {
		return nil, err
	}
	for _, c := range changes {
		if err := c.valid(); err != nil {
			return nil, err
		}
		if err := meant.change(c); err != nil {
			return nil, err
		}
		former = c.edit(former)
	}
	edited, err := parse("the file", former)
	if err != nil {
		return nil, message.New("what the changes would make of the file cannot be read: %v", err)
	}
	if !same(meant, edited) {
		return nil, message.New("the changes would make something else of the file than what is meant; make them by hand")
	}
	return []byte(mark + former), nil
}

// valid refuses what uci would not read back.
func (c Change) valid() error {
	if c.verb == addSection {
		if !isName(c.option, true) || c.section != "" && !isName(c.section, false) {
			return message.New("no section can be called %q %q; letters, digits and _ are allowed", c.option, c.section)
		}
		return nil
	}
	if c.verb != deleteSection && !isName(c.option, false) {
		return message.New("the option name %q has a character that is not allowed; letters, digits and _ are",
			short(c.option))
	}
	if c.verb != set && c.verb != addList {
		return nil
	}
	control := func(r rune) bool { return r < ' ' && r != '\t' && r != '\n' || r == 0x7f }
	if c.value == "" || len(c.value) > maxValue || strings.ContainsFunc(c.value, control) {
		return message.New("option %s cannot be %q; allowed is text of 1 to %d bytes", c.option, short(c.value),
			maxValue)
	}
	return nil
}

// index returns the number of a section in the file, or -1.
func (f *File) index(section string) int {
	typ, number, isNumber := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(section, "@"), "]"), "[")
	n, err := strconv.Atoi(number)
	if !isNumber || err != nil || !strings.HasPrefix(section, "@") {
		return slices.IndexFunc(f.Sections, func(s Section) bool { return s.Name == section && section != "" })
	}
	var list []int
	for i := range f.Sections {
		if f.Sections[i].Type == typ {
			list = append(list, i)
		}
	}
	if n < 0 {
		n += len(list)
	}
	if n < 0 || n >= len(list) {
		return -1
	}
	return list[n]
}

// change does to the parsed file what edit does to its text.
func (f *File) change(c Change) error {
	i := f.index(c.section)
	switch {
	case c.verb == addSection && i >= 0:
		if f.Sections[i].Type != c.option {
			return message.New("there is a section %q already, a %s; give this %s another name", c.section,
				f.Sections[i].Type, c.option)
		}
	case c.verb == addSection:
		f.Sections = append(f.Sections, Section{Type: c.option, Name: c.section, Anonymous: c.section == ""})
	case i < 0 && (c.verb == set || c.verb == addList):
		return message.New("there is no section %q", short(c.section))
	case i < 0:
	case c.verb == deleteSection:
		f.Sections = slices.Delete(f.Sections, i, i+1)
	default:
		options := &f.Sections[i].Options
		k := slices.IndexFunc(*options, func(o Option) bool { return o.Name == c.option })
		if k < 0 && c.verb != deleteOption {
			k = len(*options)
			*options = append(*options, Option{Name: c.option})
		}
		switch {
		case k < 0:
		case c.verb == deleteOption:
			*options = slices.Delete(*options, k, k+1)
		case c.verb == set:
			(*options)[k].List, (*options)[k].Values = false, []Value{{Text: c.value}}
		default:
			(*options)[k].List, (*options)[k].Values = true, append((*options)[k].Values, Value{Text: c.value})
		}
	}
	return nil
}

// same compares what two files say, without their lines and the order of options. (Package slices would sort the
// options, and take 5 kB more in the .ipk.)
func same(a, b *File) bool {
	equal := len(a.Sections) == len(b.Sections)
	for i := 0; equal && i < len(a.Sections); i++ {
		s, t := &a.Sections[i], &b.Sections[i]
		equal = s.Type == t.Type && s.Name == t.Name && len(s.Options) == len(t.Options)
		for j := 0; equal && j < len(s.Options); j++ {
			equal = t.has(&s.Options[j])
		}
	}
	return equal
}

// has reports whether a section has an option with the same values. It has each only once.
func (s *Section) has(o *Option) bool {
	for i := range s.Options {
		p := &s.Options[i]
		if p.Name != o.Name {
			continue
		}
		equal := p.List == o.List && len(p.Values) == len(o.Values)
		for j := 0; equal && j < len(p.Values); j++ {
			equal = p.Values[j].Text == o.Values[j].Text
		}
		return equal
	}
	return false
}

// statement is a statement in the text of a file without mistakes.
type statement struct {
	kind       byte // the first letter of its keyword
	begin, end int  // bytes of its lines, with their last line feed
	keyword    int  // where the keyword begins
	words      []word
	section    int // number of its section in the file
}

// is reports whether it sets an option of a section.
func (s statement) is(section int, option string) bool {
	return (s.kind == 'o' || s.kind == 'l') && s.section == section && s.words[0].text == option
}

// empty is an option without a value, which is none.
func (s statement) empty() bool { return s.kind == 'o' && (len(s.words) < 2 || s.words[1].text == "") }

// statements splits a text, and numbers its sections as the parser does.
func statements(text string) (list []statement, sections *File) {
	sections = &File{}
	l := lexer{data: text, line: 1}
	current := -1
	for l.skipEmpty(); !l.end(); l.skipEmpty() {
		s := statement{keyword: l.pos, begin: strings.LastIndexByte(text[:l.pos], '\n') + 1}
		s.kind = l.keyword()[0]
		words, _ := l.arguments()
		s.words, s.end = slices.Clone(words), l.pos
		if s.kind == 'c' {
			name := ""
			if len(words) > 1 {
				name = words[1].text
			}
			if current = sections.index(name); current < 0 {
				current = len(sections.Sections)
				sections.Sections = append(sections.Sections, Section{Type: words[0].text, Name: name})
			}
		}
		s.section = current
		list = append(list, s)
	}
	return list, sections
}

// splice is text in place of other text.
type splice struct {
	begin, end int
	text       string
}

func (c Change) edit(text string) string {
	list, sections := statements(text)
	i := sections.index(c.section)
	var splices []splice
	switch {
	case c.verb == addSection && i < 0:
		splices = append(splices, c.newSection(text))
	case i < 0 || c.verb == addSection:
	case c.verb == deleteSection:
		splices = withoutSection(text, list, i)
	default:
		splices = c.editOption(text, list, i)
	}
	for _, s := range slices.Backward(splices) {
		text = text[:s.begin] + s.text + text[s.end:]
	}
	return text
}

// eol is how the text's lines end.
func eol(text string) string {
	if i := strings.IndexByte(text, '\n'); i > 0 && text[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

// lineBefore returns where the line before a place begins, and whether it is blank.
func lineBefore(text string, place int) (begin int, blank bool) {
	begin = strings.LastIndexByte(text[:max(place-1, 0)], '\n') + 1
	return begin, strings.TrimSpace(text[begin:place]) == ""
}

// newSection is a new section at the end, behind a blank line.
func (c Change) newSection(text string) splice {
	added, end := "", eol(text)
	if text != "" && !strings.HasSuffix(text, "\n") {
		added += end
	}
	if _, blank := lineBefore(text, len(text)); !blank {
		added += end
	}
	added += "config " + c.option
	if c.section != "" {
		added += " " + quote(c.section)
	}
	return splice{len(text), len(text), added + end}
}

// withoutSection deletes a section, wherever it is continued, with a blank line that would be one too many.
func withoutSection(text string, list []statement, section int) (splices []splice) {
	for i := 0; i < len(list); i++ {
		if list[i].section != section {
			continue
		}
		begin := list[i].begin
		for i+1 < len(list) && list[i+1].section == section && list[i+1].kind != 'c' {
			i++
		}
		end := behindOptionsInComments(text, list[i].end)
		next := len(text)
		if n := strings.IndexByte(text[end:], '\n'); n >= 0 {
			next = end + n + 1
		}
		before, blank := lineBefore(text, begin)
		switch behind := strings.TrimSpace(text[end:next]) == ""; {
		case behind && blank && begin > 0 && (len(splices) == 0 || splices[len(splices)-1].end <= before):
			begin = before
		case behind && begin == 0:
			end = next
		}
		splices = append(splices, splice{begin, end, ""})
	}
	return splices
}

// behindOptionsInComments returns where the options in comments end that begin at a place.
func behindOptionsInComments(text string, place int) int {
	for {
		line, _, _ := strings.Cut(text[place:], "\n")
		words := strings.Fields(strings.Replace(line, "#", " ", 1))
		if !strings.HasPrefix(strings.TrimSpace(line), "#") || len(words) < 3 ||
			words[0] != "option" && words[0] != "list" || words[2][0] != '\'' {
			return place
		}
		place = min(place+len(line)+1, len(text))
	}
}

func (c Change) editOption(text string, list []statement, section int) (splices []splice) {
	var all []statement // of the option
	place, indent, general := statement{}, "", "\t"
	indented := false
	for _, s := range list {
		option := s.kind == 'o' || s.kind == 'l'
		switch {
		case s.section != section:
			if option {
				general = text[s.begin:s.keyword]
			}
			continue
		case option:
			indent, indented = text[s.begin:s.keyword], true
		}
		place = s
		if s.is(section, c.option) {
			all = append(all, s)
		}
	}
	if !indented {
		indent = general
	}
	if c.verb == deleteOption {
		for _, s := range all {
			splices = append(splices, splice{s.begin, s.end, ""})
		}
		return splices
	}
	keyword := "option "
	if c.verb == addList {
		keyword = "list "
	}
	line := keyword + c.option + " " + quote(c.value)
	if c.verb == set && len(all) > 0 {
		return setOption(all, line, c.value)
	}
	if len(all) > 0 {
		place = all[len(all)-1]
	}
	end := eol(text)
	line = indent + line + end
	if place.end == len(text) && !strings.HasSuffix(text, "\n") {
		line = end + line
	}
	return []splice{{place.end, place.end, line}}
}

// setOption sets an option that has statements: only the value changes if there is one, and else the last statement
// becomes line and stands for all.
func setOption(all []statement, line, value string) (splices []splice) {
	last := all[len(all)-1]
	var valued *statement
	for i := range all {
		if !all[i].empty() {
			valued = &all[i]
		}
	}
	if valued != nil && valued.kind == 'o' {
		word := valued.words[1]
		if word.text != value {
			splices = append(splices, splice{word.begin, word.end, quote(value)})
		}
		return splices
	}
	for _, s := range all[:len(all)-1] {
		if s.kind == 'l' {
			splices = append(splices, splice{s.begin, s.end, ""})
		}
	}
	return append(splices, splice{last.keyword, last.words[len(last.words)-1].end, line})
}

// quote writes a value so that libuci and go-uci read it.
func quote(value string) string {
	if !strings.Contains(value, "'") {
		return "'" + value + "'"
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value) + `"`
}
