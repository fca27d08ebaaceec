//go:build !openwrt

package kernel

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/program"
	"github.com/ds4relay/ds4relay/internal/setup"
)

// settle is how long a socket must be there to count: a program that asks a DNS server has one for a moment.
const settle = 500 * time.Millisecond

// Machine finds out what setup needs to know. session is the value of SSH_CONNECTION.
func Machine(session string) (m setup.Machine, err error) {
	list, err := settled(func() { time.Sleep(settle) })
	if err != nil {
		return m, err
	}
	m.Session, m.SSHD, m.Sockets = session, sshdConfig(session), named(list, "/proc")
	links, err := dump(netlink.LinkList)
	if err != nil {
		return m, message.New("list devices: %v", err)
	}
	devices := map[int]string{}
	for _, link := range links {
		devices[link.Attrs().Index] = link.Attrs().Name
	}
	m.IPv4, m.IPv6 = devices[defaultDevice(unix.AF_INET)], devices[defaultDevice(unix.AF_INET6)]
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, unix.AF_UNSPEC) })
	if err != nil {
		return m, message.New("list addresses: %v", err)
	}
	for _, a := range addrs {
		if addr, ok := netip.AddrFromSlice(a.IP); ok {
			m.Addrs = append(m.Addrs, setup.Addr{Addr: addr.Unmap(), Device: devices[a.LinkIndex],
				Passing: a.Flags&(unix.IFA_F_TEMPORARY|unix.IFA_F_DEPRECATED|unix.IFA_F_TENTATIVE|
					unix.IFA_F_DADFAILED) != 0 && addr.Is6(),
				Lifetime: a.Flags&unix.IFA_F_PERMANENT == 0})
		}
	}
	m.WireGuard, m.IP6Tunnel = loadable("wireguard"), loadable("ip6_tunnel")
	return m, nil
}

// sshd is where Debian has the ssh server; PATH of a user may not have the folder.
const sshd = "/usr/sbin/sshd"

// sshdConfig returns the ssh server's configuration for the user that homes log in as, or "".
func sshdConfig(session string, options ...string) string {
	configuration, _, err := program.Command{Name: sshd, Args: append([]string{"-T", "-C", ofHome(session)}, options...),
		Limit: 10 * time.Second}.Run()
	if err != nil {
		return ""
	}
	return configuration
}

// ofHome is a home's session, for Match blocks of sshd_config(5): sshd wants every word that one of them has. The home
// comes to the address and port of this session, as far as that is known.
func ofHome(session string) string {
	addr, port := "192.0.2.1", "22"
	if words := strings.Fields(session); len(words) == 4 {
		addr, port = words[2], words[3]
	}
	return "user=" + setup.User + ",host=home,addr=203.0.113.1,laddr=" + addr + ",lport=" + port
}

// loadable reports whether the kernel has a module, or modprobe(8) could load it.
func loadable(module string) bool {
	if _, err := os.Stat("/sys/module/" + module); err == nil {
		return true
	}
	_, _, err := program.Command{Name: "modprobe", Args: []string{"-n", "-q", module}, Limit: 5 * time.Second}.Run()
	return err == nil
}

// settled returns the sockets of this process's network namespace that are there before and after a wait.
func settled(wait func()) ([]socket, error) {
	before, err := sockets("/proc/thread-self/net")
	if err != nil {
		return nil, err
	}
	wait()
	after, err := sockets("/proc/thread-self/net")
	return slices.DeleteFunc(after, func(s socket) bool { return !slices.Contains(before, s) }), err
}

// socket is a line of /proc/net.
type socket struct {
	proto uint8
	local netip.AddrPort
	inode string
}

// sockets returns the sockets that anybody may send to, from the files in dir: TCP that listens, and UDP without
// another end. Without IPv6 there is no file for it.
func sockets(dir string) (list []socket, err error) {
	for _, table := range []struct {
		proto uint8
		state string // TCP_LISTEN; TCP_CLOSE for UDP without another end
		file  string
	}{{config.TCP, "0A", "tcp"}, {config.TCP, "0A", "tcp6"}, {config.UDP, "07", "udp"}, {config.UDP, "07", "udp6"}} {
		data, err := os.ReadFile(filepath.Join(dir, table.file))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(data)) {
			words := strings.Fields(line) // number, local, remote, state, …, inode is the tenth
			if len(words) < 10 || words[3] != table.state {
				continue
			}
			local, ok := socketAddr(words[1])
			if !ok {
				return nil, fmt.Errorf("%s/%s: an address like %q is not known", dir, table.file, words[1])
			}
			list = append(list, socket{table.proto, local, words[9]})
		}
	}
	return list, nil
}

// named finds the programs that have the sockets; proc is /proc. Only root sees those of others.
func named(list []socket, proc string) []setup.Socket {
	programs := map[string]string{}
	files, _ := filepath.Glob(filepath.Join(proc, "[0-9]*/fd/*"))
	for _, file := range files {
		target, err := os.Readlink(file)
		inode, isSocket := strings.CutPrefix(target, "socket:[")
		if inode = strings.TrimSuffix(inode, "]"); err != nil || !isSocket {
			continue
		}
		name, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(file)), "comm"))
		// systemd may have a socket together with the program that it has started.
		if text := strings.TrimSpace(string(name)); err == nil && (programs[inode] == "" || text != "systemd") {
			programs[inode] = text
		}
	}
	named := make([]setup.Socket, len(list))
	for i, s := range list {
		named[i] = setup.Socket{Proto: s.proto, Addr: s.local.Addr(), Port: s.local.Port(), Program: programs[s.inode]}
	}
	return named
}
