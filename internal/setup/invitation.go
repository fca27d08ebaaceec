//go:build !openwrt

package setup

import (
	"net/netip"
	"slices"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/invite"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// Keys are what an invitation has of keys.
type Keys struct {
	Host    []byte        // ssh's host key
	OneTime [64]byte      // seed and public half
	Public  transport.Key // of WireGuard, with that transport
}

// Invitation invites the home of a relay.
func Invitation(m Machine, r *config.Relay, keys Keys, now time.Time) (invite.Invitation, error) {
	ports := m.SSHPorts()
	if len(ports) == 0 {
		return invite.Invitation{}, message.New("no ssh server runs on this machine; the home needs one to enrol and to " +
			"send its forwards: apt install openssh-server")
	}
	i := invite.Invitation{Relay: r.Name, SSHPort: ports[0], HostKey: keys.Host, Key: keys.OneTime,
		Transport: string(r.Transport), IPAddr: r.IPAddr, Standby: r.Standby,
		Expires: now.Add(invite.Good).Truncate(time.Second)}
	var hosts []netip.Addr
	for _, host := range []netip.Addr{r.Local, m.ipv6(), m.ipv4(r)} {
		if host.IsValid() && m.answersSSH(host, ports[0]) {
			hosts = append(hosts, host)
		}
	}
	if len(hosts) == 0 { // ssh may have an address that the relay has not
		hosts = m.sshAddrs(r, ports[0])
	}
	if len(hosts) == 0 && r.Standby {
		return invite.Invitation{}, message.New("the ssh server listens on no public address of this VPS's own, beside %s, "+
			"which another VPS may have (option standby); give the VPS an address, or check ListenAddress in "+
			"/etc/ssh/sshd_config", r.IPAddr)
	}
	if len(hosts) == 0 {
		return invite.Invitation{}, message.New("the ssh server listens on no address that the home can reach; check " +
			"ListenAddress in /etc/ssh/sshd_config, then run: systemctl restart ssh")
	}
	switch {
	case r.Transport == config.WireGuard:
		i.PublicKey, i.Port = keys.Public.String(), r.WireGuard.Port
	case !slices.ContainsFunc(hosts, netip.Addr.Is6):
		return invite.Invitation{}, message.New("the ssh server does not listen on IPv6, but with transport ipip6 the " +
			"VPS learns the home's address from its ssh session; check ListenAddress and AddressFamily in " +
			"/etc/ssh/sshd_config, then run: systemctl restart ssh; or: ds4relay setup --transport wireguard")
	default:
		hosts = slices.Insert(hosts, 0, r.Local) // the tunnel's endpoint is the first, wherever ssh is
	}
	for _, host := range hosts {
		if !slices.Contains(i.Hosts, host.String()) {
			i.Hosts = append(i.Hosts, host.String())
		}
	}
	return i, nil
}

// answersSSH reports whether the ssh server seems to listen on a port of an address. An address that no device has is
// translated to a private one.
func (m Machine) answersSSH(addr netip.Addr, port uint16) bool {
	sockets := slices.DeleteFunc(m.sshSockets(), func(s Socket) bool { return s.Port != port })
	return len(sockets) == 0 || // it is known from the session only
		slices.ContainsFunc(sockets, func(s Socket) bool {
			switch {
			case s.Addr.IsUnspecified():
				return s.Addr.Is6() || addr.Is4() // one of IPv6 may take IPv4, too
			case addr.Is6() || m.has(addr):
				return s.Addr.Unmap() == addr
			}
			return slices.Contains(m.private(), s.Addr.Unmap())
		}) || m.session().Addr() == addr
}

// ipv4 returns the IPv4 address by which a home reaches the machine, if it is not translated: with standby not the
// public address of the relay, which another VPS may have.
func (m Machine) ipv4(r *config.Relay) netip.Addr {
	if !r.Standby {
		return r.IPAddr
	}
	for _, addr := range m.public() {
		if addr != r.IPAddr {
			return addr
		}
	}
	return netip.Addr{}
}

// sshAddrs returns the public addresses on which the ssh server listens on a port, those of IPv6 first.
func (m Machine) sshAddrs(r *config.Relay, port uint16) (list []netip.Addr) {
	for _, s := range m.sshSockets() {
		addr := s.Addr.Unmap()
		switch {
		case s.Port != port || len(list) == mostAddrs || r.Standby && addr == r.IPAddr:
		case addr.Is4() && slices.Contains(m.public(), addr):
			list = append(list, addr)
		case addr.Is6() && addr.IsGlobalUnicast() && !addr.IsPrivate():
			list = slices.Insert(list, 0, addr)
		}
	}
	return list
}

// mostAddrs is how many addresses of ssh an invitation has at most.
const mostAddrs = 4
