//go:build !openwrt

package setup

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
)

// Machine is what is known of a VPS.
type Machine struct {
	Addrs      []Addr
	IPv4, IPv6 string     // devices with the default routes; "" for none
	Sockets    []Socket   // that wait for what comes from outside
	Session    string     // SSH_CONNECTION (ssh(1)) of the session in which this runs; "" for none
	SSHD       string     // the ssh server's configuration, as `sshd -T` prints it (sshd(8)); "" where it is not known
	Cloud      netip.Addr // the public IPv4 address, if a cloud's metadata service has said it
	WireGuard  bool       // the kernel has it, or can load it
	IP6Tunnel  bool       // the same
}

// Addr is an address of a device.
type Addr struct {
	Addr     netip.Addr
	Device   string
	Passing  bool // temporary (RFC 8981), deprecated, tentative or a duplicate
	Lifetime bool // it was given for a time, by DHCP or a router
}

// Socket waits for connections or datagrams from anybody.
type Socket struct {
	Proto   uint8
	Addr    netip.Addr // unspecified for every address
	Port    uint16
	Program string // "" where it is not known
}

// public returns the machine's public IPv4 addresses, those on the device with the default route first.
func (m Machine) public() (list []netip.Addr) {
	var others []netip.Addr
	for _, a := range m.Addrs {
		switch {
		case !a.Addr.Is4() || config.Reserved(netip.PrefixFrom(a.Addr, 32)) || slices.Contains(list, a.Addr):
		case a.Device == m.IPv4:
			list = append(list, a.Addr)
		default:
			others = append(others, a.Addr)
		}
	}
	return append(list, others...)
}

// private returns the addresses that a cloud could translate a public one to.
func (m Machine) private() (list []netip.Addr) {
	for _, a := range m.Addrs {
		if a.Device == m.IPv4 && config.Translatable(a.Addr) {
			list = append(list, a.Addr)
		}
	}
	return list
}

// has reports whether a device has an address.
func (m Machine) has(addr netip.Addr) bool {
	return slices.ContainsFunc(m.Addrs, func(a Addr) bool { return a.Addr == addr })
}

// Translated reports whether a cloud seems to translate the public address: the card has none, but a private one.
func (m Machine) Translated() bool { return len(m.public()) == 0 && len(m.private()) > 0 }

// ipv6 returns the lasting global IPv6 address of the device with the default route: one that nobody gave for a time
// only, else the first. The endpoint of a relay, and ssh, can be there.
func (m Machine) ipv6() netip.Addr {
	var found netip.Addr
	given := true
	for _, a := range m.Addrs {
		if !a.Addr.Is6() || a.Device != m.IPv6 || a.Passing || !a.Addr.IsGlobalUnicast() || a.Addr.IsPrivate() {
			continue
		}
		if !found.IsValid() || given && !a.Lifetime {
			found, given = a.Addr, a.Lifetime
		}
	}
	return found
}

// SSHPorts are the ports of the machine's ssh server: that of the session in which this runs, and the others, sorted.
func (m Machine) SSHPorts() (ports []uint16) {
	for _, s := range m.sshSockets() {
		if !s.Addr.IsLoopback() && !slices.Contains(ports, s.Port) {
			ports = append(ports, s.Port)
		}
	}
	slices.Sort(ports)
	if port := m.session().Port(); port > 0 {
		ports = slices.DeleteFunc(ports, func(p uint16) bool { return p == port })
		ports = slices.Insert(ports, 0, port)
	}
	return ports
}

// session returns this machine's end of the ssh session in which this runs; zero without one.
func (m Machine) session() netip.AddrPort {
	words := strings.Fields(m.Session)
	if len(words) != 4 {
		return netip.AddrPort{}
	}
	addr, _ := netip.ParseAddr(words[2])
	port, _ := strconv.ParseUint(words[3], 10, 16)
	return netip.AddrPortFrom(addr.Unmap(), uint16(port))
}

// sshSockets are those of the ssh server. systemd holds them for ssh.socket (Ubuntu 22.10 and later) until the first
// session; their ports are 22 or those of sshd_config.
func (m Machine) sshSockets() (list []Socket) {
	ports := settings(m.SSHD)["port"]
	for _, s := range m.Sockets {
		if s.Proto == config.TCP && (s.Program == "sshd" ||
			s.Program == "systemd" && (s.Port == 22 || slices.Contains(ports, strconv.Itoa(int(s.Port))))) {
			list = append(list, s)
		}
	}
	return list
}

// sshOrDefault are the ports of ssh, also of a server that is to come.
func (m Machine) sshOrDefault() []uint16 {
	if ports := m.SSHPorts(); len(ports) > 0 {
		return ports
	}
	return []uint16{22}
}

// Kept is what stays on the VPS, and who waits there.
type Kept struct {
	config.PortSet
	Programs []string
	SSH      bool // it is the ssh server
}

// Listeners returns the ports on which the machine itself waits for clients that come by an address, each once and
// sorted. own are ports that relays use themselves.
func (m Machine) Listeners(own []config.PortSet, addrs ...netip.Addr) (kept []Kept) {
	ssh := m.sshOrDefault()
	sockets := slices.Clone(m.Sockets)
	for _, port := range ssh {
		if !slices.ContainsFunc(sockets, func(s Socket) bool { return s.Proto == config.TCP && s.Port == port }) {
			sockets = append(sockets, Socket{config.TCP, netip.IPv4Unspecified(), port, "ssh"})
		}
	}
	slices.SortFunc(sockets, func(a, b Socket) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Program, b.Program))
	})
	for _, s := range sockets {
		k := Kept{PortSet: config.PortSet{Proto: s.Proto, First: s.Port, Last: s.Port},
			SSH: s.Proto == config.TCP && slices.Contains(ssh, s.Port)}
		if !s.Addr.IsUnspecified() && !slices.Contains(addrs, s.Addr.Unmap()) || slices.Contains(own, k.PortSet) {
			continue
		}
		if k.SSH && s.Program == "systemd" {
			s.Program = "ssh.socket"
		}
		if n := len(kept); n == 0 || kept[n-1].PortSet != k.PortSet {
			kept = append(kept, k)
		}
		if last := &kept[len(kept)-1]; s.Program != "" && !slices.Contains(last.Programs, s.Program) {
			last.Programs = append(last.Programs, s.Program)
		}
	}
	return kept
}

// ranges joins neighbouring ports, which are sorted; those of ssh stay apart.
func ranges(list []Kept) (joined []Kept) {
	for _, k := range list {
		n := len(joined)
		if n == 0 || joined[n-1].Proto != k.Proto || joined[n-1].SSH != k.SSH ||
			int(k.First) != int(joined[n-1].Last)+1 {
			joined = append(joined, k)
			continue
		}
		last := &joined[n-1]
		last.Last = k.Last
		for _, program := range k.Programs {
			if !slices.Contains(last.Programs, program) {
				last.Programs = append(last.Programs, program)
			}
		}
	}
	return joined
}
