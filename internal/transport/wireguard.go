package transport

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/ds4relay/ds4relay/internal/packet"
)

// WireGuard is the kernel's encrypted tunnel over UDP (wg(8)): a device of type wireguard with one peer. It is
// comparable, but what the kernel has learned of an endpoint is part of it; see Adopt.
type WireGuard struct {
	Remote     netip.AddrPort // the other end; not valid where it is learned
	ListenPort uint16         // UDP port at this end; 0 for any
	Mark       uint32         // of outer packets
	Peer       Key
	Private    Secret
	Preshared  Secret // zero for none
	AllowedIPs string // networks behind the other end, as in wg(8)
	Keepalive  int    // seconds between packets to the other end when there are no others; 0 for none

	// The files with the secrets, for commands that a person could type; empty for what is read from the kernel.
	PrivateFile, PresharedFile string
}

// WireGuardKind is the device type of WireGuard.
const WireGuardKind = "wireguard"

// DefaultPort is the UDP port of a VPS's WireGuard, unless the configuration has another.
const DefaultPort = 51846

// Sizes in bytes: of the outer headers of WireGuard's packets (IPv4 or IPv6, UDP), and of what it adds itself, a header
// of 16 and an authenticator of 16 (WireGuard's protocol, "Subsequent Messages: Transport Data Messages").
const (
	ipv4Header      = 20
	udpHeader       = 8
	wireGuardAround = 32
)

// Key is a public key of Curve25519.
type Key [32]byte

// Secret is a private or a preshared key. No format of package fmt shows it.
type Secret [32]byte

// ParseKey reads a key as wg(8) writes it: 32 bytes in base64.
func ParseKey(text string) (k Key, ok bool) {
	if len(text) != base64.StdEncoding.EncodedLen(len(k)) {
		return k, false
	}
	data, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(data) != len(k) {
		return k, false
	}
	return Key(data), true
}

// String writes the key as wg(8) does.
func (k Key) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// Valid reports whether the key is set.
func (k Key) Valid() bool { return k != Key{} }

const hidden = "(secret)"

// Format hides the key, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hidden)) }

// MarshalText hides the key.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// Valid reports whether the key is set.
func (s Secret) Valid() bool { return s != Secret{} }

// Kind implements Tunnel.
func (t WireGuard) Kind() string { return WireGuardKind }

// Arguments implements Tunnel. Everything else is set by Settings.
func (t WireGuard) Arguments() string { return "type wireguard" }

// Settings returns what follows the device name in `wg set` (wg(8)) so that a device with the settings before has those
// of t. It names files, not keys.
func (t WireGuard) Settings(before WireGuard) string {
	text := ""
	if t.ListenPort != before.ListenPort {
		text += " listen-port " + strconv.Itoa(int(t.ListenPort))
	}
	if t.Mark != before.Mark {
		text += " fwmark 0x" + strconv.FormatUint(uint64(t.Mark), 16)
	}
	if t.Private != before.Private || !before.Private.Valid() {
		text += " private-key " + fileName(t.PrivateFile)
	}
	switch {
	case t.Renews(before):
		text += " peer " + before.Peer.String() + " remove"
		before = WireGuard{}
	case t.Wakes(before):
		text += " peer " + t.Peer.String() + " persistent-keepalive 0"
		before.Keepalive = 0
	}
	text += " peer " + t.Peer.String()
	if t.Preshared != before.Preshared {
		if t.Preshared.Valid() {
			text += " preshared-key " + fileName(t.PresharedFile)
		} else {
			text += " preshared-key /dev/null"
		}
	}
	if t.Remote.IsValid() && t.Remote != before.Remote {
		text += " endpoint " + t.Remote.String()
	}
	if t.Keepalive != before.Keepalive {
		text += " persistent-keepalive " + strconv.Itoa(t.Keepalive)
	}
	if t.AllowedIPs != before.AllowedIPs {
		text += " allowed-ips " + t.AllowedIPs
	}
	return text[1:]
}

