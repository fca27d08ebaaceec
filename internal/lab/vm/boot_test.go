package vm

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// qemu replaces QEMU by a shell script, which finds the number of the try in $try and the console's file in $console.
func qemu(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	text := fmt.Sprintf(`#!/bin/sh
echo try >>%[1]s/tries
try=$(grep -c try %[1]s/tries)
for word in "$@"; do
	case $word in file:*) console=${word#file:} ;; esac
done
%[2]s
`, dir, script)
	if err := os.WriteFile(filepath.Join(dir, "qemu-system-x86_64"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// boots runs a program in the machine and returns the boots.
func boots(t *testing.T) (list []Boot, status int, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	status, err = Run(ctx, Kernel{}, Options{Args: []string{"true"}, Stdout: io.Discard, Stderr: io.Discard,
		Booted: func(b Boot) { list = append(list, b) }})
	return list, status, err
}

// TestBootsAgain: a machine that ends or stalls before it has started is started again, and then runs its program.
func TestBootsAgain(t *testing.T) {
	qemu(t, `case $try in
1) exit 1 ;;
2) echo "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:" >"$console"; exec sleep 30 ;;
3) echo started >&5; echo "exit 7" >&5 ;;
esac`)
	list, status, err := boots(t)
	if err != nil || status != 7 || len(list) != 3 {
		t.Fatalf("%d boots, exit status %d, %v", len(list), status, err)
	}
	for i, want := range []string{"ended before it had started", "detected stalls on CPUs", ""} {
		if b := list[i]; b.Try != i+1 || !strings.Contains(b.Failure, want) || want == "" && b.Failure != "" {
			t.Errorf("boot %d: %v", i+1, b)
		}
	}
}

// TestBootsNoMore: after three failed boots the run fails, with the last machine's messages.
func TestBootsNoMore(t *testing.T) {
	qemu(t, `echo "Kernel panic - not syncing: try $try" >"$console"; exec sleep 30`)
	list, _, err := boots(t)
	if err == nil || !strings.Contains(err.Error(), "not syncing: try 3") || len(list) != bootTries {
		t.Errorf("%d boots, %v", len(list), err)
	}
}

// TestRunsOnce: a machine that has started is not started again, however it ends. With a single Go thread, its end
// often arrives before its report that it has started.
func TestRunsOnce(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for name, script := range map[string]string{
		"a program that fails":    `echo started >&5; echo "exit 1" >&5`,
		"a machine that vanishes": `echo started >&5; sleep 0.2; exit 1`,
		"a kernel that panics":    `echo started >&5; echo "Kernel panic" >"$console"; sleep 0.2`,
	} {
		t.Run(name, func(t *testing.T) {
			for range 10 {
				qemu(t, script)
				list, status, err := boots(t)
				if len(list) != 1 || list[0].Failure != "" || status == 0 && err == nil {
					t.Fatalf("%v, exit status %d, %v", list, status, err)
				}
			}
		})
	}
}

// TestBootWatch: a boot is given up if its process works too long or not at all, and in no other case.
func TestBootWatch(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		limits bootLimits
		want   string
	}{
		"works for ever": {"while :; do :; done", bootLimits{cpu: 200 * time.Millisecond, idle: time.Minute,
			clock: time.Minute}, "of CPU time"},
		"does nothing": {"exec sleep 60", bootLimits{cpu: time.Minute, idle: 300 * time.Millisecond,
			clock: time.Minute}, "did nothing"},
		"takes too long": {"exec sleep 60",
			bootLimits{cpu: time.Minute, idle: time.Minute, clock: 200 * time.Millisecond}, "within"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "sh", "-c", c.script)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			defer cmd.Process.Kill()
			watch := watchBoot("lab", 1, cmd.Process.Pid, "")
			watch.limits = c.limits
			if why := watch.failure(); why != "" {
				t.Errorf("at once: %s", why)
			}
			why := ""
			for end := time.Now().Add(30 * time.Second); why == "" &&
				time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				why = watch.failure()
			}
			if !strings.Contains(why, c.want) {
				t.Errorf("%q, want %q", why, c.want)
			}
		})
	}
}
