package uci_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	goci "github.com/digineo/go-uci"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config/configtest"
	"github.com/ds4relay/ds4relay/internal/uci"
)

// TestEdit: what each change makes of an owner's text.
func TestEdit(t *testing.T) {
	for name, c := range map[string]struct {
		in      string
		changes []uci.Change
		want    string
	}{
		"a new file": {"", []uci.Change{uci.AddSection("relay", "home"), uci.Set("home", "role", "vps"),
			uci.AddList("home", "keep", "tcp:22"), uci.AddList("home", "keep", "tcp:80")},
			"config relay 'home'\n\toption role 'vps'\n\tlist keep 'tcp:22'\n\tlist keep 'tcp:80'\n"},
		"a value with a comment behind it": {"config r n\n  option a  \"1\"   # one\n",
			[]uci.Change{uci.Set("n", "a", "2")}, "config r n\n  option a  '2'   # one\n"},
		"the same value": {"config r n\n\toption a \"1\"\n", []uci.Change{uci.Set("n", "a", "1")},
			"config r n\n\toption a \"1\"\n"},
		"the one that is in effect": {"config r n\noption a 1\noption a 2\n", []uci.Change{uci.Set("n", "a", "3")},
			"config r n\noption a 1\noption a '3'\n"},
		"an option without a value": {"config r n\n\toption a ''\n", []uci.Change{uci.Set("n", "a", "1")},
			"config r n\n\toption a '1'\n"},
		"an option without a word": {"config r n\n\toption a # x\n", []uci.Change{uci.Set("n", "a", "1")},
			"config r n\n\toption a '1' # x\n"},
		"an option for a list": {"config r n\n\tlist a 1 # x\n\toption b 1\n\tlist a 2 # y\n",
			[]uci.Change{uci.Set("n", "a", "3")}, "config r n\n\toption b 1\n\toption a '3' # y\n"},
		"a list that was an option": {"config r n\n    option a 1\n    option b 1\n",
			[]uci.Change{uci.AddList("n", "a", "2")},
			"config r n\n    option a 1\n    list a '2'\n    option b 1\n"},
		"a new option": {"config r n # x\n  option a 1\n#  option b 1\n\nconfig r m\n",
			[]uci.Change{uci.Set("n", "b", "2"), uci.Set("m", "b", "3")},
			"config r n # x\n  option a 1\n  option b '2'\n#  option b 1\n\nconfig r m\n  option b '3'\n"},
		"a section in two parts": {"config r n\n\toption a 1\nconfig r m\nconfig r n\n\toption b 1\n",
			[]uci.Change{uci.Set("n", "c", "1"), uci.Delete("n", "a")},
			"config r n\nconfig r m\nconfig r n\n\toption b 1\n\toption c '1'\n"},
		"no last line feed": {"config r n\n\toption a 1", []uci.Change{uci.Set("n", "b", "2"),
			uci.AddSection("r", "m")}, "config r n\n\toption a 1\n\toption b '2'\n\nconfig r 'm'\n"},
		"a line of Windows": {"config r n\r\n\toption a 1\r\n", []uci.Change{uci.Set("n", "b", "2"),
			uci.Set("n", "a", "3")}, "config r n\r\n\toption a '3'\r\n\toption b '2'\r\n"},
		"a byte order mark": {"\ufeffconfig r n\n", []uci.Change{uci.Set("n", "b", "2")},
			"\ufeffconfig r n\n\toption b '2'\n"},
		"quotes": {"config r n\n", []uci.Change{uci.Set("n", "a", "Dad's NAS"), uci.Set("n", "b", `a"\`),
			uci.Set("n", "c", `it's "\"`)}, "config r n\n\toption a \"Dad's NAS\"\n\toption b 'a\"\\'\n" +
			"\toption c \"it's \\\"\\\\\\\"\"\n"},
		"a value over two lines": {"config r n\n\toption a 'x\ny' # z\n", []uci.Change{uci.Set("n", "a", "1")},
			"config r n\n\toption a '1' # z\n"},
		"an anonymous section": {"config f\n\toption a 1\nconfig f\n\toption a 2\n",
			[]uci.Change{uci.Set("@f[0]", "a", "3"), uci.Set("@f[-1]", "a", "4"), uci.AddSection("f", ""),
				uci.Set("@f[-1]", "a", "5")},
			"config f\n\toption a '3'\nconfig f\n\toption a '4'\n\nconfig f\n\toption a '5'\n"},
		"a deleted section": {"# x\n\nconfig r n\n\toption a 1\n# b\n\toption b 1\n# y\n\nconfig r m\n",
			[]uci.Change{uci.DeleteSection("n")}, "# x\n\n# y\n\nconfig r m\n"},
		"options in comments go with their section": {"config r n\n\toption a 'b'\n#\toption c 'd'\n# list e 'f' # g\n" +
			"# option of mine\n\nconfig r m\n", []uci.Change{uci.DeleteSection("n")}, "# option of mine\n\nconfig r m\n"},
		"the only section": {"config r n\n\n# x\n", []uci.Change{uci.DeleteSection("n")}, "# x\n"},
		"a section in two parts, at the beginning": {"config r n\n\toption a 1\n\nconfig r n\n\toption b 1\n\n# x\n",
			[]uci.Change{uci.DeleteSection("n")}, "\n# x\n"},
		"nothing to delete": {"config r n\n", []uci.Change{uci.DeleteSection("m"), uci.Delete("n", "a"),
			uci.Delete("m", "a")}, "config r n\n"},
		"a section that is there": {"config r n\n", []uci.Change{uci.AddSection("r", "n")}, "config r n\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := uci.Edit([]byte(c.in), c.changes...)
			if err != nil || string(got) != c.want {
				t.Errorf("%v, got\n%q\nwant\n%q", err, got, c.want)
			}
		})
	}
}

// TestEditRefuses: what cannot be written so that it is read back.
func TestEditRefuses(t *testing.T) {
	for _, c := range []struct {
		text   string
		change uci.Change
		want   string
	}{
		{"config r n\n", uci.Set("n", "a", ""), `option a cannot be ""; allowed is text of 1 to 65536 bytes`},
		{"config r n\n", uci.Set("n", "a", "\x00"), `option a cannot be "\x00"; allowed is text of 1 to 65536 bytes`},
		{"config r n\n", uci.Set("m", "a", "1"), `there is no section "m"`},
		{"config r n\n", uci.AddList("@r[1]", "a", "1"), `there is no section "@r[1]"`},
		{"config r n\n", uci.Set("n", "a-b", "1"),
			`the option name "a-b" has a character that is not allowed; letters, digits and _ are`},
		{"config r n\n", uci.AddSection("q", "n"), `there is a section "n" already, a r; give this q another name`},
		{"config r n\n", uci.AddSection("r", "a b"),
			`no section can be called "r" "a b"; letters, digits and _ are allowed`},
		{"confg r n\n", uci.Set("n", "a", "1"),
			`the file:1: unknown word "confg"; a line begins with config, option or list`},
	} {
		if got, err := uci.Edit([]byte(c.text), c.change); err == nil || err.Error() != c.want {
			t.Errorf("%q, %v, want %s", got, err, c.want)
		}
	}
}

// texts are what random edits begin with: the packages' files, and random ones, also in other people's handwriting.
func texts(t *testing.T, r *rand.Rand) []string {
	t.Helper()
	var list []string
	for _, path := range []string{"debian", "openwrt"} {
		data, err := os.ReadFile("../../files/" + path + "/etc/config/ds4relay")
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, string(data))
	}
	for range 3 {
		for _, role := range []string{"vps", "router"} {
			text := configtest.Random(r, role)
			list = append(list, text, handwritten(r, text))
		}
	}
	return list
}

