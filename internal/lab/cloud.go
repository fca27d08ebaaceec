//go:build linux

package lab

import "fmt"

// Addresses of a VPS in a cloud (Options.Cloud).
const (
	CardIPv4  = "10.0.0.5"
	CloudIPv4 = "10.0.0.1" // the VPS's gateway
	cloudMTU  = 9000
)

// cloudNAT is the cloud's gateway: it translates one public address to one private one, both ways. What the VPS sends
// to its own public address is dropped, as by clouds without hairpin NAT.
const cloudNAT = `
table ip cloud {
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		iifname != "vps" ip daddr 198.51.100.144 dnat to 10.0.0.5
	}
	chain forward {
		type filter hook forward priority filter; policy accept;
		iifname "vps" ip daddr 198.51.100.144 drop
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifname != "vps" ip saddr 10.0.0.5 snat to 198.51.100.144
	}
}
`

// addCloud gives the VPS what Oracle, AWS, Google and Azure give one: a private address, which core translates, a card
// with large frames, and one IPv6 address.
func (n *Net) addCloud() error {
	for _, step := range []struct {
		host    *Host
		command string
	}{
		{n.Core, fmt.Sprintf("ip link set vps mtu %d; ip -4 addr flush dev vps; ip addr add %s/24 dev vps", cloudMTU,
			CloudIPv4)},
		{n.VPS, fmt.Sprintf("ip link set eth0 mtu %d; ip -4 addr flush dev eth0; ip addr add %s/24 dev eth0; "+
			"ip route add default via %s dev eth0; ip -6 addr del %s/64 dev eth0; ip -6 addr add %s/128 dev eth0; "+
			"ip -6 route replace default via 2001:db8:6ef9::ff dev eth0 onlink", cloudMTU, CardIPv4, CloudIPv4,
			VPSIPv6, VPSIPv6)},
	} {
		if out, err := step.host.Run("sh", "-ec", step.command); err != nil {
			return fmt.Errorf("%s: %w: %s", step.host.Name, err, out)
		}
	}
	return n.Core.NFT(cloudNAT)
}
