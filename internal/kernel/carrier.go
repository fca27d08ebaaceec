//go:build !openwrt

package kernel

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/ds4relay/ds4relay/internal/config"
)

// Carrier is where another tunnel of this machine gets its packets, over IPv4.
type Carrier struct {
	Device string
	Set    config.PortSet // protocol and port
	Local  netip.Addr     // this machine's address for it; not valid if that may be any
	Client netip.Addr     // the other end; not valid if it is not known
}

// maxCarriers limits how many tunnels may be in each other (IP6_TUNNEL's and GRE's nesting is limited, too).
const maxCarriers = 4

// Carriers returns the other tunnels that the packets to an endpoint go through. A tunnel whose other end answers only
// is left out: connection tracking brings it its answers.
func Carriers(endpoint netip.Addr) []Carrier {
	var carriers []Carrier
	for range maxCarriers {
		route, err := routeTo(endpoint, netip.Addr{})
		if err != nil {
			break
		}
		link, err := netlink.LinkByName(route.device)
		if err != nil {
			break
		}
		found, remote := carriersOf(link, endpoint)
		for _, c := range found {
			c.Device = route.device
			if !c.Local.IsValid() {
				c.Local = sourceTo(remote)
			}
			if remote.Is4() {
				c.Client = remote
			}
			if remote.Is4() || !remote.IsValid() {
				carriers = append(carriers, c)
			}
		}
		if !remote.IsValid() {
			break
		}
		endpoint = remote
	}
	return carriers
}

// Protocols of tunnels over IPv4 (IANA), and the ports of IPsec's keys and of its packets in UDP (RFC 3948).
const (
	protoIPIP, protoIPv6, protoGRE, protoESP = 4, 41, 47, 50
	portIKE, portNAT                         = 500, 4500
)

// carriersOf returns where a tunnel gets its packets, and the address of its other end, if it is known.
func carriersOf(link netlink.Link, inner netip.Addr) (carriers []Carrier, remote netip.Addr) {
	add := func(local net.IP, proto uint8, port uint16) {
		addr, _ := netip.AddrFromSlice(local)
		if addr = addr.Unmap(); !addr.Is4() || addr.IsUnspecified() {
			addr = netip.Addr{}
		}
		carriers = append(carriers, Carrier{Set: config.PortSet{Proto: proto, First: port, Last: port}, Local: addr})
	}
	// tunnel is a tunnel of an IP protocol, or with encap in UDP (ip-fou(8)), where both ends usually have one port.
	tunnel := func(local net.IP, proto uint8, encap, from, to uint16) {
		switch {
		case encap == 0:
			add(local, proto, 0)
		case from != 0:
			add(local, config.UDP, from)
		default:
			add(local, config.UDP, to)
		}
	}
	var other net.IP
	switch l := link.(type) {
	case *netlink.Wireguard:
		return wireguard(l.Name, inner)
	case *netlink.Tuntap:
		for _, set := range tunSockets(l.Name) {
			carriers = append(carriers, Carrier{Set: set})
		}
	case *netlink.Vxlan:
		add(l.SrcAddr, config.UDP, uint16(l.Port))
		other = l.Group
	case *netlink.Geneve:
		add(nil, config.UDP, l.Dport)
		other = l.Remote
	case *netlink.Gretun:
		tunnel(l.Local, protoGRE, l.EncapType, l.EncapSport, l.EncapDport)
		other = l.Remote
	case *netlink.Gretap:
		tunnel(l.Local, protoGRE, l.EncapType, l.EncapSport, l.EncapDport)
		other = l.Remote
	case *netlink.Iptun:
		tunnel(l.Local, protoIPIP, l.EncapType, l.EncapSport, l.EncapDport)
		other = l.Remote
	case *netlink.Sittun:
		tunnel(l.Local, protoIPv6, l.EncapType, l.EncapSport, l.EncapDport)
		other = l.Remote
	case *netlink.Ip6tnl: // over IPv6
		other = l.Remote
	case *netlink.Vti, *netlink.Xfrmi:
		add(nil, protoESP, 0)
		add(nil, config.UDP, portIKE)
		add(nil, config.UDP, portNAT)
	}
	remote, _ = netip.AddrFromSlice(other)
	remote = remote.Unmap()
	if remote.IsUnspecified() || remote.IsMulticast() {
		remote = netip.Addr{}
	}
	return carriers, remote
}

// anywhere stands for an address on the internet (TEST-NET-1, RFC 5737).
var anywhere = netip.MustParseAddr("192.0.2.1")

// sourceTo returns this machine's address for packets to an IPv4 address, or to the internet if that is not known.
func sourceTo(remote netip.Addr) netip.Addr {
	if !remote.Is4() {
		remote = anywhere
	}
	routes, err := netlink.RouteGet(remote.AsSlice())
	if err != nil || len(routes) == 0 {
		return netip.Addr{}
	}
	source, _ := netip.AddrFromSlice(routes[0].Src.To4())
	return source
}

// wireguard returns the port of a WireGuard device and the endpoint of the peer that gets packets to an address. A peer
// with an endpoint and a keepalive gets packets from here first.
func wireguard(device string, inner netip.Addr) (carriers []Carrier, remote netip.Addr) {
	d, err := wireGuardDevice(device)
	if err != nil {
		return nil, remote
	}
	best, calls := -1, false
	for _, p := range d.Peers {
		for _, network := range p.Allowed {
			if network.Contains(inner) && network.Bits() > best {
				best, remote, calls = network.Bits(), p.Endpoint.Addr(), p.Endpoint.IsValid() && p.Keepalive > 0
			}
		}
	}
	if d.ListenPort == 0 || calls {
		return nil, remote
	}
	return []Carrier{{Set: config.PortSet{Proto: config.UDP, First: d.ListenPort, Last: d.ListenPort}}}, remote
}

// tunSockets returns the UDP and TCP ports on which the process of a tun device (OpenVPN, WireGuard in user space)
// waits for packets.
func tunSockets(device string) []config.PortSet {
	infos, _ := filepath.Glob("/proc/[0-9]*/fdinfo/*")
	waiting := waitingSockets()
	var sets []config.PortSet
	for _, info := range infos {
		if data, err := os.ReadFile(info); err != nil || !hasLine(string(data), "iff:\t"+device) {
			continue
		}
		files, _ := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(info)), "fd", "*"))
		for _, file := range files {
			target, _ := os.Readlink(file)
			if set, ok := waiting[target]; ok {
				sets = append(sets, set)
			}
		}
		break
	}
	return sets
}

func hasLine(text, line string) bool {
	for l := range strings.Lines(text) {
		if strings.TrimSuffix(l, "\n") == line {
			return true
		}
	}
	return false
}

// waitingSockets returns UDP and TCP sockets that anybody may send to, by the names of their files in /proc/PID/fd.
func waitingSockets() map[string]config.PortSet {
	list, _ := sockets("/proc/thread-self/net")
	waiting := map[string]config.PortSet{}
	for _, s := range list {
		waiting["socket:["+s.inode+"]"] = config.PortSet{Proto: s.proto, First: s.local.Port(), Last: s.local.Port()}
	}
	return waiting
}