// handwritten writes a file as people do: with comments, blank lines, other quotes and other white space.
func handwritten(r *rand.Rand, text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if line == "\n" {
			b.WriteString(line)
			continue
		}
		switch r.IntN(8) {
		case 0:
			b.WriteString("# it's \"a\" comment\n")
		case 1:
			line = strings.ReplaceAll(line, "'", `"`)
		case 2:
			line = strings.ReplaceAll(line, "\t", "    ")
		case 3:
			line = strings.TrimSuffix(line, "\n") + "\t# 'x\n"
		case 4:
			line = strings.ReplaceAll(line, "'", "")
		case 5:
			line = "\n" + line
		case 6:
			line = strings.TrimSuffix(line, "\n") + " ; # x\n"
		}
		b.WriteString(line)
	}
	return strings.TrimSuffix(b.String(), "\n"[:r.IntN(2)])
}

// randomValue has every character that quoting is about.
func randomValue(r *rand.Rand) string {
	parts := []string{"a", "tcp:22", " ", "'", `"`, `\`, "#", ";", "\t", "ö", "'\\''", "192.168.1.210", "\n", "%27"}
	var b strings.Builder
	for range 1 + r.IntN(4) {
		b.WriteString(parts[r.IntN(len(parts))])
	}
	return b.String()
}

// flat is what a file says, by section, option and value.
func flat(t *testing.T, text []byte) map[string][]string {
	t.Helper()
	file, err := uci.Parse("F", text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	said := map[string][]string{}
	for i, s := range file.Sections {
		name := s.Name
		if s.Anonymous {
			name = fmt.Sprintf("@%d", i)
		}
		said[name] = []string{s.Type}
		for _, o := range s.Options {
			for _, v := range o.Values {
				said[name+"."+o.Name] = append(said[name+"."+o.Name], v.Text)
			}
		}
	}
	return said
}

// TestEditRandom: of random changes in random files, exactly the changed values are others afterwards, by our parser
// and by go-uci, and every line that is about something else stays as it was.
func TestEditRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	rounds := 0
	for range 40 {
		for _, text := range texts(t, r) {
			before := flat(t, []byte(text))
			file, _ := uci.Parse("F", []byte(text))
			section := file.Sections[r.IntN(len(file.Sections))]
			option := "new_option"
			if len(section.Options) > 0 && r.IntN(3) > 0 {
				option = section.Options[r.IntN(len(section.Options))].Name
			}
			value, key := randomValue(r), section.Name+"."+option
			var change uci.Change
			switch r.IntN(5) {
			case 0, 1:
				change, before[key] = uci.Set(section.Name, option, value), []string{value}
			case 2:
				change, before[key] = uci.AddList(section.Name, option, value), append(before[key], value)
			case 3:
				change = uci.Delete(section.Name, option)
				delete(before, key)
			case 4:
				change, option = uci.DeleteSection(section.Name), "*"
				for k := range before {
					if k == section.Name || strings.HasPrefix(k, section.Name+".") {
						delete(before, k)
					}
				}
			}
			edited, err := uci.Edit([]byte(text), change)
			if err != nil {
				t.Fatalf("%+v: %v in\n%s", change, err, text)
			}
			if after := flat(t, edited); !equal(before, after) {
				t.Fatalf("%+v: %v, want %v\n%s", change, after, before, edited)
			}
			others(t, text, string(edited), option, value)
			if !strings.Contains(value, "\n") && !strings.Contains(value, `\`) && !strings.Contains(value, `"`) {
				readByGoUCI(t, string(edited), section.Name, option, value, before[key])
			}
			readByUCI(t, edited, key, before[key])
			rounds++
		}
	}
	if rounds < 500 {
		t.Error(rounds)
	}
}

