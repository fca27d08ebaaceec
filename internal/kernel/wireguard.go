package kernel

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/state"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// wireGuard is the driver of transport.WireGuard (drivers/net/wireguard). rtnetlink makes the device, generic netlink
// sets it up.
type wireGuard struct{}

func (wireGuard) link(attrs netlink.LinkAttrs, _ transport.Tunnel) netlink.Link {
	return &netlink.Wireguard{LinkAttrs: attrs}
}

func (wireGuard) observe(link netlink.Link) (t transport.Tunnel, typical bool, err error) {
	device, err := wireGuardDevice(link.Attrs().Name)
	if err != nil {
		return transport.WireGuard{}, true, err
	}
	return device.tunnel(), true, nil
}

func (wireGuard) missing() *message.Text {
	return message.New("the kernel module wireguard is missing: on OpenWrt install kmod-wireguard, on Debian run " +
		"modprobe wireguard; on a VPS in a container use config proxy instead, see ds4relay(5)")
}

// Numbers of linux/wireguard.h.
const (
	wgFamily       = "wireguard"
	wgGetDevice    = 0
	wgSetDevice    = 1
	wgVersion      = 1
	wgIfName       = 2
	wgPrivateKey   = 3
	wgDevicePublic = 4
	wgListenPort   = 6
	wgMark         = 7
	wgPeers        = 8

	wgPublicKey   = 1
	wgPreshared   = 2
	wgFlags       = 3
	wgEndpoint    = 4
	wgKeepalive   = 5
	wgHandshake   = 6
	wgRxBytes     = 7
	wgTxBytes     = 8
	wgAllowedIPs  = 9
	wgRemove      = 1 // flags of a peer
	wgReplaceIPs  = 2
	wgAllowedKind = 1 // family
	wgAllowedAddr = 2
	wgAllowedBits = 3
	sizeSockaddr4 = 16 // struct sockaddr_in
	sizeSockaddr6 = 28 // struct sockaddr_in6
)

// WireGuardPeer is the other end of a tunnel of WireGuard, as the kernel sees it.
type WireGuardPeer struct {
	Key       transport.Key
	Preshared transport.Secret
	Endpoint  netip.AddrPort // not valid while it is not known
	Keepalive int            // seconds
	Allowed   []netip.Prefix
	Handshake int64 // when the last one was, in seconds since 1970; 0 for never
	RxBytes   uint64
	TxBytes   uint64
}

// Age returns how many seconds ago the last handshake was; false if there was none, or if the clock was set back since
// then. If it was set forward, handshakes are at most as old as the time since boot.
func (p *WireGuardPeer) Age() (seconds int64, ok bool) {
	seconds = time.Now().Unix() - p.Handshake
	return min(seconds, Uptime()), p.Handshake > 0 && seconds >= 0
}

// WireGuardDevice is what the kernel has of a device of type wireguard.
type WireGuardDevice struct {
	Private    transport.Secret
	Public     transport.Key
	ListenPort uint16
	Mark       uint32
	Peers      []WireGuardPeer
}

// ReadWireGuard reads a device. Only root may.
func ReadWireGuard(device string) (WireGuardDevice, error) { return wireGuardDevice(device) }

// genlHeader is struct genlmsghdr: command, version, and two reserved bytes, which Linux 7 requires to be 0 for this
// family. nl.Genlmsg sends whatever is behind it in memory.
type genlHeader [nl.SizeofGenlmsg]byte

func (h genlHeader) Len() int          { return len(h) }
func (h genlHeader) Serialize() []byte { return h[:] }

func wireGuardRequest(command uint8, flags int, device string) (*nl.NetlinkRequest, error) {
	family, err := netlink.GenlFamilyGet(wgFamily)
	if err != nil {
		return nil, err
	}
	request := nl.NewNetlinkRequest(int(family.ID), flags)
	request.AddData(genlHeader{command, wgVersion})
	request.AddData(nl.NewRtAttr(wgIfName, nl.ZeroTerminated(device)))
	return request, nil
}

