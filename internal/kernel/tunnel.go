package kernel

import (
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/state"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// driver creates and reads tunnels of one kind.
type driver interface {
	// link returns the link for rtnetlink to add or change.
	link(attrs netlink.LinkAttrs, t transport.Tunnel) netlink.Link
	// observe reads a link; t is nil for another kind. typical reports whether it has the mode of our tunnels. An error
	// is about what only root may read: t has the rest.
	observe(link netlink.Link) (t transport.Tunnel, typical bool, err error)
	// missing says what to install where the kernel does not know the kind.
	missing() *message.Text
}

var drivers = map[string]driver{transport.IPIP6Kind: ip6tnl{}, transport.WireGuardKind: wireGuard{}}

// setLink creates or changes a tunnel by rtnetlink. It identifies the link by name: with an index, the message would
// mean renaming, which fails for a link that is up.
func setLink(l state.Link, set func(netlink.Link) error) error {
	d := drivers[l.Tunnel.Kind()]
	if d == nil {
		return message.New("unknown kind of tunnel %q", l.Tunnel.Kind())
	}
	attrs := netlink.NewLinkAttrs() // leaves the queue length to the kernel
	attrs.Name, attrs.Group = l.Name, uint32(l.Group)
	return set(d.link(attrs, l.Tunnel))
}

// observeTunnel reads a link that may be one of our tunnels; t is nil if it has none of our kinds.
func observeTunnel(link netlink.Link) (t transport.Tunnel, typical bool, err error) {
	if d := drivers[link.Type()]; d != nil {
		return d.observe(link)
	}
	return nil, false, nil
}

// ip6tnl is the driver of transport.IPIP6 (net/ipv6/ip6_tunnel.c).
type ip6tnl struct{}

// flagIgnoreEncapLimit is IP6_TNL_F_IGN_ENCAP_LIMIT of linux/ip6_tunnel.h: `encaplimit none`.
const flagIgnoreEncapLimit = 1

func (ip6tnl) link(attrs netlink.LinkAttrs, t transport.Tunnel) netlink.Link {
	p := t.(transport.IPIP6)
	link := &netlink.Ip6tnl{LinkAttrs: attrs, Local: p.Local.AsSlice(), Remote: p.Remote.AsSlice(),
		Ttl: uint8(p.TTL), Proto: unix.IPPROTO_IPIP, EncapLimit: uint8(max(p.EncapLimit, 0))}
	if p.EncapLimit == transport.NoEncapLimit {
		link.Flags |= flagIgnoreEncapLimit
	}
	return link
}

func (ip6tnl) observe(link netlink.Link) (t transport.Tunnel, typical bool, err error) {
	tunnel, ok := link.(*netlink.Ip6tnl)
	if !ok {
		return nil, false, nil
	}
	p := transport.IPIP6{EncapLimit: int(tunnel.EncapLimit), TTL: int(tunnel.Ttl)}
	if tunnel.Flags&flagIgnoreEncapLimit != 0 {
		p.EncapLimit = transport.NoEncapLimit
	}
	p.Local, _ = netip.AddrFromSlice(tunnel.Local.To16())
	p.Remote, _ = netip.AddrFromSlice(tunnel.Remote.To16())
	return p, tunnel.Proto == unix.IPPROTO_IPIP, nil
}

func (ip6tnl) missing() *message.Text {
	return message.New("the kernel module ip6_tunnel is missing: on OpenWrt install kmod-ip6-tunnel, on Debian run " +
		"modprobe ip6_tunnel; on a VPS in a container use config proxy instead, see ds4relay(5)")
}