func equal(a, b map[string][]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k := range a {
		if !slices.Equal(a[k], b[k]) {
			return false
		}
	}
	return true
}

// others compares the lines that are not about an option: all are there, in their order. Of a deleted section (*) only
// what is left must have been there.
func others(t *testing.T, before, after, option, value string) {
	t.Helper()
	about := func(line string) bool { return strings.Contains(line, option) || strings.TrimSpace(line) == "" }
	first := slices.DeleteFunc(strings.Split(before, "\n"), about)
	rest := strings.Split(after, "\n")
	if option == "*" {
		first, rest = slices.DeleteFunc(rest, about), strings.Split(before, "\n")
	}
	for _, line := range first {
		i := slices.Index(rest, line)
		if i < 0 {
			t.Fatalf("the line %q is gone or another one (%s, %q):\n%s\nnow\n%s", line, option, value, before, after)
		}
		rest = rest[i+1:]
	}
}

// readByGoUCI reads a value by go-uci alone, out of a file whose other lines it can read.
func readByGoUCI(t *testing.T, text, section, option, _ string, want []string) {
	t.Helper()
	if strings.Contains(text, " ; #") || !strings.HasSuffix(text, "\n") || len(want) == 0 {
		return
	}
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/f", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	tree := goci.NewTree(dir)
	if err := tree.LoadConfig("f", false); err != nil {
		t.Fatalf("go-uci: %v in\n%s", err, text)
	}
	got, ok := tree.Get("f", section, option)
	want = slices.Compact(slices.Clone(want))
	if !ok || !slices.Equal(got, want) {
		t.Fatalf("go-uci reads %q, want %q in\n%s", got, want, text)
	}
}

