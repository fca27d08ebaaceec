//go:build !openwrt && !lab

package main

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/doctor"
	"github.com/ds4relay/ds4relay/internal/kernel/fake"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/message/messagetest"
	"github.com/ds4relay/ds4relay/internal/openwrt"
	"github.com/ds4relay/ds4relay/internal/reconcile"
)

// TestAnswersPage: docs/answers.md names each member of what is answered as JSON.
func TestAnswersPage(t *testing.T) {
	messagetest.Describes(t, "docs/answers.md", reflect.TypeFor[checked](), reflect.TypeFor[examined](),
		reflect.TypeFor[doctor.Answered](),
		reflect.TypeFor[schema](), reflect.TypeFor[openwrt.Service](), reflect.TypeFor[openwrt.Refusal]())
}

// TestOutput: what goes wrong with a command comes over a bus with its code, and what it says beside that does not.
func TestOutput(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) string {
		path := filepath.Join(dir, "config")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	correct := "config relay 'home'\n" + strings.Join(required, "\n") + "\n"
	kernel := fake.New("eth0")
	ask := func(config string, command ...string) (string, error) {
		a := &app{path: write(config), run: filepath.Join(dir, "run"), most: 1 << 20, env: func(string) string {
			return ""
		},
			apply: func(reconcile.Kernel) reconcile.Kernel { return kernel }}
		return a.output(command...)
	}
	if text, err := ask(correct, "status", "--json"); err != nil || !strings.Contains(text, `"differs": [`) {
		t.Errorf("a relay that is down: %v, %s", err, text)
	}
	for _, c := range []struct {
		config  string
		command []string
		code    string // "" for mistakes of the file
		english string
	}{
		{"config relay 'home'\n\toption colour 'red'\n", []string{"status", "--json"}, "", "option ipaddr is missing"},
		{correct, []string{"export", "--", "hom"}, "%v %q", `unknown relay "hom"`},
		{correct + "config relay 'cabin'\n\toption enabled '0'\n" + strings.Join(required, "\n") + "\n",
			[]string{"export"},
			"export takes the name of a relay: each has another end", "export takes"},
	} {
		a := &app{path: write(c.config), run: filepath.Join(dir, "run"), most: 1 << 20,
			env:   func(string) string { return "" },
			apply: func(reconcile.Kernel) reconcile.Kernel { return kernel }}
		_, err := a.output(c.command...)
		if err == nil || !strings.Contains(err.Error(), c.english) || strings.Contains(err.Error(), "warning") {
			t.Errorf("%v: %v", c.command, err)
			continue
		}
		var problems config.Problems
		if c.code == "" && !errors.As(err, &problems) || c.code != "" && message.Of(err).Code != c.code {
			t.Errorf("%v: %#v", c.command, err)
		}
		if c.code != "" {
			messagetest.Check(t, message.Of(err), err.Error())
		}
	}
}

// TestMakeKey: over a bus a key is made in the default file only.
func TestMakeKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	elsewhere := filepath.Join(t.TempDir(), "key")
	text := "config relay 'home'\n\toption role 'router'\n\toption ipaddr '198.51.100.144'\n" +
		"\toption transport 'wireguard'\n\toption peeraddr '198.51.100.144'\n" +
		"\toption public_key 'hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo='\n" +
		"\toption private_key_file '" + elsewhere + "'\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	a := &app{path: path, env: func(string) string { return "" }}
	for relay, want := range map[string]string{
		"home":   "option private_key_file names " + elsewhere + "; make the key on the command line: ds4relay genkey home",
		"":       `genkey "": allowed is a relay's name of 1 to 11 characters out of a-z 0-9 _`,
		"../etc": `genkey "../etc": allowed is a relay's name of 1 to 11 characters out of a-z 0-9 _`,
	} {
		public, err := a.makeKey(relay)
		if err == nil || err.Error() != want || public != "" {
			t.Errorf("%q: %q, %v", relay, public, err)
		}
	}
	if _, err := os.Stat(elsewhere); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the key of the option: %v", err)
	}
}
