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
	if err := json.NewEncoder(Writer{&out}).Encode(in); err != nil {
		t.Fatal(err)
	}
	var got string
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || got != strings.ToValidUTF8(in, "\ufffd") {
		t.Errorf("%q, %v", got, err)
	}
}

func FuzzEscape(f *testing.F) {
	f.Add([]byte("\x1b[31m\u009b\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		out := Escape(in)
		if !utf8.Valid(out) || bytes.ContainsAny(out, "\x00\x07\b\r\x1b\x7f\u0085\u009b\u202e") || !bytes.Equal(Escape(out), out) {
			t.Errorf("%q becomes %q", in, out)
		}
	})
}