// readByUCI asks the real uci(1), where DS4RELAY_UCI says where it is.
func readByUCI(t *testing.T, text []byte, key string, want []string) {
	t.Helper()
	program := os.Getenv("DS4RELAY_UCI")
	if program == "" || strings.Contains(key, "*") {
		return
	}
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/f", text, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(program, "-q", "-c", dir, "-d", "\x01", "show", "f."+key).Output()
	if len(want) == 0 {
		if len(out) > 0 {
			t.Fatalf("uci reads %q, which is deleted in\n%s", out, text)
		}
		return
	}
	quoted := make([]string, len(want)) // as uci shows them
	for i := range want {
		quoted[i] = "'" + strings.ReplaceAll(want[i], "'", `'\''`) + "'"
	}
	if got := strings.TrimSuffix(string(out), "\n"); err != nil || got != "f."+key+"="+strings.Join(quoted, "\x01") {
		t.Fatalf("uci: %v, %q, want %q in\n%s", err, got, want, text)
	}
}

// TestEditBack: a section that is added and deleted again leaves the file as it was.
func TestEditBack(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, text := range append(texts(t, r), "", "config r n\n\n", "# x\n") {
		if text != "" && !strings.HasSuffix(text, "\n") {
			continue
		}
		edited, err := uci.Edit([]byte(text), uci.AddSection("relay", "cabin"), uci.Set("cabin", "role", "vps"),
			uci.DeleteSection("cabin"))
		if err != nil || strings.TrimRight(string(edited), "\n") != strings.TrimRight(text, "\n") {
			t.Errorf("%v\n%q\nwant\n%q", err, edited, text)
		}
	}
}

func FuzzEdit(f *testing.F) {
	f.Add("config relay 'home'\n\toption a 'it'\\''s'\n\tlist a \"x\\\"\"\nconfig r home;\r\no x y#z\n", "x", "it's")
	f.Add("package p\nc r home\nl a ''\nl a ''\no a 'b\nc'\\\n", "a", "\\\"'")
	f.Fuzz(func(t *testing.T, text, option, value string) {
		for _, change := range []uci.Change{uci.Set("home", option, value), uci.AddList("home", option, value),
			uci.Delete("home", option), uci.DeleteSection("home"), uci.AddSection("relay", "cabin")} {
			edited, err := uci.Edit([]byte(text), change)
			if err != nil {
				continue
			}
			if _, err := uci.Parse("F", edited); err != nil {
				t.Fatalf("%v\n%q", err, edited)
			}
		}
	})
}

