//go:build lab

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ds4relay/ds4relay/internal/lab"
)

// fill writes a file until the disk is full.
func fill(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	for range 1 << 16 {
		if _, err = file.Write(make([]byte, 4096)); err != nil {
			break
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	return nil
}

// TestRunDirectory: records that are lost, damaged or not writable only stop what needs them, and never leave the
// kernel between two states.
func TestRunDirectory(t *testing.T) {
	r := newRelay(t, lab.Options{}, forwardAll)
	r.atOnce(t, func(t *testing.T, e *end) {
		before := e.snapshot()
		expect := func(what string, want int, args ...string) (stdout, stderr string) {
			t.Helper()
			code, stdout, stderr := e.try(args...)
			if code != want {
				t.Errorf("%s: %v: exit status %d, want %d\n%s%s", what, args, code, want, stdout, stderr)
			}
			return stdout, stderr
		}

		// Without the directory: reading commands work, and down leaves nothing behind.
		expect("no /run", exitDiffers, "status")
		expect("no /run", 0, "plan")
		expect("no /run", 0, "check")
		e.try("doctor")
		expect("no /run", 0, "down")
		if left, err := os.ReadDir(e.runDir()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("reading, and down with nothing to do, left %v %v", left, err)
		}
		same(t, "the kernel without /run", before, e.snapshot())

		// Records damaged in each way.
		e.do("up")
		up := sameLink(e.snapshot())
		records, err := filepath.Glob(e.runDir() + "/*")
		if err != nil || len(records) < 3 {
			t.Fatalf("records: %v %v", records, err)
		}
		records = slices.DeleteFunc(records, func(record string) bool {
			// The sysctl's previous value is lost, and only a repair reads what was applied.
			name := filepath.Base(record)
			return name == "lock" || name == "applied" || name == "tables.nft" || strings.HasPrefix(name, "sysctl:")
		})
		for i, damage := range []string{": >FILE", "echo '[' >FILE", "rm FILE && mkdir FILE && touch FILE/x",
			"truncate -s 1G FILE"} {
			record := records[i%len(records)]
			command := strings.ReplaceAll(damage, "FILE", record)
			damaged := "the record " + record + " is damaged"
			if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
				t.Fatalf("%v %s", err, out)
			}
			if out, _ := expect(command, exitDiffers, "status"); !strings.Contains(out, "note: "+damaged) {
				t.Errorf("%s: status: %s", command, out)
			}
			if _, out := expect(command, 0, "-q", "up"); !strings.Contains(out, damaged) {
				t.Errorf("%s: up: %s", command, out)
			}
			expect(command, 0, "status")
			same(t, "the kernel after "+command, up, sameLink(e.snapshot()))
		}
		e.do("down")
		same(t, "the kernel after down", before, e.snapshot())

		// A separate file system: full, and read-only.
		mount := func(flags uintptr) {
			t.Helper()
			if err := syscall.Mount("tmpfs", e.runDir(), "tmpfs", flags, "size=64k"); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.MkdirAll(e.runDir(), 0o755); err != nil {
			t.Fatal(err)
		}
		mount(0)
		defer syscall.Unmount(e.runDir(), syscall.MNT_DETACH)
		full := filepath.Join(e.runDir(), "full")
		if err := fill(full); err != nil {
			t.Fatal(err)
		}
		expect("full", exitDiffers, "status")
		expect("full", 0, "plan")
		_, out := expect("full", exitFailed, "-q", "up")
		if !strings.Contains(out, "no space left") || strings.Contains(out, "while undoing") {
			t.Errorf("full: up: %s", out)
		}
		same(t, "the kernel after up without room", before, e.snapshot())
		if err := os.Remove(full); err != nil {
			t.Fatal(err)
		}
		e.do("up")
		if err := fill(full); err != nil {
			t.Fatal(err)
		}
		expect("full", 0, "status")
		expect("full", 0, "-q", "down")
		same(t, "the kernel after down without room", before, e.snapshot())
		if err := os.Remove(full); err != nil {
			t.Fatal(err)
		}
		e.do("up")
		mount(syscall.MS_REMOUNT | syscall.MS_RDONLY)
		expect("read-only", 0, "status")
		expect("read-only", 0, "plan")
		for _, command := range []string{"up", "down"} {
			if _, out := expect("read-only", exitFailed, command); !strings.Contains(out, "read-only file system") {
				t.Errorf("read-only: %s: %s", command, out)
			}
		}
		same(t, "the kernel after what could not be written", up, sameLink(e.snapshot()))
		mount(syscall.MS_REMOUNT)
		e.do("down")
		same(t, "the kernel after down", before, e.snapshot())
	})
}
