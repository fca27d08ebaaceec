package transport

import (
	"net/netip"
	"strconv"
)

// Opening is traffic that a firewall must allow. Rules for nft(8), iptables(8) and OpenWrt's firewall are built from
// it, and so are the commands that messages suggest.
type Opening struct {
	Proto    uint8      // IP protocol
	Port     uint16     // destination; 0 for protocols without ports
	From, To netip.Addr // same family; invalid: any
}

// IPv6 reports whether the family is IPv6.
func (o Opening) IPv6() bool { return o.From.Is6() || o.To.Is6() }

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
	if o.IPv6() {
		family = "ip6"
	}
	return words(family+" saddr ", family+" daddr ", "", "meta l4proto ", "th dport ", o)
}

// IPTables returns the program and the match of a rule, as `iptables -S` prints it (iptables(8)).
func (o Opening) IPTables() (program, match string) {
	if o.IPv6() {
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
