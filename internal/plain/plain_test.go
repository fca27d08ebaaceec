package plain

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"":                            "",
		"relay home: up\n\tit works":  "relay home: up\n\tit works",
		"Zoë's 家 → 🏠 👩\u200d💻":        "Zoë's 家 → 🏠 👩\u200d💻",
		"\x1b[2Jx\x1b]0;y\x07":        `\u001b[2Jx\u001b]0;y\u0007`,
		"a\rb\x00\x7f\b":              `a\u000db\u0000\u007f\u0008`,
		"\u009b31m":                   `\u009b31m`,
		"\xff\xc3(\xe2\x82":           `\xff\xc3(\xe2\x82`,
		"a\u202eb\u2066c\u2028\ufeff": `a\u202eb\u2066c\u2028\ufeff`,
		"\U000e0001":                  `\udb40\udc01`,
		"\ufffd":                      "\ufffd",
	} {
		if got := string(Escape([]byte(in))); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// TestJSON: what was JSON is the same JSON.
func TestJSON(t *testing.T) {
	in := strings.Repeat("x\x7f\u0085\u202e\U000e0001\xff\x1b\n→", 3)
	var out bytes.Buffer
	if err := json.NewEncoder(Writer{To: &out}).Encode(in); err != nil {
		t.Fatal(err)
	}
	var got string
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || got != strings.ToValidUTF8(in, "\ufffd") {
		t.Errorf("%q, %v", got, err)
	}
}

// TestPaint: a style reaches a terminal only, and what is painted is escaped everywhere.
func TestPaint(t *testing.T) {
	for _, c := range []struct {
		colour      bool
		text, want  string
		clearedWith string
	}{
		{true, "up", "\x1b[32mup\x1b[0m", "\x1b[H\x1b[2J"},
		{true, "\x1b[2Jup\x1b[0m", "\x1b[32m\\u001b[2Jup\\u001b[0m\x1b[0m", "\x1b[H\x1b[2J"},
		{false, "\x1b[2Jup", "\\u001b[2Jup", "\n"},
	} {
		var out bytes.Buffer
		Paint(Writer{To: &out, Colour: c.colour}, Good, c.text)
		if out.String() != c.want {
			t.Errorf("%q: got %q, want %q", c.text, out.String(), c.want)
		}
		out.Reset()
		Mark(Writer{To: &out, Colour: c.colour}, Bad, "down")
		if want := map[bool]string{true: "\x1b[31m✗ down\x1b[0m", false: "down"}[c.colour]; out.String() != want {
			t.Errorf("marked: %q, want %q", out.String(), want)
		}
		out.Reset()
		Clear(Writer{To: &out, Colour: c.colour})
		if out.String() != c.clearedWith {
			t.Errorf("cleared with %q, want %q", out.String(), c.clearedWith)
		}
	}
}

func FuzzEscape(f *testing.F) {
	f.Add([]byte("\x1b[31m\u009b\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		out := Escape(in)
		if !utf8.Valid(out) || bytes.ContainsAny(out, "\x00\x07\b\r\x1b\x7f\u0085\u009b\u202e") ||
			!bytes.Equal(Escape(out), out) {
			t.Errorf("%q becomes %q", in, out)
		}
	})
}
