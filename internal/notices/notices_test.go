package notices

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func licenceText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

const bsd = "Copyright 2001 %\nAll rights reserved.\n\n" +
	"Redistribution and use in source and binary forms, with or without\nmodification, are permitted …\n" +
	"Neither the name of % …\n\n… ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.\n"

// TestWrite: each text appears once, a different text gets another name, notices are included, and an unknown licence
// is refused.
func TestWrite(t *testing.T) {
	own := Module{"github.com/ds4relay/ds4relay", "", []File{{"/LICENSE", licenceText(t, "../../LICENSE")}}}
	module := func(path string, files ...File) Module { return Module{path, "v1", files} }
	from := func(name string) File { return File{"/LICENSE", strings.ReplaceAll(bsd, "%", name)} }
	write := func(debian bool, modules ...Module) (string, string) {
		var b strings.Builder
		if err := Write(&b, append([]Module{own}, modules...), debian); err != nil {
			return b.String(), err.Error()
		}
		return b.String(), ""
	}
	notice := File{"/NOTICE", "This has parts of\n\nCopyright 1999 somebody\n"}
	const linked = "\nComment: linked into the program, version v1\n"
	text, problem := write(false,
		module("a", from("Alice")), module("b", from("Alice"), notice), module("c", from("Carol")))
	for _, want := range []string{
		"\nFiles: a/*\nCopyright: Copyright 2001 Alice\n All rights reserved.\nLicense: BSD-3-Clause" + linked + "\n",
		"\nFiles: b/*\nCopyright: Copyright 2001 Alice\n All rights reserved.\nLicense: BSD-3-Clause" + linked +
			" .\n This has parts of\n .\n Copyright 1999 somebody\n\n",
		"\nFiles: c/*\nCopyright: Copyright 2001 Carol\n All rights reserved.\nLicense: BSD-3-Clause-2\n",
		"\nLicense: Apache-2.0\n  ",
		"\nLicense: BSD-3-Clause\n Redistribution and use",
		"\nLicense: BSD-3-Clause-2\n Redistribution and use",
		"\n Neither the name of Carol …\n .\n … ADVISED",
	} {
		if strings.Count(text, want) != 1 {
			t.Errorf("not once in it: %s", want)
		}
	}
	if problem != "" || strings.Count(text, "Redistribution and use") != 2 {
		t.Errorf("%s\n%s", problem, text)
	}
	text, problem = write(true)
	const common = "/usr/share/common-licenses/Apache-2.0"
	if problem != "" || strings.Contains(text, "TERMS AND CONDITIONS") || !strings.Contains(text, common) {
		t.Errorf("on Debian: %s\n%s", problem, text)
	}
	for want, files := range map[string][]File{
		"m: /LICENSE is of no licence that is known here": {{"/LICENSE", "You may do as you like.\n"}},
		"m: no file has its licence":                      {notice},
	} {
		if _, problem := write(false, module("m", files...)); !strings.Contains(problem, want) {
			t.Errorf("got %q, want %q", problem, want)
		}
	}
	own.Files[0] = from("Alice")
	if _, problem := write(false); !strings.Contains(problem, "no longer Apache-2.0 alone") {
		t.Errorf("with another licence of our own: %q", problem)
	}
}

// TestCollect: licence files are found beside the code, under several names.
func TestCollect(t *testing.T) {
	dir := t.TempDir()
	names := []string{"LICENSE", "LICENSE-MIT.txt", "COPYING", "NOTICE.md", "license.go", "PATENTS", "licences.go"}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	found := map[string]bool{}
	if err := collect(found, dir); err != nil || len(found) != 4 || found[filepath.Join(dir, "license.go")] {
		t.Errorf("found %v, %v", found, err)
	}
}
