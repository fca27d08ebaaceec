package vm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/lab/keys"
)

// networkModules are loaded before the program runs, so that nothing loads one later: a new module adds devices and
// sysctls, which would show in a comparison of before and after.
var networkModules = []string{
	"ip6_tunnel", "wireguard", "veth", "bridge", "dummy", "ifb", "8021q",
	"nf_conntrack", "nf_nat", "nf_conntrack_netlink", "nf_tables",
	"nft_chain_nat", "nft_ct", "nft_nat", "nft_masq", "nft_redir", "nft_fib_inet", "nft_limit", "nft_log",
	"nft_reject_inet", "nft_flow_offload", "nf_flow_table_inet", "nf_log_syslog",
	"sch_netem", "sch_fq_codel", "virtio_net",
}

// Guest is the first process of the virtual machine. It runs the program that the file in dir describes, reaps orphans,
// reports the result and powers the machine off. It does not return.
func Guest(dir string) {
	result, err := guest(dir)
	if err != nil {
		result = statusError + " " + strings.ReplaceAll(err.Error(), "\n", " ")
	}
	if port, err := openPort(portStatus); err == nil {
		fmt.Fprintln(port, result)
	} else {
		fmt.Println("lab guest:", result, err)
	}
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func guest(dir string) (result string, err error) {
	s, err := readSpec(dir)
	if err != nil {
		return "", err
	}
	os.Clearenv()
	for _, entry := range s.Env {
		name, value, _ := strings.Cut(entry, "=")
		os.Setenv(name, value)
	}
	if err := setUp(s); err != nil {
		return "", err
	}
	stdout, err := openPort(portStdout)
	if err != nil {
		return "", err
	}
	stderr, err := openPort(portStderr)
	if err != nil {
		return "", err
	}
	port, err := openPort(portStatus)
	if err != nil {
		return "", err
	}
	_, err = fmt.Fprintln(port, statusStarted)
	port.Close() // a port can be opened only once at a time
	if err != nil {
		return "", err
	}
	status, err := runProgram(s, stdout, stderr)
	return fmt.Sprint(statusExit, " ", status), err
}

func setUp(s spec) error {
	if err := warm(s.Warm); err != nil {
		return err
	}
	for _, m := range []struct {
		source, target, kind, options string
		flags                         uintptr
	}{
		{"devpts", "/dev/pts", "devpts", "ptmxmode=0666", 0},
		{"shm", "/dev/shm", "tmpfs", "", 0},
		{s.Modules, "/lib/modules", "", "", unix.MS_BIND},
		{shareTag, shareDir, "9p", "trans=virtio,version=9p2000.L,msize=512000", 0},
	} {
		if m.target == shareDir && !s.Share {
			continue
		}
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.options); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	if err := os.Symlink("/proc/self/fd", "/dev/fd"); err != nil && !os.IsExist(err) { // bash's <(…), in wg-quick
		return err
	}
	if err := unix.Sethostname([]byte("lab")); err != nil {
		return fmt.Errorf("hostname: %w", err)
	}
	args := append([]string{"-a", "-b"}, networkModules...)
	if out, err := exec.Command("modprobe", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("modprobe: %w: %s", err, out)
	}
	for name, value := range map[string]string{
		"fb_tunnels_only_for_init_net": "1", // ip6tnl0 and similar devices only in the first namespace
		// All hosts of the lab share one CPU. Packets that it has no time for wait in this queue, or are dropped.
		"netdev_max_backlog": "20000",
	} {
		if err := os.WriteFile("/proc/sys/net/core/"+name, []byte(value), 0); err != nil {
			return err
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	if s.Icount {
		return forFigures()
	}
	return holdKeys()
}

// forFigures lets a packet cost what it does where each host is a machine of its own: with no key held (holdKeys), and
// without a task preempting the softirq that has woken it. All hosts share the only CPU, so otherwise a packet for one
// of them would leave what is on its way to others to ksoftirqd, which then runs for a while, even for single packets.
func forFigures() error {
	const debug = "/sys/kernel/debug"
	if err := unix.Mount("none", debug, "debugfs", 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", debug, err)
	}
	return os.WriteFile(debug+"/sched/features", []byte("NO_WAKEUP_PREEMPTION"), 0)
}

const tracing = "/sys/kernel/tracing"

// Drops is the kernel's histogram of the functions that drop packets since boot (tracefs,
// Documentation/trace/histogram.rst).
const Drops = tracing + "/events/skb/kfree_skb/hist"

// holdKeys is keys.Hold, plus the tracepoint for dropped packets.
func holdKeys() error {
	if err := keys.Hold(); err != nil {
		return err
	}
	if err := unix.Mount("none", tracing, "tracefs", 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", tracing, err)
	}
	return os.WriteFile(filepath.Dir(Drops)+"/trigger", []byte("hist:keys=location.sym"), 0)
}

// openPort opens a virtio-serial port by name; without udev there is no /dev/virtio-ports.
func openPort(name string) (*os.File, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, err
	}
	for _, path := range names {
		data, err := os.ReadFile(path)
		if err == nil && strings.TrimSpace(string(data)) == name {
			return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(path)), os.O_WRONLY, 0)
		}
	}
	return nil, fmt.Errorf("no virtio-serial port %s", name)
}

// runProgram gives the program pipes, because a port can be opened only once and the program may open /dev/stderr.
func runProgram(s spec, stdout, stderr io.Writer) (status int, err error) {
	if err := os.Chdir(s.Dir); err != nil {
		return 0, err
	}
	path, err := exec.LookPath(s.Args[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return 0, err
	}
	stdin, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	files := []*os.File{stdin}
	var copies sync.WaitGroup
	for _, w := range []io.Writer{stdout, stderr} {
		r, end, err := os.Pipe()
		if err != nil {
			return 0, err
		}
		files = append(files, end)
		copies.Add(1)
		go func() {
			defer copies.Done()
			io.Copy(w, r)
		}()
	}
	program, err := os.StartProcess(path, s.Args, &os.ProcAttr{Dir: s.Dir, Env: s.Env, Files: files})
	if err != nil {
		return 0, err
	}
	for _, f := range files {
		f.Close()
	}
	status, err = reapUntil(program.Pid)
	if err != nil {
		return 0, err
	}
	unix.Kill(-1, unix.SIGKILL) // processes that the program has left keep the pipes open
	copies.Wait()
	return status, nil
}

// reapUntil waits for every child until pid ends.
func reapUntil(pid int) (status int, err error) {
	for {
		var ws syscall.WaitStatus
		ended, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case err == syscall.EINTR || ended != pid && err == nil:
			continue
		case err != nil:
			return 0, fmt.Errorf("wait: %w", err)
		case ws.Signaled():
			return 128 + int(ws.Signal()), nil
		case ws.Exited():
			return ws.ExitStatus(), nil
		}
	}
}