// TestSave: mode and owner stay, a copy is kept once, and a file that has changed meanwhile stays as it is.
func TestSave(t *testing.T) {
	etc := t.TempDir()
	path, copied := filepath.Join(etc, "config", "ds4relay"), filepath.Join(etc, "ds4relay", "ds4relay.before")
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	first, second, third := []byte("config r n\n"), []byte("config r m\n"), []byte("config r o\n")
	read := func(path, want string, mode os.FileMode) {
		t.Helper()
		data, err := os.ReadFile(path)
		info, err2 := os.Stat(path)
		if err := errors.Join(err, err2); err != nil || string(data) != want || info.Mode() != mode {
			t.Errorf("%v, %q, %v; want %q, %v", err, data, info.Mode(), want, mode)
		}
	}
	if err := uci.Save(path, nil, first); err != nil {
		t.Fatal(err)
	}
	read(path, "config r n\n", 0o644)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 12, 34); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range [][]byte{second, third} {
		now, _ := os.ReadFile(path)
		if err := uci.Save(path, now, text); err != nil {
			t.Fatal(err)
		}
	}
	read(path, "config r o\n", 0o640)
	read(copied, "config r n\n", 0o600)
	if info, err := os.Stat(filepath.Dir(copied)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder of the copy: %v, %v", info, err)
	}
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); os.Geteuid() == 0 && (err != nil || stat.Uid != 12 || stat.Gid != 34) {
		t.Errorf("the owner is %d:%d, want 12:34; %v", stat.Uid, stat.Gid, err)
	}
	for _, former := range [][]byte{nil, first} {
		err := uci.Save(path, former, second)
		if err == nil || !strings.Contains(err.Error(), "was changed by somebody else meanwhile") {
			t.Error(err)
		}
	}
	if err := uci.Save(path, third, []byte("confg")); err == nil {
		t.Error("a file with a mistake was written")
	}
	read(path, "config r o\n", 0o640)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := uci.Save(link, third, first); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Error("the symbolic link is gone", err)
	}
	read(path, "config r n\n", 0o640)
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, left over: %v", err, entries)
	}
	if !bytes.Equal(first, []byte("config r n\n")) {
		t.Error("the text was changed")
	}
}

// TestCopyPath: OpenWrt takes each file in /etc/config for a configuration.
func TestCopyPath(t *testing.T) {
	for path, want := range map[string]string{"/etc/config/ds4relay": "/etc/ds4relay/ds4relay.before",
		"/tmp/new": "/tmp/new.before", "new": "new.before", "config/ds4relay": "ds4relay/ds4relay.before"} {
		if got := uci.CopyPath(path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

// TestUndo: the file and its copy are as they were before Save.
func TestUndo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ds4relay")
	copied := uci.CopyPath(path)
	first, second, third := []byte("config r n\n"), []byte("config r m\n"), []byte("config r o\n")
	do := func(f func(string, []byte, []byte) error, former, text []byte, want, wantCopy string) {
		t.Helper()
		if err := f(path, former, text); err != nil {
			t.Fatal(err)
		}
		now, _ := os.ReadFile(path)
		kept, _ := os.ReadFile(copied)
		if string(now) != want || string(kept) != wantCopy {
			t.Errorf("%q, the copy %q; want %q, %q", now, kept, want, wantCopy)
		}
	}
	do(uci.Save, nil, first, "config r n\n", "")
	do(uci.Undo, nil, first, "", "")
	do(uci.Save, nil, first, "config r n\n", "")
	do(uci.Save, first, second, "config r m\n", "config r n\n")
	do(uci.Undo, first, second, "config r n\n", "")
	do(uci.Save, first, second, "config r m\n", "config r n\n")
	do(uci.Save, second, third, "config r o\n", "config r n\n")
	do(uci.Undo, second, third, "config r m\n", "config r n\n")
	for _, former := range [][]byte{nil, first} {
		if err := uci.Undo(path, former, third); err == nil {
			t.Error("what somebody else has written is gone")
		}
	}
	do(uci.Save, second, third, "config r o\n", "config r n\n")
}

// TestSaveFails: a copy is not left behind where the file could not be written.
func TestSaveFails(t *testing.T) {
	// A name that leaves no room for what Save adds to that of its temporary file.
	path := filepath.Join(t.TempDir(), strings.Repeat("x", 248))
	if err := os.WriteFile(path, []byte("config r n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := uci.Save(path, []byte("config r n\n"), []byte("config r m\n")); err == nil {
		t.Error("it was written")
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("%v, left over: %v", err, entries)
	}
}