// wireGuardDevice reads a device. A peer with many networks comes in several messages.
func wireGuardDevice(name string) (d WireGuardDevice, err error) {
	messages, err := dump(func() ([][]byte, error) {
		request, err := wireGuardRequest(wgGetDevice, unix.NLM_F_DUMP, name)
		if err != nil {
			return nil, err
		}
		return request.Execute(unix.NETLINK_GENERIC, 0)
	})
	if err != nil {
		return d, err
	}
	for _, m := range messages {
		attrs, err := attributes(m[min(len(m), nl.SizeofGenlmsg):])
		if err != nil {
			return d, err
		}
		if value := attrs[wgListenPort]; len(value) == 2 {
			d.ListenPort = nl.NativeEndian().Uint16(value)
		}
		if value := attrs[wgMark]; len(value) == 4 {
			d.Mark = nl.NativeEndian().Uint32(value)
		}
		if value := attrs[wgPrivateKey]; len(value) == len(d.Private) {
			d.Private = transport.Secret(value)
		}
		if value := attrs[wgDevicePublic]; len(value) == len(d.Public) {
			d.Public = transport.Key(value)
		}
		for _, data := range nested(attrs[wgPeers]) {
			p, err := wireGuardPeer(data)
			if err != nil {
				return d, err
			}
			if i := len(d.Peers) - 1; i >= 0 && d.Peers[i].Key == p.Key {
				d.Peers[i].Allowed = append(d.Peers[i].Allowed, p.Allowed...)
				continue
			}
			d.Peers = append(d.Peers, p)
		}
	}
	return d, nil
}

func wireGuardPeer(data []byte) (p WireGuardPeer, err error) {
	attrs, err := attributes(data)
	if err != nil {
		return p, err
	}
	if value := attrs[wgPublicKey]; len(value) == len(p.Key) {
		p.Key = transport.Key(value)
	}
	if value := attrs[wgPreshared]; len(value) == len(p.Preshared) {
		p.Preshared = transport.Secret(value)
	}
	switch endpoint := attrs[wgEndpoint]; {
	case len(endpoint) >= sizeSockaddr6:
		p.Endpoint = netip.AddrPortFrom(netip.AddrFrom16([16]byte(endpoint[8:])).Unmap(),
			binary.BigEndian.Uint16(endpoint[2:]))
	case len(endpoint) >= sizeSockaddr4:
		p.Endpoint = netip.AddrPortFrom(netip.AddrFrom4([4]byte(endpoint[4:])), binary.BigEndian.Uint16(endpoint[2:]))
	}
	if value := attrs[wgKeepalive]; len(value) == 2 {
		p.Keepalive = int(nl.NativeEndian().Uint16(value))
	}
	if value := attrs[wgHandshake]; len(value) == 16 { // struct __kernel_timespec
		p.Handshake = int64(nl.NativeEndian().Uint64(value))
	}
	if value := attrs[wgRxBytes]; len(value) == 8 {
		p.RxBytes = nl.NativeEndian().Uint64(value)
	}
	if value := attrs[wgTxBytes]; len(value) == 8 {
		p.TxBytes = nl.NativeEndian().Uint64(value)
	}
	for _, data := range nested(attrs[wgAllowedIPs]) {
		allowed, err := attributes(data)
		if err != nil {
			return p, err
		}
		addr, ok := netip.AddrFromSlice(allowed[wgAllowedAddr])
		if bits := allowed[wgAllowedBits]; ok && len(bits) == 1 {
			p.Allowed = append(p.Allowed, netip.PrefixFrom(addr, int(bits[0])))
		}
	}
	return p, nil
}

// nested returns the values of nested attributes.
func nested(data []byte) (values [][]byte) {
	attrs, _ := nl.ParseRouteAttr(data)
	for _, a := range attrs {
		values = append(values, a.Value)
	}
	return values
}

// tunnel returns the device as a tunnel. One with several peers is none of ours: it has no peer then.
func (d *WireGuardDevice) tunnel() transport.WireGuard {
	t := transport.WireGuard{Private: d.Private, ListenPort: d.ListenPort, Mark: d.Mark}
	if len(d.Peers) != 1 {
		return t
	}
	p := &d.Peers[0]
	t.Peer, t.Preshared, t.Remote, t.Keepalive = p.Key, p.Preshared, p.Endpoint, p.Keepalive
	t.AllowedIPs = allowedText(p.Allowed)
	return t
}

// allowedText writes networks as wg(8) does, in order: the kernel returns them in the order of its own trie.
func allowedText(networks []netip.Prefix) string {
	networks = slices.Clone(networks)
	sortPrefixes(networks)
	words := make([]string, len(networks))
	for i, p := range networks {
		words[i] = p.String()
	}
	return strings.Join(words, ",")
}

