package notices

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// apache is Debian's name for the licence of this project and others.
const apache = "Apache-2.0"

// ours is the start of every copyright file.
const ours = `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: ds4relay
Source: https://github.com/ds4relay/ds4relay

Files: *
Copyright: 2026 The ds4relay developers
License: Apache-2.0
`

// onDebian replaces the texts of licences that every Debian system has.
var onDebian = map[string]string{
	apache: "On Debian systems, the full text of the Apache License, Version 2.0 can be\n" +
		"found in the file /usr/share/common-licenses/Apache-2.0.",
}

// A licence is a licence text that modules share, and its name in a copyright file.
type licence struct{ name, text string }

// Write writes the copyright file of a package in Debian's machine-readable format (DEP 5). The first module is the
// package's own. Each licence text appears once. With debian set, texts that Debian already has are replaced by a
// reference.
func Write(w io.Writer, modules []Module, debian bool) error {
	var b strings.Builder
	b.WriteString(ours)
	licences := []licence{}
	for i, m := range modules {
		var names, copyright, notices []string
		for _, f := range m.Files {
			t, err := parse(f)
			if err != nil {
				return fmt.Errorf("%s: %w", m.Path, err)
			}
			for _, line := range t.copyright {
				if !slices.Contains(copyright, line) {
					copyright = append(copyright, line)
				}
			}
			if t.licence == "" {
				notices = append(notices, t.text)
				continue
			}
			var name string
			if name, licences = named(licences, t); !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		switch {
		case len(names) == 0:
			return fmt.Errorf("%s: no file has its licence", m.Path)
		case i == 0 && (len(names) != 1 || names[0] != apache || len(notices) > 0):
			return fmt.Errorf("%s: its licence is no longer Apache-2.0 alone: %q", m.Path, names)
		case i == 0:
			continue
		case len(copyright) == 0:
			copyright = []string{"The authors of " + m.Path}
		}
		fmt.Fprintf(&b, "\nFiles: %s/*\nCopyright: %s\nLicense: %s\n",
			m.Path, strings.Join(copyright, "\n "), strings.Join(names, " and "))
		fmt.Fprintf(&b, "Comment: linked into the program, version %s\n", m.Version)
		for _, text := range notices {
			b.WriteString(" .\n" + indented(text))
		}
	}
	slices.SortFunc(licences, func(a, b licence) int { return strings.Compare(a.name, b.name) })
	for _, l := range licences {
		if short, ok := onDebian[l.name]; ok && debian {
			l.text = short
		}
		fmt.Fprintf(&b, "\nLicense: %s\n%s", l.name, indented(l.text))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// named returns the name of a licence text, and licences with that text added. Different texts of the same licence get
// a number.
func named(licences []licence, t terms) (string, []licence) {
	name := t.licence
	for n := 2; ; n++ {
		i := slices.IndexFunc(licences, func(l licence) bool { return l.name == name })
		switch {
		case i < 0:
			return name, append(licences, licence{name, t.text})
		case same(licences[i].text, t.text):
			return name, licences
		}
		name = fmt.Sprintf("%s-%d", t.licence, n)
	}
}

// indented formats a text as the lines of a field (Debian policy §5.1): each begins with a space, and an empty one
// becomes a dot.
func indented(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text + "\n") {
		if line = strings.TrimRight(line, " \t\n"); line == "" {
			line = "."
		}
		b.WriteString(" " + line + "\n")
	}
	return b.String()
}
