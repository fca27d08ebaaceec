package uci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

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
const chunk = 256

// readBack writes the file's options as go-uci reads them, and takes every value from there. What many sections have in
// common is written once.
func readBack(file *File) error {
	if len(file.Sections) > maxSections {
		return fmt.Errorf("more than %d sections", maxSections)
	}
	sections, err := distinct(file)
	if err != nil {
		return err
	}
	// go-uci reads nothing but files.
	dir, err := os.MkdirTemp("", "ds4relay")
	if err != nil {
		return fmt.Errorf("no room to read the configuration: %w", err)
	}
	defer os.RemoveAll(dir)
	var chunks [][][]*Option
	for first := 0; first < len(sections); first += chunk {
		chunks = append(chunks, sections[first:min(first+chunk, len(sections))])
	}
	errs := make([]error, len(chunks))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(chunks)) {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(chunks); i = int(next.Add(1)) - 1 {
				errs[i] = readChunk(dir, fmt.Sprintf("ds4relay-%d", i), chunks[i])
			}
		})
	}
	workers.Wait()
	return errors.Join(errs...)
}

// distinct arranges the file's options in sections, those that are equal only once.
func distinct(file *File) ([][]*Option, error) {
	type key struct {
		name, value string
		list        bool
	}
	seen := map[key]bool{}
	var sections [][]*Option
	for i := range file.Sections {
		section := &file.Sections[i]
		if len(section.Options) > maxOptions {
			return nil, fmt.Errorf("line %d: more than %d options in one section", section.Line, maxOptions)
		}
		var options []*Option
		for j := range section.Options {
			option := &section.Options[j]
			if len(option.Values) > maxValues {
				return nil, fmt.Errorf("line %d: more than %d values of one list", option.Line, maxValues)
			}
			if len(option.Values) == 1 {
				k := key{option.Name, option.Values[0].Text, option.List}
				if seen[k] {
					continue
				}
				seen[k] = true
			}
			options = append(options, option)
		}
		if len(options) > 0 {
			sections = append(sections, options)
		}
	}
	return sections, nil
}

func readChunk(dir, name string, sections [][]*Option) error {
	if err := os.WriteFile(filepath.Join(dir, name), []byte(rewrite(sections)), 0o600); err != nil {
		return fmt.Errorf("no room to read the configuration: %w", err)
	}
	tree := goci.NewTree(dir)
	if err := tree.LoadConfig(name, false); err != nil {
		return fmt.Errorf("go-uci: %w", err)
	}
	for i, options := range sections {
		for _, option := range options {
			values, _ := tree.Get(name, sectionName(i), option.Name)
			if len(values) != len(option.Values) {
				return fmt.Errorf("line %d: go-uci has %d values of %s, the file %d", option.Line, len(values), option.Name, len(option.Values))
			}
			for k, value := range values {
				var err error
				if option.Values[k].Text, err = decode(value); err != nil {
					return fmt.Errorf("line %d: %w", option.Line, err)
				}
			}
		}
	}
	return nil
}

func sectionName(index int) string { return "s" + strconv.Itoa(index) }

// rewrite writes a file out of what go-uci reads: one-line values in single quotes, without quotes and backslashes in
// them, all different within a list (go-uci drops repetitions). Names and types of sections do not matter any more.
func rewrite(sections [][]*Option) string {
	var b strings.Builder
	for i, options := range sections {
		b.WriteString("config section '" + sectionName(i) + "'\n")
		for _, option := range options {
			keyword := "\toption "
			if option.List {
				keyword = "\tlist "
			}
			for k, value := range option.Values {
				b.WriteString(keyword + option.Name + " '" + encode(k, value.Text) + "'\n")
			}
		}
	}
	return b.String()
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
