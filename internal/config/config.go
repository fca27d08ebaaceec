package config

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/ds4relay/ds4relay/internal/transport"
)

// DefaultPath is where both ends keep their configuration.
const DefaultPath = "/etc/config/ds4relay"

// Role is this machine's role in a relay.
type Role string

// The two ends of a relay.
const (
	Router Role = "router" // at home, behind DS-Lite
	VPS    Role = "vps"    // has the public IPv4 address
)

// Egress says what a forwarded host sends through the tunnel.
type Egress string

// The values of `option egress`.
const (
	Replies Egress = "replies" // only answers to connections that came through the tunnel
	All     Egress = "all"     // the host's own connections too
)

// Transport is what carries a relay's packets between its ends.
type Transport string

// The values of `option transport`.
const (
	IPIP6     Transport = "ipip6"     // IPv4 in IPv6 (RFC 2473), without encryption
	WireGuard Transport = "wireguard" // encrypted, over UDP
)

// Places of a router's ip rules behind option priority, which other relays' rules have to keep to.
const (
	AnswersRule    = 2 // answers of hosts go into the tunnel
	KillSwitchRule = 5 // what hosts with a kill switch send, and no rule before has taken, is dropped
)

// KeyDir is where the files with the keys are, unless the configuration says another place.
const KeyDir = "/etc/ds4relay/keys/"

// PlainAddr is the address that hosts see instead of a client's behind a WireGuard client without ds4relay: such a home
// cannot route answers to any address back into the tunnel.
var PlainAddr = netip.AddrFrom4([4]byte{10, 46, 46, 1})

// Config is a configuration file without mistakes.
type Config struct {
	Path    string
	Sum     uint64   // of what the file says about relays, without comments, and of what homes have told; see SameFile
	Relays  []*Relay // in the order of the file, disabled ones too
	Proxies []*Proxy // in the order of the file, enabled ones only
}

// Relay is one public IPv4 address, the tunnel behind it and its two ends, seen from this end.
type Relay struct {
	Name       string
	Line       int // of the section
	Enabled    bool
	Role       Role
	Transport  Transport
	IPAddr     netip.Addr // the VPS's public IPv4 address
	NICAddr    netip.Addr // on a VPS: its address on the network card; not valid where that is IPAddr or not known yet
	Local      netip.Addr // this end's endpoint; not valid where Auto is set
	Auto       bool       // the endpoint is made of the prefix that tunlink gets delegated, or has
	Peer       netip.Addr // the other end's endpoint; not valid where PeerName is set, or where it is learned
	PeerName   string     // DNS name of the other end's endpoint
	Tunlink    string     // "" where it is to be found out
	Device     string
	MTU        int // bytes; 0 for auto
	EncapLimit int // 0-255 or transport.NoEncapLimit
	TTL        int
	Table      uint32
	Priority   int // of the first ip rule
	Egress     Egress
	Offloading bool // of flows

	Standby     bool   // on a VPS: another one may have the public address in its place
	Backup      string // on a router: the relay by which hosts with egress all leave while this one's VPS is silent
	TargetLocal bool   // on a VPS: its own programs reach the forwards, too

	EgressPrivate bool // on a VPS: hosts with egress all may open connections to private addresses
	KillSwitch    bool // on a router: what its forwards have by default
	Masq          bool // what its forwards have by default

	WireGuard WireGuardOptions

	Keep     []PortSet  // with the port of WireGuard
	Allow    *Allowance // on a VPS: what the home may ask for; nil for a relay that is not paired
	Home     Home       // of a paired relay
	Forwards []*Forward // enabled ones only; those that the home has pushed are last
}

// WireGuardOptions are the options of a relay with the transport WireGuard.
type WireGuardOptions struct {
	PublicKey     transport.Key // the other end's
	PrivateFile   string        // with this end's private key
	PresharedFile string        // "" for none
	Port          uint16        // UDP port of the VPS
	Keepalive     int           // on a router, in seconds; 0 for none
	Plain         bool          // on a VPS: the home is a WireGuard client without ds4relay
}

// PortSet is a range of ports of one IP protocol, or the whole protocol if First is 0.
type PortSet struct {
	Proto       uint8
	First, Last uint16
}

// String writes it as `list keep` does: tcp:22.
func (p PortSet) String() string {
	switch {
	case !p.HasPorts():
		return ProtoName(p.Proto)
	case p.First == p.Last:
		return fmt.Sprintf("%s:%d", ProtoName(p.Proto), p.First)
	}
	return fmt.Sprintf("%s:%d-%d", ProtoName(p.Proto), p.First, p.Last)
}

