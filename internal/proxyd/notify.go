package proxyd

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/proxy"
)

// notify sends lines to systemd (sd_notify(3)), if it listens. Errors are ignored: systemd then acts on what it
// observes.
func notify(lines ...string) { notifyWith(nil, lines...) }

func notifyWith(fds []int, lines ...string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	_ = unix.Sendmsg(fd, []byte(strings.Join(lines, "\n")), rights, &unix.SockaddrUnix{Name: path}, 0)
}

// reloading tells systemd that the configuration is about to be read again.
func reloading() {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	notify("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000))
}

// watchdog returns how often systemd expects a sign of life; 0 for never.
func watchdog() time.Duration {
	usec, _ := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	return time.Duration(usec) * time.Microsecond / 2
}

// firstFD is the first descriptor that systemd passes to a service (sd_listen_fds(3)).
const firstFD = 3

// stored returns the sockets that systemd has kept during a restart.
func stored() []int {
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		n = 0
	}
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(name)
	}
	var fds []int
	for i := range n {
		fds = append(fds, firstFD+i)
	}
	return fds
}

// keeper makes systemd keep the listening sockets during a restart or after a crash (FileDescriptorStoreMax in
// systemd.service(5)).
type keeper map[string]bool

func (k keeper) keep(sockets []proxy.Socket) {
	fds := map[string][]int{}
	for _, s := range sockets {
		name := strings.ReplaceAll(s.Name, ":", "_") // not allowed in systemd's names
		fds[name] = append(fds[name], s.FD)
	}
	for name := range k {
		if fds[name] == nil {
			delete(k, name)
			notify("FDSTOREREMOVE=1", "FDNAME="+name)
		}
	}
	for name, list := range fds {
		if !k[name] {
			k[name] = true
			notifyWith(list, "FDSTORE=1", "FDPOLL=0", "FDNAME="+name)
		}
	}
}