// Renews reports whether the peer of a device with the settings before is removed, and added with all settings of t.
// That is so for another peer, and at the end with a keepalive also for another private key: the kernel sends the first
// keepalive of a new peer at once, and with it the handshake that the other end waits for. Else the tunnel would be
// silent for up to persistent-keepalive seconds.
func (t WireGuard) Renews(before WireGuard) bool {
	return before.Peer.Valid() && (before.Peer != t.Peer || t.Keepalive > 0 && before.Private != t.Private)
}

// Wakes reports whether t sends to another address. The other end has to hear of that at once: what it sends to where
// this end was would bring this end back to the former address. Setting the keepalive to 0 and back sends one.
func (t WireGuard) Wakes(before WireGuard) bool {
	return t.Keepalive > 0 && before.Keepalive > 0 && t.Remote.IsValid() && before.Remote != t.Remote
}

// fileName returns the name of a file with a key, or what stands for a key that was only in the kernel.
func fileName(file string) string {
	if file == "" {
		return "FILE"
	}
	return file
}

// Adopt returns t with what a device has and t leaves to the kernel: where the other end is, and the port.
func (t WireGuard) Adopt(have WireGuard) WireGuard {
	if t.ListenPort == 0 {
		t.ListenPort = have.ListenPort
	}
	if !t.Remote.IsValid() && have.Peer == t.Peer {
		t.Remote = have.Remote
	}
	return t
}

// Same reports whether a device with the settings have needs no change. The names of files do not count: the kernel
// does not know them.
func (t WireGuard) Same(have WireGuard) bool { return t.InKernel() == have.InKernel() }

// InKernel returns t as the kernel has it.
func (t WireGuard) InKernel() WireGuard {
	t.PrivateFile, t.PresharedFile = "", ""
	return t
}

// Endpoints implements Tunnel. This end's address is left to the kernel.
func (t WireGuard) Endpoints() (local, remote netip.Addr) { return netip.Addr{}, t.Remote.Addr() }

// Overhead implements Tunnel. Where the other end is not known, it is that of IPv6.
func (t WireGuard) Overhead() int {
	if t.Remote.Addr().Is4() {
		return ipv4Header + udpHeader + wireGuardAround
	}
	return OuterHeader + udpHeader + wireGuardAround
}

// Openings implements Tunnel: at the end that listens, its port, over IPv4 and IPv6.
func (t WireGuard) Openings() []Opening {
	if t.ListenPort == 0 {
		return nil
	}
	return []Opening{{Family: IPv4, Proto: packet.UDP, Port: t.ListenPort},
		{Family: IPv6, Proto: packet.UDP, Port: t.ListenPort}}
}

// Sends implements Tunnel. What is inside of a packet on the wire is encrypted; inner packets have no outer one.
func (t WireGuard) Sends(p *packet.Packet) bool { return t.between(p, p.SrcPort, p.Dst, p.DstPort) }

// Receives implements Tunnel.
func (t WireGuard) Receives(p *packet.Packet) bool { return t.between(p, p.DstPort, p.Src, p.SrcPort) }

// between reports whether a packet goes between the ends, of which as much has to fit as is known of the tunnel: a port
// of this machine, and an address and a port of the other one.
func (t WireGuard) between(p *packet.Packet, port uint16, there netip.Addr, portThere uint16) bool {
	switch {
	case p.Proto != packet.UDP || p.Outer != nil || t.ListenPort == 0 && !t.Remote.IsValid():
		return false
	case t.Remote.IsValid() && t.Remote != netip.AddrPortFrom(there, portThere):
		return false
	}
	return t.ListenPort == 0 || t.ListenPort == port
}

// Refused implements Tunnel. It recognises ICMP errors that quote an outer packet.
func (t WireGuard) Refused(p *packet.Packet) bool {
	return p.IsError() && p.Quoted != nil && t.Sends(p.Quoted)
}
