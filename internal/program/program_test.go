package program

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestLimit: neither a program that hangs nor what it has started holds up the caller, and both are gone afterwards.
func TestLimit(t *testing.T) {
	for _, script := range []string{"sleep 1000", "sleep 1000 & echo $! >child; wait",
		"trap '' TERM; while :; do sleep 1000; done"} {
		dir := t.TempDir()
		script = "cd " + dir + "; echo $$ >shell; " + script
		_, _, err := Command{Name: "sh", Args: []string{"-c", script}, Limit: 500 * time.Millisecond}.Run()
		var limit *LimitError
		if !errors.As(err, &limit) || !strings.Contains(err.Error(), "sh did not end within 500ms") {
			t.Errorf("%s: %v", script, err)
		}
		for _, name := range []string{"shell", "child"} {
			pid, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				continue
			}
			if !gone(strings.TrimSpace(string(pid))) {
				t.Errorf("%s: the %s still runs", script, name)
			}
		}
	}
}

// gone waits until a process has ended; one that nobody has waited for yet has.
func gone(pid string) bool {
	for range 500 {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil || bytes.Contains(stat, []byte(") Z ")) {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

// TestAgain: a process that has ended is no zombie of the one that has started it.
func TestAgain(t *testing.T) {
	if err := Again("-test.run=^$"); err != nil {
		t.Fatal(err)
	}
	self := strconv.Itoa(os.Getpid())
	for range 2000 {
		// pid (comm) state ppid …, proc_pid_stat(5); no other test leaves a child
		stats, err := filepath.Glob("/proc/[0-9]*/stat")
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(stats, func(path string) bool {
			text, _ := os.ReadFile(path)
			words := strings.Fields(string(text[max(bytes.LastIndexByte(text, ')'), 0):]))
			return len(words) > 2 && words[2] == self
		}) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("it is still there")
}

func TestRun(t *testing.T) {
	shell := func(script string) Command {
		return Command{Name: "sh", Args: []string{"-c", script}, Input: "in", Limit: time.Minute}
	}
	out, problems, err := shell("cat; echo no >&2; exit 3").Run()
	var exit *exec.ExitError
	if out != "in" || problems != "no" || !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("%q %q %v", out, problems, err)
	}
	if _, _, err := (Command{Name: "no-such-program", Limit: time.Minute}).Run(); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	// What is left running with the output open does not hold up the caller, and is not killed.
	out, _, err = shell("sleep 1000 & echo $!").Run()
	child := strings.TrimSpace(out)
	pid, _ := strconv.Atoi(child)
	process, findErr := os.FindProcess(pid)
	if err != nil || findErr != nil || process.Signal(syscall.Signal(0)) != nil {
		t.Errorf("%q %v %v", out, err, findErr)
	} else if err := process.Kill(); err != nil {
		t.Error(err)
	}
	var both bytes.Buffer
	command := shell("echo a; echo b >&2")
	command.Output = &both
	if _, _, err := command.Run(); err != nil || both.String() != "a\nb\n" {
		t.Errorf("%q %v", both.String(), err)
	}
}

// TestEveryProgramHasALimit: no other package starts programs by itself.
func TestEveryProgramHasALimit(t *testing.T) {
	starts := regexp.MustCompile(`exec\.Command|os\.StartProcess`)
	for _, root := range []string{"../../internal", "../../cmd"} {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case entry.IsDir() && slices.Contains([]string{"lab", "lucitest", "notices", "program"}, entry.Name()):
				return fs.SkipDir // for tests, or for building packages
			case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
				return nil
			}
			text, err := os.ReadFile(path)
			if found := starts.Find(text); found != nil {
				t.Errorf("%s: %s: programs are started by package program", path, found)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
