// Package plain keeps text from elsewhere (sockets, other machines, files, names of devices) from doing anything to the
// terminal or the log that it is printed on.
package plain

import (
	"fmt"
	"io"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Writer writes text whose control characters and invalid UTF-8 are escapes: \u001b, \xff. Line feeds and tabs stay. In
// JSON the escapes are JSON's own. Each Write is a text of its own.
type Writer struct {
	To     io.Writer
	Colour bool // To is a terminal that shows Styles
}

// Write returns len(text) where all of it was written.
func (w Writer) Write(text []byte) (int, error) {
	if _, err := w.To.Write(Escape(text)); err != nil {
		return 0, err
	}
	return len(text), nil
}

// Escape returns text itself where it has nothing to escape.
func Escape(text []byte) []byte {
	var escaped []byte
	done := 0 // up to there text is in escaped
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		if !harmless(r, size) {
			escaped = appendEscape(append(escaped, text[done:i]...), r, text[i:i+size])
			done = i + size
		}
		i += size
	}
	if escaped == nil {
		return text
	}
	return append(escaped, text[done:]...)
}

// harmless is what is seen as it is. Beside control characters that leaves out what changes the direction of text
// (CVE-2021-42574).
func harmless(r rune, size int) bool {
	switch r {
	case '\n', '\t', '\u200c', '\u200d': // the last two join letters and emoji
		return true
	case utf8.RuneError:
		return size > 1
	}
	return strconv.IsGraphic(r)
}

func appendEscape(b []byte, r rune, raw []byte) []byte {
	switch {
	case r == utf8.RuneError:
		return fmt.Appendf(b, `\x%02x`, raw[0])
	case r > 0xffff:
		high, low := utf16.EncodeRune(r)
		return fmt.Appendf(b, `\u%04x\u%04x`, high, low)
	}
	return fmt.Appendf(b, `\u%04x`, r)
}
