package program

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Again starts this program once more, as a process that outlives this one and has nothing of it open: neither the
// outputs that an init script waits for nor its lock. It has to limit itself.
func Again(args ...string) error {
	open, err := os.Open("/proc/self/fd")
	if err != nil {
		return err
	}
	names, err := open.Readdirnames(-1)
	_ = open.Close()
	for _, name := range names {
		if fd, err := strconv.Atoi(name); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	if err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = "ds4relay"
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err = cmd.Start(); err == nil {
		go func() { _ = cmd.Wait() }() // if this process is still there then, the other one is no zombie
	}
	return err
}
