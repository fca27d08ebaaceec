package notices

import (
	"fmt"
	"regexp"
	"strings"
)

// terms is the content of a licence file: a licence, or only a notice.
type terms struct {
	licence   string   // short name in Debian's format; "" for a notice
	copyright []string // lines
	text      string   // the rest
}

var (
	copyrightLine = regexp.MustCompile(`(?i)^\s*(copyright\s+(©|\(c\)\s+)?\d{4}.*|all rights reserved\.?)\s*$`)
	titleLine     = regexp.MustCompile(`(?i)^\s*(the )?(MIT|BSD [1-4]-clause) license( \(MIT\))?\s*$`)
	spaces        = regexp.MustCompile(`\s+`)
)

// endOfApache is the last line of the licence. In some files an appendix about its use follows, with an example
// copyright.
const endOfApache = "END OF TERMS AND CONDITIONS"

// parse parses a licence file. An unknown licence is an error, since somebody has to read it.
func parse(f File) (terms, error) {
	var t terms
	var rest []string
	for line := range strings.Lines(f.Text) {
		line = strings.TrimRight(line, " \t\r\n")
		switch {
		case copyrightLine.MatchString(line):
			t.copyright = append(t.copyright, strings.TrimSpace(line))
		case !titleLine.MatchString(line):
			rest = append(rest, line)
		}
	}
	t.text = strings.Trim(strings.Join(rest, "\n"), "\n")
	flat := spaces.ReplaceAllString(t.text, " ")
	has := func(text string) bool { return strings.Contains(flat, text) }
	switch {
	case has("Apache License Version 2.0, January 2004") && has(endOfApache):
		before, _, _ := strings.Cut(t.text, endOfApache)
		t.licence, t.text = apache, before+endOfApache
	case has("Permission is hereby granted, free of charge, to any person obtaining a copy") &&
		has(`THE SOFTWARE IS PROVIDED "AS IS"`):
		t.licence = "Expat"
	case has("Redistribution and use in source and binary forms, with or without modification, are permitted") &&
		has("ADVISED OF THE POSSIBILITY OF SUCH DAMAGE."):
		switch {
		case has("All advertising materials"):
			t.licence = "BSD-4-Clause"
		case has("Neither the name of"):
			t.licence = "BSD-3-Clause"
		default:
			t.licence = "BSD-2-Clause"
		}
	case notice.MatchString(f.Path):
		return terms{text: strings.Trim(f.Text, "\n")}, nil
	default:
		return t, fmt.Errorf("%s is of no licence that is known here; read it, and add it to package notices", f.Path)
	}
	return t, nil
}

// notice matches files that a licence may require to be passed on.
var notice = regexp.MustCompile(`(?i)/(notice|copyright)([.-][^/]*)?$`)

// same reports whether two texts differ only in white space.
func same(a, b string) bool {
	return spaces.ReplaceAllString(a, " ") == spaces.ReplaceAllString(b, " ")
}
