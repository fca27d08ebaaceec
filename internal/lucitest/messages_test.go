package main

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
)

var update = flag.Bool("update", false, "write messages.js anew")

const messagesPath = "../../luci-app/luci-app-ds4relay/htdocs/luci-static/resources/ds4relay/messages.js"

// speaking are the functions whose arguments are sentences for a person, or formats of such.
var speaking = []string{
	"Errorf", "New", "Sprintf", "problem", "problemAt", "relayProblem", "forwardProblem", "fail", "ok", "skipped", "failed", "warning", "append",
}

// words collects the formats of sentences of a directory's Go files.
func words(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	constants := map[string]ast.Expr{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.ValueSpec); ok {
				for i, value := range spec.Values {
					constants[spec.Names[i].Name] = value
				}
			}
			return true
		})
	}
	var found []string
	add := func(e ast.Expr) {
		if text, ok := constant(e, constants); ok && speaks(text) && !slices.Contains(found, text) {
			found = append(found, text)
		}
	}
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if slices.Contains(speaking, called(n)) {
					for _, argument := range n.Args {
						add(argument)
					}
				}
			case *ast.KeyValueExpr:
				if key, ok := n.Key.(*ast.Ident); ok && slices.Contains([]string{"title", "Title", "Evidence", "Remedy", "Message"}, key.Name) {
					add(n.Value)
				}
			case *ast.CompositeLit:
				for _, element := range n.Elts {
					add(element)
				}
			case *ast.ReturnStmt:
				for _, result := range n.Results {
					add(result)
				}
			case *ast.AssignStmt:
				for _, value := range n.Rhs {
					add(value)
				}
			}
			return true
		})
	}
	return found
}

func called(call *ast.CallExpr) string {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		return f.Sel.Name
	}
	return ""
}

// constant is the value of a string expression of literals and constants; other values in it are %s.
func constant(e ast.Expr, constants map[string]ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, err == nil && e.Kind == token.STRING
	case *ast.BinaryExpr:
		left, ok1 := constant(e.X, constants)
		right, ok2 := constant(e.Y, constants)
		if !ok1 {
			left = "%s"
		}
		if !ok2 {
			right = "%s"
		}
		return left + right, (ok1 || ok2) && e.Op == token.ADD
	case *ast.Ident:
		if value, ok := constants[e.Name]; ok {
			return constant(value, nil)
		}
	}
	return "", false
}

var (
	verb     = regexp.MustCompile(`%(\[\d+\])?[sdqvwx]`)
	sentence = regexp.MustCompile(`[a-zA-Z]{2,}[,;:]? [a-zA-Z0-9(]`)
	command  = regexp.MustCompile(`^[ ;(]|[^,] $|^(ip|nft|sysctl|ethtool|conntrack|table|add|tc) |[{}\n]|^config |^#`)
)

// speaks tells a sentence from a command, a key or a line of a file.
func speaks(text string) bool {
	plain := verb.ReplaceAllString(text, "")
	return sentence.MatchString(plain) && !command.MatchString(text) && len(plain) > 8
}

// The page translates what the program says: it knows the formats of its sentences.
func TestMessages(t *testing.T) {
	var needed []string
	for _, section := range config.Schema {
		for _, spec := range section.Options {
			needed = append(needed, spec.Allowed)
		}
	}
	needed = append(needed, words(t, "../config")...)
	all := append([]string{"allowed is %s"}, needed...)
	for _, dir := range []string{"../uci", "../doctor", "../openwrt", "../resolve", "../evidence", "../packet", "../wire"} {
		if _, err := os.Stat(dir); err == nil {
			all = append(all, words(t, dir)...)
		}
	}
	for _, file := range []string{"../control", "../kernel", "../state", "../../cmd/ds4relay"} {
		for _, text := range words(t, file) {
			if strings.Contains(text, "relay %q") || strings.Contains(text, "connections") || strings.Contains(text, "delegated") || strings.Contains(text, "ip6addr") {
				all = append(all, text)
			}
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if *update {
		if err := os.WriteFile(messagesPath, []byte(messages(all)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(messagesPath)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range needed {
		if !strings.Contains(string(data), "M("+script(text)+")") {
			t.Errorf("%s lacks %q: go test ./internal/lucitest -run TestMessages -update, then make luci-po and translate it", messagesPath, text)
		}
	}
}

// messages is the module messages.js.
func messages(all []string) string {
	var b strings.Builder
	b.WriteString(`'use strict';
'require baseclass';

/*
 * What the program says, with the verbs of its formats: made of its source by
 * go test ./internal/lucitest -run TestMessages -update
 */

const M = (text) => text;

return baseclass.extend({
	formats: [
`)
	for i, text := range all {
		comma := ","
		if i == len(all)-1 {
			comma = ""
		}
		fmt.Fprintf(&b, "\t\tM(%s)%s\n", script(text), comma)
	}
	b.WriteString("\t]\n});\n")
	return b.String()
}

// script is a string of JavaScript.
func script(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`, "\n", `\n`, "\t", `\t`).Replace(text) + "'"
}
