package kernel

import (
	"os"
	"path/filepath"
	"testing"
)

// TestServed: a note is read again, whatever was in its place, and a file system that refuses it leaves nothing behind.
func TestServed(t *testing.T) {
	k := &Kernel{Kept: filepath.Join(t.TempDir(), "etc")}
	is := func(want string) {
		t.Helper()
		if got, err := k.Served("home"); err != nil || got != want {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	}
	is("")
	dir := filepath.Join(k.Kept, "served")
	for _, address := range []string{"198.51.100.144", "203.0.113.7"} {
		if err := k.NoteServed("home", address); err != nil {
			t.Fatal(err)
		}
		is(address)
	}
	for path, mode := range map[string]os.FileMode{k.Kept: 0o700, dir: 0o700, filepath.Join(dir, "home"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want mode %o", path, info, err, mode)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "cabin", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := k.Served("cabin"); err == nil {
		t.Errorf("a directory says %q", got)
	}
	if err := k.NoteServed("cabin", "203.0.113.7"); err != nil {
		t.Error(err)
	}
	if got, err := k.Served("cabin"); err != nil || got != "203.0.113.7" {
		t.Errorf("got %q, %v", got, err)
	}

	blocked := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	k = &Kernel{Kept: blocked}
	if err := k.NoteServed("home", "198.51.100.144"); err == nil {
		t.Error("a note below a file")
	}
}