// Forward is the traffic that is forwarded to one host at home.
type Forward struct {
	Section  string // name of the section, or "forward[N]" for the Nth anonymous one
	Name     string // the user's own words for it, may be empty
	Pushed   string // the file that the home has pushed it with; "" for one of the configuration itself
	turn     int    // of what was pushed, which has come in turn; 0 for the configuration itself
	Line     int
	All      bool      // every protocol: the VPS's address becomes the host's (1:1)
	Ports    []PortSet // public side; empty with All
	DestIP   netip.Addr
	DestPort uint16         // port on the host that the first public port maps to; 0: ports stay as they are
	Clients  []netip.Prefix // who may use it, none within another; nil for everybody
	Egress   Egress

	KillSwitch bool // with egress all: the host leaves for the internet by the tunnel, or not at all
	Masq       bool // the host sees an address of this end instead of the client's
}

// Sections is how many forwards the relays have, of which several may have the same one.
func Sections(relays []*Relay) (n int) {
	for i, r := range relays {
		for _, f := range r.Forwards {
			if !slices.ContainsFunc(relays[:i], func(earlier *Relay) bool {
				return earlier.IPAddr == r.IPAddr && r.Role == Router && slices.ContainsFunc(earlier.Forwards, f.Same)
			}) {
				n++
			}
		}
	}
	return n
}

// String describes it in one line for status: `tcp:443, udp:443 → 192.168.1.210:8443 for 203.0.113.0/24`.
func (f *Forward) String() string { return f.describe(math.MaxInt) }

// brief is like String, with only the first ports and clients, for messages.
func (f *Forward) brief() string { return f.describe(maxListed) }

func (f *Forward) describe(most int) string {
	what := listed(f.Ports, most, PortSet.String)
	if f.All {
		what = "all"
	}
	dest := f.DestIP.String()
	if f.DestPort != 0 && f.DestPort != f.Ports[0].First {
		dest = fmt.Sprintf("%s:%d", dest, f.DestPort)
	}
	if len(f.Clients) > 0 {
		dest += " for " + listed(f.Clients, most, func(p netip.Prefix) string {
			return strings.TrimSuffix(p.String(), "/32")
		})
	}
	return what + " → " + dest
}

// Relay returns the relay of that name, or nil.
func (c *Config) Relay(name string) *Relay {
	for _, r := range c.Relays {
		if r.Name == name {
			return r
		}
	}
	return nil
}

// Card is what a VPS's packets carry in place of the public address: the address on its network card, as far as it is
// known. A cloud translates between the two.
func (r *Relay) Card() netip.Addr {
	if r.NICAddr.IsValid() {
		return r.NICAddr
	}
	return r.IPAddr
}

// Translated reports whether a cloud translates the public address.
func (r *Relay) Translated() bool { return r.Card() != r.IPAddr }

// Addresses are the public address and, if a cloud translates it, the one on the VPS's network card.
func (r *Relay) Addresses() []netip.Addr {
	if r.Translated() {
		return []netip.Addr{r.IPAddr, r.NICAddr}
	}
	return []netip.Addr{r.IPAddr}
}

// Has reports whether an address is one of Addresses.
func (r *Relay) Has(addr netip.Addr) bool { return addr == r.IPAddr || addr == r.Card() }

// KeptPort is the port of the VPS that the relay's transport uses itself, if it uses one.
func (r *Relay) KeptPort() (PortSet, bool) {
	return PortSet{UDP, r.WireGuard.Port, r.WireGuard.Port}, r.Transport == WireGuard
}

// Names are the relays' names, for messages.
func (c *Config) Names() string {
	var names []string
	for _, r := range c.Relays {
		names = append(names, r.Name)
	}
	return strings.Join(names, ", ")
}

// MarkMask is the part of packet and connection marks that ds4relay uses; mwan3 and pbr use lower bits.
const MarkMask = 0xff000000

// Mark is the mark of connections that came in through the relay's tunnel: 0x46000000 for table 42, one more in the
// upper byte for each following table. It is derived from the table, which is the relay's alone, so it does not change
// when relays come and go.
func (r *Relay) Mark() uint32 {
	return (1 + (r.Table%255+255+0x45-42)%255) << 24
}
