package message

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"testing"
	"time"
)

// TestText: the English, the JSON, and the errors that are found in it.
func TestText(t *testing.T) {
	gone := New("the file is gone: %v", fs.ErrNotExist)
	for _, c := range []struct {
		text          *Text
		english, json string
	}{
		{New("no answer"), "no answer", `{"code":"no answer"}`},
		{New("50%% of %q", "a\"b"), `50% of "a\"b"`, `{"code":"50%% of %q","args":["a\"b"]}`},
		{New("%d of %s within %v", uint16(3), netip.MustParseAddr("2001:db8::1"), 3*time.Second),
			"3 of 2001:db8::1 within 3s",
			`{"code":"%d of %s within %v","args":[3,"2001:db8::1","3s"]}`},
		{New("relay %q: %v", "home", gone), `relay "home": the file is gone: file does not exist`,
			`{"code":"relay %q: %v","args":["home",{"code":"the file is gone: %v","args":["file does not exist"]}]}`},
		{New("%v", errors.Join(gone, fs.ErrClosed)), "the file is gone: file does not exist\nfile already closed",
			`{"code":"%v","args":[{"code":"%s\n%s","args":[` +
				`{"code":"the file is gone: %v","args":["file does not exist"]},` +
				`{"code":"%s","args":["file already closed"]}]}]}`},
		{Of(errors.Join(gone)), "the file is gone: file does not exist",
			`{"code":"the file is gone: %v","args":["file does not exist"]}`},
		{Of(fmt.Errorf("%w and %w", gone, fs.ErrClosed)),
			"the file is gone: file does not exist and file already closed",
			`{"code":"%s","args":["the file is gone: file does not exist and file already closed"]}`},
		{Join("; ", New("a b"), nil, New("c d")), "a b; c d",
			`{"code":"%s; %s","args":[{"code":"a b"},{"code":"c d"}]}`},
		{Join("; ", New("a b")), "a b", `{"code":"a b"}`},
	} {
		data, err := json.Marshal(c.text)
		if c.text.Error() != c.english || err != nil || string(data) != c.json {
			t.Errorf("%q, want %q\n%s, want\n%s (%v)", c.text.Error(), c.english, data, c.json, err)
		}
	}
	outer := error(New("relay %q: %v", "home", errors.Join(fs.ErrClosed, gone)))
	if !errors.Is(outer, fs.ErrNotExist) || !errors.Is(outer, New("the file is gone: %v", nil)) ||
		errors.Is(outer, New("no answer")) {
		t.Error("errors are not found in a Text")
	}
}

// TestLines: an error of several lines is several Texts, and no line is lost.
func TestLines(t *testing.T) {
	err := errors.Join(New("a b"), errors.Join(New("c %s", "d")), errors.New("e\nf"))
	want := []string{"a b", "c %s", "%s", "%s"}
	lines := Lines(err)
	if len(lines) != len(want) {
		t.Fatalf("%v", lines)
	}
	english := ""
	for i, line := range lines {
		english += "\n" + line.Error()
		if line.Code != want[i] {
			t.Errorf("%q, want %q", line.Code, want[i])
		}
	}
	if english[1:] != err.Error() || Lines(nil) != nil {
		t.Errorf("%q", english)
	}
}
