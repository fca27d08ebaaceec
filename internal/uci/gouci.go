package uci

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	goci "github.com/digineo/go-uci"
)

// Bounds of what go-uci is given: it looks for a section, an option or a list value by going through all of them.
const (
	maxSections = 25000
	maxOptions  = 200
	maxValues   = 5000
)

// chunk is how many sections go-uci is given in one file: each look-up goes through all sections of a file, so that the
// time would grow with their square.
const chunk = 32

// readBack writes the file as go-uci reads it, and takes every value from there.
func readBack(file *File) error {
	if len(file.Sections) > maxSections {
		return fmt.Errorf("more than %d sections", maxSections)
	}
	// go-uci reads nothing but files.
	dir, err := os.MkdirTemp("", "ds4relay")
	if err != nil {
		return fmt.Errorf("no room to read the configuration: %w", err)
	}
	defer os.RemoveAll(dir)
	for first := 0; first < len(file.Sections); first += chunk {
		if err := readChunk(dir, file.Sections[first:min(first+chunk, len(file.Sections))]); err != nil {
			return err
		}
	}
	return nil
}

const rewritten = "ds4relay"

func readChunk(dir string, sections []Section) error {
	text, err := rewrite(sections)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, rewritten), []byte(text), 0o600); err != nil {
		return fmt.Errorf("no room to read the configuration: %w", err)
	}
	tree := goci.NewTree(dir)
	if err := tree.LoadConfig(rewritten, false); err != nil {
		return fmt.Errorf("go-uci: %w", err)
	}
	for i := range sections {
		section := &sections[i]
		for j := range section.Options {
			option := &section.Options[j]
			values, _ := tree.Get(rewritten, sectionName(section, i), option.Name)
			if len(values) != len(option.Values) {
				return fmt.Errorf("line %d: go-uci has %d values of %s, the file %d", option.Line, len(values), option.Name, len(option.Values))
			}
			for k, value := range values {
				if option.Values[k].Text, err = decode(value); err != nil {
					return fmt.Errorf("line %d: %w", option.Line, err)
				}
			}
		}
	}
	return nil
}

// sectionName is the section's name for go-uci. libuci allows no hyphen in a name, so that those of anonymous sections
// clash with none.
func sectionName(s *Section, index int) string {
	if s.Anonymous {
		return fmt.Sprintf("section-%d", index)
	}
	return s.Name
}

// rewrite writes a file out of what go-uci reads: one-line values in single quotes, without quotes and backslashes in
// them, all different within a list (go-uci drops repetitions). Types do not matter any more.
func rewrite(sections []Section) (string, error) {
	var b strings.Builder
	for i := range sections {
		section := &sections[i]
		if len(section.Options) > maxOptions {
			return "", fmt.Errorf("line %d: more than %d options in one section", section.Line, maxOptions)
		}
		fmt.Fprintf(&b, "config section '%s'\n", sectionName(section, i))
		for _, option := range section.Options {
			if len(option.Values) > maxValues {
				return "", fmt.Errorf("line %d: more than %d values of one list", option.Line, maxValues)
			}
			keyword := "option"
			if option.List {
				keyword = "list"
			}
			for k, value := range option.Values {
				fmt.Fprintf(&b, "\t%s %s '%s'\n", keyword, option.Name, encode(k, value.Text))
			}
		}
	}
	return b.String(), nil
}

// encode writes a value as its number, a colon, and its text with %XX for what go-uci does not take.
func encode(number int, text string) string {
	var b strings.Builder
	b.WriteString(strconv.Itoa(number) + ":")
	for i := range len(text) {
		if c := text[i]; c < ' ' || c == '\'' || c == '\\' || c == '%' || c >= 0x7f {
			fmt.Fprintf(&b, "%%%02x", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func decode(s string) (string, error) {
	_, text, _ := strings.Cut(s, ":")
	if !strings.Contains(text, "%") {
		return text, nil
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			b.WriteByte(text[i])
			continue
		}
		if i+2 >= len(text) {
			return "", fmt.Errorf("go-uci returned %q", s)
		}
		c, err := strconv.ParseUint(text[i+1:i+3], 16, 8)
		if err != nil {
			return "", fmt.Errorf("go-uci returned %q", s)
		}
		b.WriteByte(byte(c))
		i += 2
	}
	return b.String(), nil
}
