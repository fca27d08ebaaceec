// Package messagetest checks Texts in tests.
package messagetest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/message"
)

// Catalogue is the list of the codes that translators get, from the top directory of the source.
const Catalogue = "luci-app/luci-app-ds4relay/i18n/messages.js"

var (
	verb  = regexp.MustCompile(`%(?:\[(\d+)\])?[sdqv%]`)
	words = regexp.MustCompile(`\pL\pL`)
)

// Speaks tells whether a code has words to translate, beside its arguments.
func Speaks(code string) bool { return words.MatchString(verb.ReplaceAllString(code, "")) }

// Script is a string of JavaScript.
func Script(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`, "\n", `\n`, "\t", `\t`).Replace(text) + "'"
}

// read reads a file by its name from the top directory of the source.
func read(t *testing.T, name string) string {
	t.Helper()
	top := "."
	for {
		if _, err := os.Stat(filepath.Join(top, "go.mod")); err == nil {
			break
		}
		if abs, err := filepath.Abs(top); err != nil || abs == "/" {
			t.Fatal("there is no go.mod here")
		}
		top = filepath.Join("..", top)
	}
	data, err := os.ReadFile(filepath.Join(top, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Describes reports members of JSON objects that a page does not name.
func Describes(t *testing.T, page string, types ...reflect.Type) {
	t.Helper()
	text := read(t, page)
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice:
			walk(typ.Elem())
		case reflect.Struct:
			for i := range typ.NumField() {
				field := typ.Field(i)
				name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
				if name != "" && name != "-" && !strings.Contains(text, "`"+name+"`") && !strings.Contains(text,
					`"`+name+`"`) {
					t.Errorf("%s does not say what %s.%s (%s) is", page, typ, field.Name, name)
				}
				if name != "" && name != "-" || field.Anonymous {
					walk(field.Type)
				}
			}
		}
	}
	for _, typ := range types {
		walk(typ)
	}
}

// Check reports a Text that does not make the English of an answer, as a program makes it that reads the JSON, and
// codes that the catalogue lacks.
func Check(t *testing.T, text *message.Text, english string) {
	t.Helper()
	all := read(t, Catalogue)
	data, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(strings.NewReader(string(data)))
	decoder.UseNumber()
	var object any
	if err := decoder.Decode(&object); err != nil {
		t.Fatal(err)
	}
	var say func(value any) string
	say = func(value any) string {
		var code string
		var object map[string]any
		switch value := value.(type) {
		case nil: // no Text
			return ""
		case string, json.Number:
			return fmt.Sprint(value)
		case map[string]any:
			code, _ = value["code"].(string)
			object = value
		default:
			t.Errorf("%s has an argument that is neither text nor number nor Text: %v", data, value)
		}
		if Speaks(code) && !strings.Contains(all, "_("+Script(code)+")") {
			t.Errorf("%s lacks %q: go test ./internal/lucitest -run TestMessages -update, then make luci-po and "+
				"translate it", Catalogue, code)
		}
		args, _ := object["args"].([]any)
		next := 0
		return verb.ReplaceAllStringFunc(code, func(found string) string {
			if found == "%%" {
				return "%"
			}
			i := next
			if number := verb.FindStringSubmatch(found)[1]; number != "" {
				n, _ := strconv.Atoi(number)
				i = n - 1
			} else {
				next++
			}
			if i >= len(args) {
				t.Errorf("%q has too few arguments: %v", code, args)
				return ""
			}
			word := say(args[i])
			if strings.HasSuffix(found, "q") {
				return strconv.Quote(word)
			}
			return word
		})
	}
	if said := say(object); said != english {
		t.Errorf("%s makes\n%q, the answer is\n%q", data, said, english)
	}
}
