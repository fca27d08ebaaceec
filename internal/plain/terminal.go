package plain

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// NewWriter has colours where to is a terminal that shows them and nobody has set NO_COLOR (https://no-color.org).
func NewWriter(to io.Writer) Writer {
	file, ok := to.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return Writer{To: to}
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return Writer{To: to, Colour: err == nil}
}

// Style is how a word is shown on a terminal.
type Style struct {
	rendition string // the parameter of SGR, ECMA-48 §8.3.117
	mark      string
}

// The styles, by what they mean.
var (
	Command = Style{"36", ""}
	Good    = Style{"32", "✓"}
	Warning = Style{"33", "!"}
	Bad     = Style{"31", "✗"}
	Skipped = Style{"2", "-"}
	Paper   = Style{"30;47", ""} // dark on light, for what a camera is to read
)

// Paint writes text in a style where w shows styles, and as it is elsewhere. The text is escaped as by Write: only the
// style reaches the terminal.
func Paint(w io.Writer, style Style, text string) {
	if terminal, ok := w.(Writer); ok && terminal.Colour {
		fmt.Fprintf(terminal.To, "\x1b[%sm%s\x1b[0m", style.rendition, Escape([]byte(text)))
		return
	}
	io.WriteString(w, text)
}

// Mark is Paint with the style's mark before the text on a terminal.
func Mark(w io.Writer, style Style, text string) {
	if terminal, ok := w.(Writer); ok && terminal.Colour {
		text = style.mark + " " + text
	}
	Paint(w, style, text)
}

// Columns returns how wide the terminal is, or an error where text does not go to one.
func (w Writer) Columns() (int, error) {
	file, ok := w.To.(*os.File)
	if !ok {
		return 0, os.ErrInvalid
	}
	size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, err
	}
	return int(size.Col), nil
}

// Clear empties a terminal's screen. On anything else it writes an empty line.
func Clear(w io.Writer) {
	if terminal, ok := w.(Writer); ok && terminal.Colour {
		io.WriteString(terminal.To, "\x1b[H\x1b[2J")
		return
	}
	io.WriteString(w, "\n")
}
