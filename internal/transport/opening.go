package transport

import (
	"fmt"
	"net/netip"
	"strings"
)

// Opening is what a firewall has to let in. Rules of nft(8), iptables(8) and OpenWrt's firewall are made of it, and so is
// what a person is told to type.
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

// Nft is the match of a rule as nft(8) reads it, in a table of any family that has the packets: the protocol, and of the
// addresses those that the opening has.
func (o Opening) Nft() string {
	family := "ip"
	if o.IPv6() {
		family = "ip6"
	}
	var words []string
	if o.From.IsValid() {
		words = append(words, family+" saddr "+o.From.String())
	}
	if o.To.IsValid() {
		words = append(words, family+" daddr "+o.To.String())
	}
	words = append(words, fmt.Sprintf("meta l4proto %d", o.Proto))
	if o.Port != 0 {
		words = append(words, fmt.Sprintf("th dport %d", o.Port))
	}
	return strings.Join(words, " ")
}

// IPTables is the program and the match of a rule, as `iptables -S` prints it (iptables(8)).
func (o Opening) IPTables() (program, match string) {
	program, bits := "iptables", 32
	if o.IPv6() {
		program, bits = "ip6tables", 128
	}
	var words []string
	if o.From.IsValid() {
		words = append(words, "-s "+netip.PrefixFrom(o.From, bits).String())
	}
	if o.To.IsValid() {
		words = append(words, "-d "+netip.PrefixFrom(o.To, bits).String())
	}
	words = append(words, fmt.Sprintf("-p %d", o.Proto))
	if o.Port != 0 {
		words = append(words, fmt.Sprintf("--dport %d", o.Port))
	}
	return program, strings.Join(words, " ")
}
