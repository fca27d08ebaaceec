//go:build !openwrt && !lab

package main

import (
	"flag"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	architecture = "docs/architecture.md"
	module       = "github.com/ds4relay/ds4relay/"
)

var updateRooms = flag.Bool("update-rooms", false, "write the imports in the tables of docs/architecture.md anew")

// inputOutput are packages that a deciding package may not import, including packages below them. net/netip is not
// among them.
var inputOutput = []string{"os", "net", "syscall", "log", "golang.org/x/sys", "github.com/vishvananda",
	"github.com/godbus"}

// mayDoIO are exceptions among the deciding packages; the page gives the reasons.
var mayDoIO = []string{"internal/uci"}

// rooms is the content of the architecture page: the line of each package in the drawing (the first is 0), its allowed
// imports, and the sets of packages that decide and of those for tests and tools.
type rooms struct {
	line           map[string]int
	imports        map[string][]string
	decides, tools map[string]bool
}

// fullName returns the path of a package that the page calls by its last part.
func fullName(name string) string {
	if strings.HasPrefix(name, "cmd/") {
		return name
	}
	return "internal/" + name
}

func readRooms(t *testing.T) rooms {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, architecture))
	if err != nil {
		t.Fatal(err)
	}
	r := rooms{map[string]int{}, map[string][]string{}, map[string]bool{}, map[string]bool{}}
	section, rows := "", map[string]bool{}
	for i, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(line, "#") {
			section = strings.TrimLeft(line, "# ")
			continue
		}
		if section == "The rooms" && strings.HasPrefix(line, "    ") {
			line, _, _ = strings.Cut(line, "   packages that") // the legend at the right
			line, _, _ = strings.Cut(line, "   commands")
			for _, name := range strings.Fields(strings.Trim(line, " ─")) {
				r.line[fullName(name)] = i
			}
		}
		cells := strings.Split(line, "|")
		if len(cells) < 4 || !strings.HasPrefix(strings.TrimSpace(cells[1]), "`") {
			continue
		}
		name := strings.Trim(cells[1], " `")
		if rows[name] {
			t.Errorf("%s: %s has two rows", architecture, name)
		}
		rows[name] = true
		switch section {
		case "Packages that decide":
			r.decides[name] = true
			fallthrough
		case "Packages that do":
			r.imports[name] = []string{}
			for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[3], -1) {
				r.imports[name] = append(r.imports[name], fullName(m[1]))
			}
		case "Tests and tools":
			r.tools[name] = true
		}
	}
	if len(r.line) == 0 || len(r.imports) == 0 || len(r.decides) == 0 || len(r.tools) == 0 {
		t.Fatalf("%s: no drawing or no tables: %+v", architecture, r)
	}
	return r
}

// writeImports puts what the source imports into the last column of the tables. The drawing stays as it is.
func writeImports(t *testing.T, sources map[string]source) {
	t.Helper()
	path := filepath.Join(root, architecture)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^(\\| `([^`]+)` \\|[^|\n]*\\|)[^|\n]*\\|$")
	written := row.ReplaceAllStringFunc(string(text), func(line string) string {
		m := row.FindStringSubmatch(line)
		src, known := sources[m[2]]
		if !known {
			return line
		}
		var names []string
		for _, imported := range slices.Sorted(maps.Keys(src.imports)) {
			if name, ours := strings.CutPrefix(imported, module+"internal/"); ours {
				names = append(names, "`"+name+"`")
			}
		}
		return m[1] + strings.TrimSuffix(" "+strings.Join(names, ", "), " ") + " |"
	})
	if err := os.WriteFile(path, []byte(written), 0o644); err != nil {
		t.Fatal(err)
	}
}

// isTool reports whether a package is for tests and tools, or below one that is.
func (r rooms) isTool(name string) bool {
	for ; name != "."; name = filepath.Dir(name) {
		if r.tools[name] {
			return true
		}
	}
	return false
}

// source holds the imports of one package: by all of its files, whatever their build tags, and by its tests.
type source struct{ imports, tests map[string]bool }

func readSources(t *testing.T) map[string]source {
	t.Helper()
	sources := map[string]source{}
	for _, dir := range []string{"cmd", "internal"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if entry.IsDir() && entry.Name() == "testdata" {
				return filepath.SkipDir
			}
			if !strings.HasSuffix(path, ".go") {
				return nil
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			name, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				return err
			}
			if _, known := sources[name]; !known {
				sources[name] = source{map[string]bool{}, map[string]bool{}}
			}
			into := sources[name].imports
			if strings.HasSuffix(path, "_test.go") {
				into = sources[name].tests
			}
			for _, spec := range file.Imports {
				imported, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					return err
				}
				if imported != module+name { // an external test of the package itself
					into[imported] = true
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return sources
}

// doesIO reports whether an import lets a package do input or output.
func doesIO(imported string) bool {
	return imported != "net/netip" && slices.ContainsFunc(inputOutput, func(name string) bool {
		return imported == name || strings.HasPrefix(imported, name+"/")
	})
}

// TestRooms: packages import each other as described on the architecture page.
func TestRooms(t *testing.T) {
	sources := readSources(t)
	if *updateRooms {
		writeImports(t, sources)
	}
	r := readRooms(t)
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		src := sources[name]
		for imported := range src.tests {
			imported, ours := strings.CutPrefix(imported, module)
			if ours && r.decides[name] && !r.decides[imported] && !r.isTool(imported) {
				t.Errorf("%s decides, so its tests may not import %s, which does", name, imported)
			}
		}
		if r.isTool(name) {
			for imported := range src.imports {
				if strings.HasPrefix(imported, module+"cmd/") {
					t.Errorf("%s imports a command, %s", name, imported)
				}
			}
			continue
		}
		allowed, listed := r.imports[name]
		if _, drawn := r.line[name]; !drawn || !listed {
			t.Errorf("%s: add %s to the drawing and to a table", architecture, name)
			continue
		}
		for imported := range src.imports {
			if r.decides[name] && doesIO(imported) && !slices.Contains(mayDoIO, name) {
				t.Errorf("%s decides, so it may not import %s", name, imported)
			}
			imported, ours := strings.CutPrefix(imported, module)
			switch {
			case !ours:
			case r.isTool(imported):
				t.Errorf("%s imports %s, which is for tests and tools", name, imported)
			case r.decides[name] && !r.decides[imported]:
				t.Errorf("%s decides, so it may not import %s, which does", name, imported)
			case !slices.Contains(allowed, imported):
				t.Errorf("%s may not import %s: its row in %s does not list it", name, imported, architecture)
			case r.line[imported] <= r.line[name]:
				t.Errorf("%s may not import %s: that is not on a lower line of the drawing", name, imported)
			}
		}
		for _, imported := range allowed {
			if !src.imports[module+imported] {
				t.Errorf("%s: the row of %s lists %s, which it does not import", architecture, name, imported)
			}
		}
	}
	named := slices.Concat(slices.Collect(maps.Keys(r.line)), slices.Collect(maps.Keys(r.imports)),
		slices.Collect(maps.Keys(r.tools)))
	for _, name := range named {
		if _, exists := sources[name]; !exists {
			t.Errorf("%s: there is no package %s", architecture, name)
		}
	}
}
