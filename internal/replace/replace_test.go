package replace

import (
	"os"
	"path/filepath"
	"testing"
)

// TestFile: the mode is that which was asked for, and what a killed process left is no obstacle; a failure leaves the
// former file and nothing else.
func TestFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	read := func(want string) {
		t.Helper()
		data, err := os.ReadFile(path)
		entries, _ := os.ReadDir(dir)
		if err != nil || string(data) != want || len(entries) != 1 {
			t.Errorf("%v, %q, %v; want %q alone", err, data, entries, want)
		}
	}
	if err := os.WriteFile(path+Suffix, []byte("left over"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o644, 0o600} {
		if err := File(path, []byte(mode.String()), mode); err != nil {
			t.Fatal(err)
		}
		read(mode.String())
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("%v, mode %v, want %v", err, info.Mode(), mode)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(path+"/x", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := File(path, []byte("text"), 0o644); err == nil {
		t.Error("it took the place of a folder")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%v, left over: %v", err, entries)
	}
}
