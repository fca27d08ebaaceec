package config

import (
	"strconv"
)

// protocols are the names of IP protocols that a home might forward, as in /etc/protocols (IANA's assigned numbers).
// They stand here because a router's /etc/protocols is short or missing.
var protocols = []struct {
	name   string
	number uint8
}{
	{"icmp", 1}, {"igmp", 2}, {"ipencap", 4}, {"tcp", 6}, {"egp", 8}, {"igp", 9}, {"udp", 17}, {"rdp", 27}, {"dccp", 33},
	{"ipv6", 41}, {"rsvp", 46}, {"gre", 47}, {"esp", 50}, {"ah", 51}, {"eigrp", 88}, {"ospf", 89}, {"ipip", 94},
	{"etherip", 97}, {"encap", 98}, {"pim", 103}, {"ipcomp", 108}, {"vrrp", 112}, {"l2tp", 115}, {"sctp", 132},
	{"udplite", 136},
}

// A Protocol is an IP protocol that is known by name.
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

// ProtoName returns the protocol's name where it is a known one, else its number.
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

// HasPorts tells whether the protocol has ports where nft's `th dport` looks for them.
func HasPorts(proto uint8) bool {
	switch proto {
	case 6, 17, 33, 132, 136:
		return true
	}
	return false
}

// plainNumber refuses what strconv takes and no person types for a number: signs and leading zeros.
func plainNumber(s string) bool {
	return s == "0" || s != "" && s[0] >= '1' && s[0] <= '9'
}
