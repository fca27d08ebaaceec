package transport

import (
	"net/netip"
	"strconv"
)

// Opening is what a firewall has to let in. Rules of nft(8), iptables(8) and OpenWrt's firewall are made of it, and so
// is what a person is told to type.
type Opening struct {
	Proto    uint8      // IP protocol
	Port     uint16     // of the destination; 0 for protocols without ports
	From, To netip.Addr // of one family; not valid: any
}

// IPv6 tells the family.
func (o Opening) IPv6() bool { return o.From.Is6() || o.To.Is6() }

// Anywhere is the opening whatever address of this machine it is for.
func (o Opening) Anywhere() Opening {
	o.To = netip.Addr{}
	return o
}

// Outwards is what has to go out where the opening comes in.
func (o Opening) Outwards() Opening {
	o.From, o.To = o.To, o.From
	return o
}

// Nft is the match of a rule as nft(8) reads it, in a table of any family that has the packets: the protocol, and of
// the addresses those that the opening has.
func (o Opening) Nft() string {
	family := "ip"
	if o.IPv6() {
		family = "ip6"
	}
	return words(family+" saddr ", family+" daddr ", "", "meta l4proto ", "th dport ", o)
}

// IPTables is the program and the match of a rule, as `iptables -S` prints it (iptables(8)).
func (o Opening) IPTables() (program, match string) {
	if o.IPv6() {
		return "ip6tables", words("-s ", "-d ", "/128", "-p ", "--dport ", o)
	}
	return "iptables", words("-s ", "-d ", "/32", "-p ", "--dport ", o)
}

// words are the parts of a match that the opening has, each behind its word.
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
