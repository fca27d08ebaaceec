package transport

import (
	"net/netip"
	"strconv"
)

// Opening is traffic that a firewall must allow. Rules for nft(8), iptables(8) and OpenWrt's firewall are built from
// it, and so are the commands that messages suggest.
type Opening struct {
	Family   Family
	Proto    uint8      // IP protocol
	Port     uint16     // destination; 0 for protocols without ports
	From, To netip.Addr // of the family; invalid: any
}

// Family is the version of the internet protocol.
type Family uint8

// The families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// Anywhere returns the opening for any local address.
func (o Opening) Anywhere() Opening {
	o.To = netip.Addr{}
	return o
}

// Outwards returns the opening for the reverse direction.
func (o Opening) Outwards() Opening {
	o.From, o.To = o.To, o.From
	return o
}

// Nft returns the match of a rule for nft(8), in a table of any family that sees the packets: the protocol, and the
// addresses and port that the opening has.
func (o Opening) Nft() string {
	family := "ip"
	if o.Family == IPv6 {
		family = "ip6"
	}
	return words(family+" saddr ", family+" daddr ", "", "meta l4proto ", "th dport ", o)
}

// NftFrom is like Nft for packets that have the opening's port as their source: answers.
func (o Opening) NftFrom() string {
	text := o
	text.Port = 0
	return text.Nft() + " th sport " + strconv.Itoa(int(o.Port))
}

// IPTables returns the program and the match of a rule, as `iptables -S` prints it (iptables(8)).
func (o Opening) IPTables() (program, match string) {
	if o.Family == IPv6 {
		return "ip6tables", words("-s ", "-d ", "/128", "-p ", "--dport ", o)
	}
	return "iptables", words("-s ", "-d ", "/32", "-p ", "--dport ", o)
}

// words joins the parts of a match that the opening has, each after its keyword.
func words(from, to, whole, proto, port string, o Opening) string {
	text := ""
	if o.From.IsValid() {
		text = from + o.From.String() + whole + " "
	}
	if o.To.IsValid() {
		text += to + o.To.String() + whole + " "
	}
	text += proto + strconv.Itoa(int(o.Proto))
	if o.Port != 0 {
		text += " " + port + strconv.Itoa(int(o.Port))
	}
	return text
}
