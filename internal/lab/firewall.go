//go:build linux

package lab

import (
	"fmt"
	"net/netip"
)

// routerFirewall imitates a home router's firewall: packets from the internet must belong to a connection from the
// home. The chains relay_input and relay_forward are where fw4 puts rules that services declare; OpenRouterFirewall
// fills them.
const routerFirewall = `
table inet fw {
	chain relay_input {
	}
	chain relay_forward {
	}
	chain input {
		type filter hook input priority filter; policy drop;
		iifname { "lo", "br-lan", "lan2" } accept
		ct state established,related accept
		meta l4proto ipv6-icmp accept
		jump relay_input
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname { "br-lan", "lan2" } oifname { "wan", "ds-wan6_4", "br-lan", "lan2" } accept
		meta l4proto ipv6-icmp accept
		jump relay_forward
	}
}
`

func (n *Net) loadRouterFirewall() error {
	return n.Router.NFT(routerFirewall)
}

// OpenRouterFirewall opens the firewall of Options.RouterFirewall for a relay, like fw4's service rules: protocol 4
// from the peer's prefix on wan, and all forwarding from and to the tunnel device. It replaces the rules of earlier
// calls.
func (n *Net) OpenRouterFirewall(device string, peer netip.Prefix) error {
	return n.Router.NFT(fmt.Sprintf(`
flush chain inet fw relay_input
flush chain inet fw relay_forward
table inet fw {
	chain relay_input {
		iifname %q ip6 saddr %s meta l4proto 4 accept
	}
	chain relay_forward {
		iifname %q accept
		oifname %q accept
	}
}
`, WANDevice, peer, device, device))
}
