package lmo

import (
	"encoding/base64"
	"strings"
	"testing"
)

const catalogue = `# A comment.
msgid ""
msgstr ""
"Content-Type: text/plain; charset=UTF-8\n"
"Plural-Forms: nplurals=2; plural=(n != 1);\n"

#: view/overview.js:7
msgid "Home server"
msgstr "Heimserver"

msgctxt "state"
msgid "up"
msgstr "an"

msgid "%d forward"
msgid_plural "%d forwards"
msgstr[0] "%d Weiterleitung"
msgstr[1] "%d Weiterleitungen"

msgid "the \"VPS\" – "
"überall"
msgstr "der „VPS“\n"
"ü\\berall"

msgid "Status"
msgstr "Status"

msgid "not translated"
msgstr ""

#~ msgid "gone"
#~ msgstr "weg"
`

// compiled is the output of LuCI 24.10's po2lmo for the catalogue.
const compiled = `bnBsdXJhbHM9MjsgcGx1cmFsPShuICE9IDEpO0hlaW1zZXJ2ZXIAAGFuAAAlZCBXZWl0ZXJsZWl0dW5nJWQgV2VpdGVybGVpdHVuZ2VuAABkZXIg4oCeVlBT
4oCcXG7DvFxiZXJhbGwAAAAAAAAAAAAAAAAAAAAcKmEoOgAAAAEAAABQAAAAGKeMJpsAAAABAAAAKAAAAALONqpQAAAAAgAAADwAAAAS3Oe/0AAAAAEAAAAc
AAAACuPptJYAAAACAAAALAAAABAAAABo`

func TestCompile(t *testing.T) {
	want, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(compiled, "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	got, err := Compile(catalogue)
	if err != nil || string(got) != string(want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestCompileNothing(t *testing.T) {
	got, err := Compile("msgid \"a\"\nmsgstr \"\"\n")
	if err != nil || got != nil {
		t.Errorf("no translation: got %q, %v", got, err)
	}
}

func TestCompileErrors(t *testing.T) {
	for po, want := range map[string]string{
		"msgid \"a\"\nmsgstr[1] \"b\"\n": `line 2: "msgstr[1]": the plural forms are numbered from 0 on`,
		"msgid \"a\n":                    "line 1: there should be a text in quotation marks, after a keyword",
		"\"a\"\n":                        "line 1: there should be a text in quotation marks, after a keyword",
		"msg \"a\"\n":                    `line 1: "msg" is no keyword of a .po file`,
	} {
		if _, err := Compile(po); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", po, err, want)
		}
	}
}