// setPeer sets up a device. If the kernel refuses a part, what it has taken before is set back.
func setPeer(s state.SetPeer) error {
	err := setWireGuard(s.Device, s.From, s.To)
	if err != nil && s.From != (transport.WireGuard{}) {
		_ = setWireGuard(s.Device, s.To, s.From)
	}
	return err
}

// setWireGuard sets what t has and before has not. A router's port is any one: it stays as it is.
func setWireGuard(device string, before, t transport.WireGuard) error {
	request, err := wireGuardRequest(wgSetDevice, unix.NLM_F_ACK, device)
	if err != nil {
		return err
	}
	if t.Private != before.Private || before == (transport.WireGuard{}) {
		request.AddData(nl.NewRtAttr(wgPrivateKey, t.Private[:]))
	}
	if t.ListenPort != before.ListenPort {
		request.AddData(nl.NewRtAttr(wgListenPort, nl.Uint16Attr(t.ListenPort)))
	}
	if t.Mark != before.Mark {
		request.AddData(nl.NewRtAttr(wgMark, nl.Uint32Attr(t.Mark)))
	}
	peers := nl.NewRtAttr(wgPeers|unix.NLA_F_NESTED, nil)
	switch {
	case t.Renews(before):
		former := before.Peer // the request has the array itself, not a copy
		old := peers.AddRtAttr(unix.NLA_F_NESTED, nil)
		old.AddRtAttr(wgPublicKey, former[:])
		old.AddRtAttr(wgFlags, nl.Uint32Attr(wgRemove))
		before = transport.WireGuard{}
	case t.Wakes(before):
		silent := peers.AddRtAttr(unix.NLA_F_NESTED, nil)
		silent.AddRtAttr(wgPublicKey, t.Peer[:])
		silent.AddRtAttr(wgKeepalive, nl.Uint16Attr(0))
		before.Keepalive = 0
	}
	if t.Peer.Valid() {
		addWireGuardPeer(peers, before, t)
	}
	request.AddData(peers)
	_, err = request.Execute(unix.NETLINK_GENERIC, 0)
	return err
}

// addWireGuardPeer adds the peer, with what is other than before.
func addWireGuardPeer(peers *nl.RtAttr, before, t transport.WireGuard) {
	peer := peers.AddRtAttr(unix.NLA_F_NESTED, nil)
	peer.AddRtAttr(wgPublicKey, t.Peer[:])
	if t.Preshared != before.Preshared {
		peer.AddRtAttr(wgPreshared, t.Preshared[:])
	}
	if t.Remote.IsValid() && t.Remote != before.Remote {
		peer.AddRtAttr(wgEndpoint, sockaddr(t.Remote))
	}
	if t.Keepalive != before.Keepalive {
		peer.AddRtAttr(wgKeepalive, nl.Uint16Attr(uint16(t.Keepalive)))
	}
	if t.AllowedIPs == before.AllowedIPs {
		return
	}
	peer.AddRtAttr(wgFlags, nl.Uint32Attr(wgReplaceIPs))
	allowed := peer.AddRtAttr(wgAllowedIPs|unix.NLA_F_NESTED, nil)
	for word := range strings.SplitSeq(t.AllowedIPs, ",") {
		p, err := netip.ParsePrefix(word)
		if err != nil {
			continue // there is none
		}
		family := uint16(unix.AF_INET)
		if p.Addr().Is6() {
			family = unix.AF_INET6
		}
		network := allowed.AddRtAttr(unix.NLA_F_NESTED, nil)
		network.AddRtAttr(wgAllowedKind, nl.Uint16Attr(family))
		network.AddRtAttr(wgAllowedAddr, p.Addr().AsSlice())
		network.AddRtAttr(wgAllowedBits, nl.Uint8Attr(uint8(p.Bits())))
	}
}

// sockaddr is a struct sockaddr_in or sockaddr_in6.
func sockaddr(a netip.AddrPort) []byte {
	size, family, at := sizeSockaddr4, uint16(unix.AF_INET), 4
	if a.Addr().Is6() {
		size, family, at = sizeSockaddr6, unix.AF_INET6, 8
	}
	data := make([]byte, size)
	binary.NativeEndian.PutUint16(data, family)
	binary.BigEndian.PutUint16(data[2:], a.Port())
	copy(data[at:], a.Addr().AsSlice())
	return data
}
