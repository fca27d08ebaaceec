package doctor

import (
	"net/netip"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/packet"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// Prober gathers evidence: it reads this machine and sends test packets.
type Prober interface {
	// Config reads the configuration; where it has mistakes there is none.
	Config() (c *config.Config, warnings config.Problems, err error)
	System() System
	Installed(*config.Config) (Installed, error)
	// Path finds the path of a relay's packets. An error says why it is not known.
	Path(*config.Relay) (Path, error)
	// Ping sends ICMPv6 echo requests of that size in bytes, including the IPv6 header, until one is answered. The
	// kernel chooses the source if from is not valid.
	Ping(from, to netip.Addr, bytes int) Pong
	// Try sends packets and observes what happens to them.
	Try(Trial) Seen
	// Session returns what the kernel knows about the other end of a relay with the transport WireGuard.
	Session(*config.Relay) Session
	// Taker finds where connection tracking sends packets from an address to the port of a VPS's relay, if elsewhere.
	Taker(r *config.Relay, from netip.Addr) netip.AddrPort
	// Clients counts the open forwarded connections to a relay's public address; it is negative if that is not known.
	Clients(*config.Relay) int
	// Neighbour looks for a host on a device: "answers", NoAnswer, or "" if the kernel does not know it.
	Neighbour(device string, host netip.Addr) string
}

// System is evidence that does not depend on the configuration.
type System struct {
	OpenWrt     bool
	Modules     map[string]bool // kinds of tunnels, by their modules: ip6_tunnel, wireguard; loaded, or can be
	Kernel      string          // its release
	NftErr      error           // why the program nft does not run
	Tracked     int             // connections
	MaxTracked  int             // that may be tracked; 0 where the kernel does not track any
	Now         time.Time
	Unsynced    bool // the kernel says that nobody sets the clock
	IPv4Default bool // there is an IPv4 default route
}

// Installed is the difference between the kernel and the configuration.
type Installed struct {
	Blocked []*message.Text // what is in the way
	Differs []string        // the commands that would make the kernel match
}

// Path is the path of a relay's packets.
type Path struct {
	Local, Peer netip.Addr
	Remote      netip.AddrPort // with WireGuard: the other end as the kernel knows it now
	PeerNote    *message.Text  // where the peer's address is not what its name says now
	MTU         int            // of the tunnel, in bytes
	Uplink      string         // device of the route to the peer; "" without one
	Access      string         // VPS: the device that clients come by
	Card        netip.Addr     // VPS: what a cloud translates the public address to; not valid where none does
	LearntMTU   int            // what the kernel has learnt about the path, or the MTU of the route
	LAN         map[netip.Addr]string
	Self        map[netip.Addr]bool // hosts that are this router itself
	RxPackets   uint64              // out of the tunnel since it was made
	Unheard     *message.Text       // why nothing can arrive at this end, if it seems so
}

// Pong is the result of an echo request.
type Pong struct {
	Answered bool
	Error    *message.Text // what ICMPv6 said instead, and who: "2001:db8::1 says: no route"
}

// Trial is what to send.
type Trial struct {
	Into    string // a tunnel that they are put into, or
	By      string // a device that they seem to come in by; without both they are IPv6, and leave as usual
	Packets [][]byte
	Dials   []Dial // connections of this machine itself that are begun, too
	// Match says which packets belong to it; Done, which is called with each of them, whether the wait ends.
	Match func(Sighting) bool
	Done  func(Sighting) bool
	Wait  time.Duration
	// More says which packets prolong the wait, from when they are seen; may be nil.
	More   func(Sighting) bool
	Longer time.Duration
	// Follow asks for the nft chains and counters that show why packets of this address, also inside the tunnel, go no
	// further; FollowPort for those of UDP packets from or to a port.
	Follow     netip.Addr
	FollowPort uint16
	// Key, if set, is this end's, for Seen.Foreign.
	Key transport.Key
}

// Session is WireGuard's connection to the other end.
type Session struct {
	Key       transport.Key  // this end's public key
	Remote    netip.AddrPort // where the other end is; not valid while that is not known
	Handshake time.Time      // the last one; zero for never
	Now       time.Time      // by this machine's clock, when this was read
	RxBytes   uint64         // that the other end has sent and the kernel has accepted
}

// Dial is the first packet of a connection to an address.
type Dial struct {
	Proto uint8 // TCP, UDP or ICMP (an echo request)
	To    netip.Addr
	Port  uint16
}

// Sighting is a packet seen on a device.
type Sighting struct {
	Device string
	Out    bool
	packet.Packet
}

// Seen is the result of a Trial.
type Seen struct {
	Err       error
	Sightings []Sighting
	Verdicts  []Verdict // with Follow, in order
	// With Follow: counters of the kernel that moved, by their names in /proc/net/snmp and netstat.
	Counters map[string]uint64
	Foreign  bool // an initiation of WireGuard came that is made for another key than Trial.Key
}

// Verdict is the decision of an nft chain about a packet.
type Verdict struct {
	Family, Table, Chain string
	Policy               bool // the chain's policy, not a rule
	Drop                 bool
	Hint                 string // "docker", "firewalld", "fw4": whose chain it seems to be
}
