package vm

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestWarmPaths: a program's libraries, and the symbolic links on the way to a file, also in the middle of its path.
func TestWarmPaths(t *testing.T) {
	dir := t.TempDir()
	for _, step := range []error{
		os.Mkdir(filepath.Join(dir, "usr"), 0o755),
		os.WriteFile(filepath.Join(dir, "usr", "dash"), nil, 0o755),
		os.Symlink("usr", filepath.Join(dir, "bin")),
		os.Symlink("dash", filepath.Join(dir, "usr", "sh")),
		os.Symlink("loop", filepath.Join(dir, "loop")),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	var found []string
	for _, path := range alongPath(filepath.Join(dir, "bin", "sh")) {
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, rel)
	}
	if want := []string{"bin", "usr/sh", "usr/dash"}; !slices.Equal(found, want) {
		t.Errorf("the way to bin/sh: %q, want %q", found, want)
	}
	for _, path := range alongPath(filepath.Join(dir, "loop")) {
		if info, err := os.Lstat(path); err != nil || info.Mode().IsRegular() {
			t.Errorf("a link to itself: %s: %v", path, err)
		}
	}
	paths := warmPaths([]string{"sh", "no-such-program"})
	if !slices.ContainsFunc(paths, func(path string) bool { return filepath.Base(path) == "libc.so.6" }) {
		t.Errorf("no libc.so.6 in %q", paths)
	}
}
