package vm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// startSecond starts a second virtual machine whose cards wait for the first one on sockets in dir; its console goes to
// NAME.log there.
func startSecond(ctx context.Context, qemu string, args []string, dir, name string, cards []int) (end func(), err error) {
	args = append(args, "-nodefaults", "-display", "none", "-serial", "file:"+filepath.Join(dir, name+".log"))
	for _, card := range cards {
		args = append(args, "-netdev", fmt.Sprintf("stream,id=card%d,server=on,addr.type=unix,addr.path=%s", card, cardSocket(dir, card)),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=card%d,mac=52:54:00:46:02:%02x", card, card))
	}
	cmd := exec.CommandContext(ctx, qemu, args...)
	var problems strings.Builder
	cmd.Stdout, cmd.Stderr = &problems, &problems
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	runtime.LockOSThread() // Pdeathsig follows the thread that forks
	if err := cmd.Start(); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("%w (is %s installed?)", err, qemu)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	end = func() {
		cmd.Process.Kill()
		<-ended
		runtime.UnlockOSThread()
	}
	const settled = 200 * time.Millisecond // QEMU has read the kernel then
	for deadline := time.Now().Add(bootLimit); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		info, err := os.Stat(cardSocket(dir, CardCtl))
		if err == nil && time.Since(info.ModTime()) > settled {
			return end, nil
		}
		select {
		case err := <-ended:
			ended <- err
			end()
			return nil, fmt.Errorf("%s ended: %w\n%s", qemu, err, problems.String())
		default:
		}
	}
	end()
	return nil, fmt.Errorf("%s did not open its network cards within %v", qemu, bootLimit)
}
