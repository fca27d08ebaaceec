package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message/messagetest"
)

var update = flag.Bool("update", false, "write messages.js anew")

const (
	top          = "../../"
	messagesPath = top + messagetest.Catalogue
)

// source is what a package of the router's program is made of.
type source struct {
	name      string
	files     []*ast.File
	constants map[string]ast.Expr
	says      map[string]int // functions with a parameter `code string`, and which parameter that is
}

// answering are the packages that make a VPS's answers to its homes, which LuCI shows there.
var answering = []string{"./internal/pushed", "./internal/paired", "./internal/authorized"}

// router is the source of the router's program, and of what it is answered.
func router(t *testing.T) []source {
	t.Helper()
	const ours = "{{if .Module}}{{if .Module.Main}}{{.Dir}}{{end}}{{end}}"
	list := exec.Command("go", append([]string{"list", "-tags", "openwrt", "-deps", "-f", ours, "./cmd/ds4relay"},
		answering...)...)
	list.Dir = top
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	built := build.Default
	built.BuildTags = []string{"openwrt"}
	var sources []source
	for _, dir := range strings.Fields(string(out)) {
		s := source{constants: map[string]ast.Expr{}, says: map[string]int{}}
		names, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			match, err := built.MatchFile(dir, filepath.Base(name))
			if err != nil || !match || strings.HasSuffix(name, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			s.name = file.Name.Name
			s.files = append(s.files, file)
			s.declare(file)
		}
		sources = append(sources, s)
	}
	return sources
}

// declare takes a file's constants and the functions that say what they are called with.
func (s *source) declare(file *ast.File) {
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if values, ok := spec.(*ast.ValueSpec); ok {
					for i, value := range values.Values {
						s.constants[values.Names[i].Name] = value
					}
				}
			}
		case *ast.FuncDecl:
			n := 0
			for _, field := range d.Type.Params.List {
				typ, _ := field.Type.(*ast.Ident)
				for _, name := range field.Names {
					if name.Name == "code" && typ != nil && typ.Name == "string" {
						s.says[d.Name.Name] = n
					}
					n++
				}
			}
		}
	}
}

// codes are those of the package's Texts. A code that is put together while the program runs is an error, but for what
// the schema and the doctor's checks call theirs, and for copies.
func (s *source) codes(t *testing.T) []string {
	t.Helper()
	var found []string
	add := func(e ast.Expr) {
		text, ok := s.constant(e)
		switch name := last(e); {
		case ok:
			found = append(found, text)
		case !slices.Contains([]string{"code", "Allowed", "Title", "Code"}, name):
			t.Errorf("package %s: the code of a message is no constant: %T %s", s.name, e, name)
		}
	}
	for _, file := range s.files {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				name := last(n.Fun)
				if selector, ok := n.Fun.(*ast.SelectorExpr); ok && last(selector.X) == "message" {
					if name == "New" {
						add(n.Args[0])
					}
				} else if i, ok := s.says[name]; ok && i < len(n.Args) && !n.Ellipsis.IsValid() {
					add(n.Args[i])
				}
			case *ast.KeyValueExpr:
				if key := last(n.Key); s.name == "doctor" && key == "title" || key == "Code" && s.name != "message" {
					add(n.Value)
				}
			}
			return true
		})
	}
	return found
}

// last is the last part of a name.
func last(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

// constant is the value of an expression of string literals and constants.
func (s *source) constant(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, err == nil && e.Kind == token.STRING
	case *ast.BinaryExpr:
		left, ok1 := s.constant(e.X)
		right, ok2 := s.constant(e.Y)
		return left + right, ok1 && ok2 && e.Op == token.ADD
	case *ast.Ident:
		if value, ok := s.constants[e.Name]; ok {
			return s.constant(value)
		}
	}
	return "", false
}

// TestMessages: whatever the router's program says is in the list that translators get.
func TestMessages(t *testing.T) {
	var all []string
	for _, section := range config.Schema {
		for _, spec := range section.Options {
			all = append(all, spec.Allowed)
		}
	}
	for _, s := range router(t) {
		all = append(all, s.codes(t)...)
	}
	all = slices.DeleteFunc(all, func(code string) bool { return !messagetest.Speaks(code) })
	slices.Sort(all)
	want := messages(slices.Compact(all))
	if *update {
		if err := os.WriteFile(messagesPath, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(messagesPath)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want) {
		t.Errorf("%s is not what the program says: go test ./internal/lucitest -run TestMessages -update, "+
			"then make luci-po and translate it", messagesPath)
	}
}

// messages is the file messages.js.
func messages(all []string) []byte {
	var b bytes.Buffer
	b.WriteString(`/*
 * The codes of what the program says, for LuCI's scanner of translations; no page loads this. It is made of the
 * program's source: go test ./internal/lucitest -run TestMessages -update
 */

`)
	for _, text := range all {
		fmt.Fprintf(&b, "_(%s);\n", messagetest.Script(text))
	}
	return b.Bytes()
}
