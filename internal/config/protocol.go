package config

import (
	"strconv"
)

// protocols are the names of IP protocols that a home might forward, as in /etc/protocols (IANA's assigned numbers).
// They are listed here because a router's /etc/protocols is short or missing.
var protocols = []struct {
	name   string
	number uint8
}{
	{"icmp", 1}, {"igmp", 2}, {"ipencap", 4}, {"tcp", 6}, {"egp", 8}, {"igp", 9}, {"udp", 17}, {"rdp", 27},
	{"dccp", 33}, {"ipv6", 41}, {"rsvp", 46}, {"gre", 47}, {"esp", 50}, {"ah", 51}, {"eigrp", 88}, {"ospf", 89},
	{"ipip", 94}, {"etherip", 97}, {"encap", 98}, {"pim", 103}, {"ipcomp", 108}, {"vrrp", 112}, {"l2tp", 115},
	{"sctp", 132}, {"udplite", 136},
}

// A Protocol is an IP protocol with a known name.
type Protocol struct {
	Name   string `json:"name"`
	Number uint8  `json:"number"`
	Ports  bool   `json:"ports"` // see HasPorts
}

// Protocols are those that ParseProto knows by name.
func Protocols() []Protocol {
	list := make([]Protocol, len(protocols))
	for i, p := range protocols {
		list[i] = Protocol{p.name, p.number, HasPorts(p.number)}
	}
	return list
}

// ProtoName returns the protocol's name if it is known, otherwise its number.
func ProtoName(number uint8) string {
	for _, p := range protocols {
		if p.number == number {
			return p.name
		}
	}
	return strconv.Itoa(int(number))
}

// ParseProto reads a protocol's name or number (1-255).
func ParseProto(s string) (uint8, bool) {
	for _, p := range protocols {
		if p.name == s {
			return p.number, true
		}
	}
	n, err := strconv.ParseUint(s, 10, 8)
	return uint8(n), err == nil && n != 0 && plainNumber(s)
}

// HasPorts reports whether the protocol has ports where nft's `th dport` expects them.
func HasPorts(proto uint8) bool {
	switch proto {
	case 6, 17, 33, 132, 136:
		return true
	}
	return false
}

// plainNumber refuses signs and leading zeros, which strconv accepts but nobody types.
func plainNumber(s string) bool {
	return s == "0" || s != "" && s[0] >= '1' && s[0] <= '9'
}
