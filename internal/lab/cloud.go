//go:build linux

package lab

import (
	"fmt"
	"net/netip"
)

// Addresses of a VPS in a cloud (Options.Cloud).
const (
	CardIPv4  = "10.0.0.5"
	CloudIPv4 = "10.0.0.1" // the VPS's gateway
	cloudMTU  = 9000
)

// cloudNAT is the cloud's gateway: it translates one public address to one private one, both ways. What the VPS sends
// to its own public address is dropped, as by clouds without hairpin NAT.
const cloudNAT = `
table ip cloud
delete table ip cloud
table ip cloud {
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		iifname != "vps" ip daddr 198.51.100.144 dnat to %[1]s
	}
	chain forward {
		type filter hook forward priority filter; policy accept;
		iifname "vps" ip daddr 198.51.100.144 drop
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifname != "vps" ip saddr %[1]s snat to 198.51.100.144
	}
}
`

// addCloud gives the VPS what Oracle, AWS, Google and Azure give one: a private address, which core translates, a card
// with large frames, and one IPv6 address.
func (n *Net) addCloud() error {
	if err := n.arrange([]command{
		{n.Core, fmt.Sprintf("ip link set vps mtu %d", cloudMTU)},
		{n.VPS, fmt.Sprintf("ip link set eth0 mtu %d; ip -6 addr del %s/64 dev eth0; ip -6 addr add %s/128 dev eth0; "+
			"ip -6 route replace default via 2001:db8:6ef9::ff dev eth0 onlink", cloudMTU, VPSIPv6, VPSIPv6)},
	}); err != nil {
		return err
	}
	return n.MoveCard(netip.MustParsePrefix(CardIPv4+"/24"), netip.MustParseAddr(CloudIPv4))
}

// MoveCard gives the card of a VPS in a cloud an address, which the cloud translates from now on, and its gateway.
func (n *Net) MoveCard(address netip.Prefix, gateway netip.Addr) error {
	if err := n.arrange([]command{
		{n.Core, fmt.Sprintf("ip -4 addr flush dev vps; ip addr add %s/%d dev vps", gateway, address.Bits())},
		{n.VPS, fmt.Sprintf("ip -4 addr flush dev eth0; ip addr add %s dev eth0; ip route add default via %s dev eth0",
			address, gateway)},
	}); err != nil {
		return err
	}
	return n.Core.NFT(fmt.Sprintf(cloudNAT, address.Addr()))
}

// command is a line of a shell on a host.
type command struct {
	host *Host
	line string
}

func (n *Net) arrange(commands []command) error {
	for _, c := range commands {
		if out, err := c.host.Run("sh", "-ec", c.line); err != nil {
			return fmt.Errorf("%s: %w: %s", c.host.Name, err, out)
		}
	}
	return nil
}
