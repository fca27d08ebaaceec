package uci

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// flat formats a file as "LINE type name; LINE option=values" for comparison.
func flat(f *File) string {
	var b strings.Builder
	for _, s := range f.Sections {
		b.WriteString(strconv.Itoa(s.Line) + " " + s.Type + " " + s.Name + "\n")
		for _, o := range s.Options {
			b.WriteString(" " + o.Name)
			if o.List {
				b.WriteString("[]")
			}
			for _, v := range o.Values {
				b.WriteString(" " + strconv.Itoa(v.Line) + strconv.Quote(v.Text))
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

// TestForms has every form that libuci accepts.
func TestForms(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"plain":         {"config relay 'home'\n\toption a '1'\n", "1 relay home\n a 2\"1\"\n"},
		"joined quotes": {"config r n\noption a 'it'\\''s'\n", "1 r n\n a 2\"it's\"\n"},
		"a value over two lines": {"config r n\noption a 'x\ny'\noption b 1\n",
			"1 r n\n a 2\"x\\ny\"\n b 4\"1\"\n"},
		"an empty value at the end":      {"config r n\noption a ''", "1 r n\n"},
		"an empty value does not remove": {"config r n\noption a 1\noption a ''\n", "1 r n\n a 2\"1\"\n"},
		"no value":                       {"config r n\noption a\n", "1 r n\n"},
		"no last line feed":              {"config r n\n\toption a 1", "1 r n\n a 2\"1\"\n"},
		"no last line feed, only config": {"config r n", "1 r n\n"},
		"CRLF": {"config r n\r\n\toption a 'b'\r\n\tlist l c\r\n",
			"1 r n\n a 2\"b\"\n l[] 3\"c\"\n"},
		"a package line": {"package ds4relay\n\nconfig r n\n\toption a 1\n", "3 r n\n a 4\"1\"\n"},
		"escaped double quotes": {"config r n\noption a \"say \\\"hi\\\" \\\\\"\n",
			"1 r n\n a 2\"say \\\"hi\\\" \\\\\"\n"},
		"double quotes": {"config r n\noption a \"it's\"\n", "1 r n\n a 2\"it's\"\n"},
		"both quotes": {"config r n\noption a 'say \"it'\\''s\"'\n",
			"1 r n\n a 2\"say \\\"it's\\\"\"\n"},
		"backslash in single quotes": {"config r n\noption a 'C:\\x'\n", "1 r n\n a 2\"C:\\\\x\"\n"},
		"unquoted with escapes":      {"config r n\noption a b\\ c\\#d\n", "1 r n\n a 2\"b c#d\"\n"},
		"a joined line": {"config r n\noption a b\\\nc\noption d 1\n",
			"1 r n\n a 2\"bc\"\n d 4\"1\"\n"},
		"a joined line with CR":          {"config r n\noption a b\\\r\nc\n", "1 r n\n a 2\"bc\"\n"},
		"a joined line in double quotes": {"config r n\noption a \"b\\\nc\"\n", "1 r n\n a 2\"bc\"\n"},
		"comments": {"# x 'y\nconfig r n # c\n # z\noption a b#c d e f\noption e 'x#y' # 'z\n",
			"2 r n\n a 4\"b\"\n e 5\"x#y\"\n"},
		"abbreviations": {"c r n\no a 1\nl b 2\nl b 3\n", "1 r n\n a 2\"1\"\n b[] 3\"2\" 4\"3\"\n"},
		"lists with repetitions": {"config r n\nlist b 2\nlist b 2\nlist b ''\n",
			"1 r n\n b[] 2\"2\" 3\"2\" 4\"\"\n"},
		"a later option replaces":   {"config r n\noption a 1\noption a 2\n", "1 r n\n a 3\"2\"\n"},
		"an option replaces a list": {"config r n\nlist a 1\nlist a 2\noption a 3\n", "1 r n\n a 4\"3\"\n"},
		"a list takes an option in": {"config r n\noption a 1\nlist a 2\n", "1 r n\n a[] 2\"1\" 3\"2\"\n"},
		"anonymous sections": {"config r\noption a 1\nconfig r\noption a 2\n",
			"1 r \n a 2\"1\"\n3 r \n a 4\"2\"\n"},
		"sections of one name": {"config r n\noption a 1\nconfig r m\nconfig r n\noption a 2\noption b 3\n",
			"1 r n\n a 5\"2\"\n b 6\"3\"\n3 r m\n"},
		"quoted types and names": {"config \"r\" 'n'\noption 'a' \"1\"\n", "1 r n\n a 2\"1\"\n"},
		"an empty section name":  {"config r ''\noption a 1\n", "1 r \n a 2\"1\"\n"},
		"other types":            {"config foo-bar/x n\noption a 1\n", "1 foo-bar/x n\n a 2\"1\"\n"},
		"a last semicolon": {"config r n;\noption a 1; # x\noption b ';'\n",
			"1 r n\n a 2\"1\"\n b 3\";\"\n"},
		"percent signs and UTF-8": {"config r n\noption a '100%41 Zoë → 1'\n",
			"1 r n\n a 2\"100%41 Zoë → 1\"\n"},
		"tabs, form feeds, vertical tabs": {"config\tr\vn\f\noption\t\ta \t 1\n", "1 r n\n a 2\"1\"\n"},
		"empty":                           {"", ""},
		"only comments":                   {"# x\n\n#y", ""},
		"a value that looks like go-uci":  {"config r n\noption a 'option b 1'\n", "1 r n\n a 2\"option b 1\"\n"},
		"a quote in the middle":           {"config r n\noption a b'c d'e\n", "1 r n\n a 2\"bc de\"\n"},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := Parse("F", []byte(c.in))
			if err != nil {
				t.Fatal(err)
			}
			if got := flat(f); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"behind a semicolon": {"config relay a; option x 1\n", "F:1: what follows the ; would be dropped without " +
			"a word; put it on a line of its own, or the ; into quotes"},
		"open single quote": {"config r n\noption a 'b\n\noption c 1\n", "F:2: the ' of line 2 is never closed"},
		"open double quote": {"config r n\noption a \"b", "F:2: the \" of line 2 is never closed"},
		"unknown word": {"config r n\noptoin a 1\n",
			`F:2: unknown word "optoin"; a line begins with config, option or list`},
		"quoted keyword": {"'config' r n\n",
			`F:1: unknown word "'config'"; a line begins with config, option or list`},
		"option first": {"option a 1\noption b 1\n", "F:1: option before the first section; begin with a " +
			"line such as: config relay 'home'"},
		"list first": {"list a 1\n", "F:1: list before the first section; begin with a line such as: " +
			"config relay 'home'"},
		"no type": {"config\n", "F:1: config takes a type, as in: config relay 'home'"},
		"three words": {"config relay home office\n", "F:1: too many words after config; it takes a type " +
			"and a name, as in: config relay 'home'"},
		"type with a blank": {"config 'a b' n\n",
			`F:1: the section type "a b" has a character that is not allowed; letters, digits and _ are`},
		"name with a hyphen": {"config relay my-home\n",
			`F:1: the section name "my-home" has a character that is not allowed; letters, digits and _ are`},
		"no option name": {"config r n\noption\n", "F:2: option takes a name and a value, as in: option " +
			"ipaddr '198.51.100.144'"},
		"option name": {"config r n\noption a-b 1\n",
			`F:2: the option name "a-b" has a character that is not allowed; letters, digits and _ are`},
		"unquoted blanks": {"config r n\noption name Web server\n", "F:2: too many words after option name; " +
			"put a value with blanks into quotes"},
		"two types of one name": {"config r n\nconfig q n\n",
			`F:2: there is a section "n" already, a r (line 1); give this q another name`},
		"NUL":                    {"config r n\noption a '\x00'\n", "F:2: a byte of value 0; allowed is text"},
		"package without a name": {"package\n", "F:1: package takes one name out of a-z A-Z 0-9 _ -"},
		"several": {"config relay a b c\n\toption x 1 2\n\toptoin y\n\toption z 'x\n", strings.Join([]string{
			"F:1: too many words after config; it takes a type and a name, as in: config relay 'home'",
			"F:2: too many words after option x; put a value with blanks into quotes",
			`F:3: unknown word "optoin"; a line begins with config, option or list`,
			"F:4: the ' of line 4 is never closed"}, "\n")},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("F", []byte(c.in))
			var list Errors
			if !errors.As(err, &list) || err.Error() != c.want {
				t.Errorf("got\n%v\nwant\n%s", err, c.want)
			}
		})
	}
}

func TestBounds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte(strings.Repeat("#\n", maxSize/2+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "longer than 4 MiB") {
		t.Error(err)
	}
	options := func(n int) (s string) {
		for i := range n {
			s += "o x" + strconv.Itoa(i) + " 1\n"
		}
		return s
	}
	for want, text := range map[string]string{
		"F:25001: more than 25000 sections; nothing behind it was read": strings.Repeat("c r\n",
			maxSections+9),
		"F:202: more than 200 options in one section; nothing behind it was read": "c r\n" +
			options(maxOptions+9), "F:5002: more than 5000 values of one list; nothing behind it was read": "c r\n" +
			strings.Repeat("l a 1\n", maxValues+9), "F:120002: more than 120000 options and values of lists; nothing " +
			"behind it was read": "c r\n" + strings.Repeat("o a 1\n", maxTotal+9),
		"F:2: a word of 65537 bytes; allowed are at most 65536":      "c r\no a " + strings.Repeat("x", maxValue+1),
		"F: longer than 4 MiB; that is no configuration of ds4relay": strings.Repeat("#", maxSize+1),
	} {
		if _, err := Parse("F", []byte(text)); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	_, err := Parse("F", []byte(strings.Repeat("x\n", 1000)))
	if list := err.(Errors); len(list) != MaxErrors+1 ||
		list[MaxErrors].Error() != "F:100: 900 more mistakes from here on" {
		t.Error(len(list), list[len(list)-1])
	}
	if _, err := Parse("F", []byte(strings.Repeat("c r\no a 1\n", maxSections))); err != nil {
		t.Error(err)
	}
}

// TestMany: go-uci reads values a chunk at a time, with many names of options, and whatever is in them.
func TestMany(t *testing.T) {
	var b strings.Builder
	values := []string{"", "1", "1", "a\tb", "\t", "a\nb", "%09", "it's", `\`, "\xff\x01", strings.Repeat("long ", 5000)}
	for i := range 3000 {
		fmt.Fprintf(&b, "config r 's%d'\n\toption o%d 'x'\n\toption same '%d'\n", i, i, i/3)
		if i%100 == 0 {
			for _, value := range values {
				b.WriteString("\tlist l '" + strings.ReplaceAll(value, "'", `'\''`) + "'\n")
			}
		}
	}
	file, err := Parse("F", []byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	for i := range file.Sections {
		options := file.Sections[i].Options
		if name := "o" + strconv.Itoa(i); options[0].Name != name || options[0].Values[0].Text != "x" ||
			options[1].Values[0].Text != strconv.Itoa(i/3) {
			t.Fatalf("section %d: %+v", i, options)
		}
		if i%100 != 0 {
			continue
		}
		for k, value := range values {
			if got := options[2].Values[k].Text; got != value {
				t.Fatalf("section %d: value %d is %.50q, want %.50q", i, k, got, value)
			}
		}
	}
}

// TestColumn: go-uci's answer takes the place of what was read before.
func TestColumn(t *testing.T) {
	values := []Value{{Text: "a"}, {Text: "b"}, {Text: "b"}}
	r, err := newReader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.file.Close()
	for i := range values {
		r.add("o", &values[i])
	}
	values[0].Text, values[1].Text = "", "" // only go-uci has them now
	if err := r.flush(); err != nil || values[0].Text != "a" || values[1].Text != "b" {
		t.Error(values, err)
	}
}

// TestNoDirectory: a file can be read where nothing can be written.
func TestNoDirectory(t *testing.T) {
	t.Setenv("TMPDIR", "/nowhere")
	if _, err := Parse("F", []byte("config r n\n\toption a 'b'\n")); err != nil {
		t.Error(err)
	}
}

// TestGarbage reads 1 MiB of garbage within limited time and memory.
func TestGarbage(t *testing.T) {
	const size = 1 << 20
	random := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(random)
	for name, data := range map[string][]byte{
		"random":        random,
		"quotes":        bytes.Repeat([]byte("c r '\n"), size/6),
		"open quote":    append([]byte("c r n\no a '"), bytes.Repeat([]byte("x\n"), size/2-8)...),
		"one word":      bytes.Repeat([]byte("x"), size),
		"semicolons":    bytes.Repeat([]byte(";"), size),
		"backslashes":   bytes.Repeat([]byte("\\\n"), size/2),
		"one statement": append([]byte("o a"), bytes.Repeat([]byte(" x"), size/2-2)...),
		"sections":      bytes.Repeat([]byte("c r\n"), size/4),
		"options":       append([]byte("c r\n"), bytes.Repeat([]byte("o a 1\n"), size/6-1)...),
		"list":          append([]byte("c r\n"), bytes.Repeat([]byte("l a 1\n"), size/6-1)...),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if _, err := Parse("F", data); err == nil && name != "options" && name != "open quote" &&
				name != "backslashes" {
				t.Error("read without an error")
			}
			runtime.ReadMemStats(&after)
			if used := after.TotalAlloc - before.TotalAlloc; used > 256<<20 {
				t.Errorf("%d MiB were allocated on the way", used>>20)
			}
		})
	}
}

// render writes a file with the same meaning.
func render(f *File) string {
	var b strings.Builder
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
	for _, s := range f.Sections {
		b.WriteString("config " + quote(s.Type) + " " + quote(s.Name) + "\n")
		for _, o := range s.Options {
			for _, v := range o.Values {
				keyword := "option "
				if o.List {
					keyword = "list "
				}
				b.WriteString(keyword + o.Name + " " + quote(v.Text) + "\n")
			}
		}
	}
	return b.String()
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("config relay 'home'\n\toption a 'it'\\''s'\n\tlist b \"x\\\"\"\nconfig r;\r\no x y#z\n"))
	f.Add([]byte("package p\nc r\nl a ''\nl a ''\no a 'b\nc'\\\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse("F", data)
		if err != nil {
			return
		}
		again, err := Parse("F", []byte(render(file)))
		if err != nil {
			t.Fatalf("%v\n%s", err, render(file))
		}
		strip := func(f *File) *File {
			for i := range f.Sections {
				f.Sections[i].Line = 0
				for j := range f.Sections[i].Options {
					f.Sections[i].Options[j].Line = 0
					for k := range f.Sections[i].Options[j].Values {
						f.Sections[i].Options[j].Values[k].Line = 0
					}
				}
			}
			return f
		}
		if a, b := strip(file), strip(again); !reflect.DeepEqual(a, b) {
			t.Fatalf("%+v\n%+v", a, b)
		}
	})
}
