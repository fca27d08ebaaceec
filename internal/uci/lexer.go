package uci

import (
	"strings"

	"github.com/ds4relay/ds4relay/internal/message"
)

// lexer splits the file into words like libuci's file.c (parse_str, parse_single_quote, parse_double_quote).
type lexer struct {
	data  string
	pos   int
	line  int
	words []word // of the current statement
}

// word is an argument of a statement.
type word struct {
	text       string
	line       int // where it begins
	begin, end int // bytes of the file
}

// isSpace is C's isspace without the line feed: what separates words. A line feed ends the statement.
func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

func (l *lexer) end() bool { return l.pos >= len(l.data) }

func (l *lexer) advance() byte {
	c := l.data[l.pos]
	l.pos++
	if c == '\n' {
		l.line++
	}
	return c
}

// skipLine moves past the next line feed.
func (l *lexer) skipLine() {
	if i := strings.IndexByte(l.data[l.pos:], '\n'); i >= 0 {
		l.pos += i + 1
		l.line++
		return
	}
	l.pos = len(l.data)
}

// skipEmpty moves to the first word of the next statement.
func (l *lexer) skipEmpty() {
	for !l.end() {
		switch c := l.data[l.pos]; {
		case isSpace(c):
			l.advance()
		case c == '#':
			l.skipLine()
		default:
			return
		}
	}
}

// keyword reads the raw text up to white space. Quotes have no meaning here.
func (l *lexer) keyword() string {
	start := l.pos
	for !l.end() && !isSpace(l.data[l.pos]) {
		l.pos++
	}
	return l.data[start:l.pos]
}

// maxWords is how many words of a statement are kept: one more than any statement may have.
const maxWords = 3

// arguments reads the words up to the end of the statement. They are valid until the next call. After an error the
// lexer is at the next line, after an openError at the end of the file.
func (l *lexer) arguments() ([]word, error) {
	words := l.words[:0]
	defer func() { l.words = words[:0] }()
	for {
		for !l.end() && isSpace(l.data[l.pos]) {
			if l.advance() == '\n' {
				return words, nil
			}
		}
		if l.end() {
			return words, nil
		}
		switch l.data[l.pos] {
		case '#':
			l.skipLine()
			return words, nil
		case ';':
			return words, l.semicolon()
		}
		w, err := l.word()
		if err != nil {
			return nil, err
		}
		if len(words) < maxWords {
			words = append(words, w)
		}
	}
}

// semicolon ends a statement. libuci drops the rest of the line.
func (l *lexer) semicolon() error {
	l.pos++
	for !l.end() && l.data[l.pos] != '\n' && isSpace(l.data[l.pos]) {
		l.pos++
	}
	if l.end() || l.data[l.pos] == '\n' || l.data[l.pos] == '#' {
		l.skipLine()
		return nil
	}
	l.skipLine()
	return message.New("what follows the ; would be dropped without a word; put it on a line of its own, or the ; " +
		"into quotes")
}

// plain is a fast path for the usual kind of word: on one line, without escapes, quoted as a whole or not at all.
func (l *lexer) plain() (string, bool) {
	rest := l.data[l.pos:]
	if rest[0] == '\'' || rest[0] == '"' {
		end := strings.IndexByte(rest[1:], rest[0]) + 1
		if end == 0 || end+1 < len(rest) && !isSpace(rest[end+1]) {
			return "", false
		}
		text := rest[1:end]
		if strings.IndexByte(text, '\n') >= 0 || strings.IndexByte(text, '\\') >= 0 {
			return "", false
		}
		l.pos += end + 1
		return text, true
	}
	for end := range len(rest) {
		switch c := rest[end]; {
		case isSpace(c):
			l.pos += end
			return rest[:end], true
		case c == '\'' || c == '"' || c == '\\' || c == '#' || c == ';':
			return "", false
		}
	}
	return "", false
}

func (l *lexer) word() (word, error) {
	w := word{line: l.line, begin: l.pos}
	text, ok := l.plain()
	if !ok {
		var err error
		if text, err = l.joined(); err != nil {
			return w, err
		}
	}
	if w.text, w.end = text, l.pos; len(text) > maxValue {
		l.skipLine()
		return w, message.New("a word of %d bytes; allowed are at most %d", len(text), maxValue)
	}
	return w, nil
}

// joined reads a word of any kind.
func (l *lexer) joined() (string, error) {
	var text []byte
	for !l.end() && !isSpace(l.data[l.pos]) && l.data[l.pos] != '#' && l.data[l.pos] != ';' {
		switch c := l.advance(); c {
		case '\'', '"':
			quoted, err := l.quoted(c)
			if err != nil {
				return "", err
			}
			text = append(text, quoted...)
		case '\\':
			text = l.escaped(text)
		default:
			text = append(text, c)
		}
	}
	return string(text), nil
}

// escaped reads the character after a backslash. A backslash before a line feed joins the lines.
func (l *lexer) escaped(text []byte) []byte {
	if l.end() {
		return text
	}
	if l.data[l.pos] == '\r' && l.pos+1 < len(l.data) && l.data[l.pos+1] == '\n' {
		l.pos++
	}
	if c := l.advance(); c != '\n' {
		text = append(text, c)
	}
	return text
}

// unclosed is the error about a quote that the file's end closes.
func unclosed(quote byte, line int) *message.Text {
	return message.New("the %s of line %d is never closed", string(quote), line)
}

func (l *lexer) quoted(quote byte) ([]byte, error) {
	began := l.line
	var text []byte
	for !l.end() {
		switch c := l.advance(); {
		case c == quote:
			return text, nil
		case c == '\\' && quote == '"':
			text = l.escaped(text)
		default:
			text = append(text, c)
		}
	}
	return nil, unclosed(quote, began)
}
