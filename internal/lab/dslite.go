//go:build linux

package lab

// outerHeader is what 4in6 without options adds to a packet, in bytes (RFC 2473 §3).
const outerHeader = 40

// carrierNAT is the carrier's side of DS-Lite (RFC 6333 §6.6): the homes share its address and cannot be reached.
const carrierNAT = `
table ip cgn {
	chain forward {
		type filter hook forward priority filter; policy accept;
		iifname "eth0" oifname "softwire" ct state new,invalid drop
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "eth0" masquerade
	}
}
`

// addDSLite sets up the softwire. The B4 does no NAT: the carrier knows the home's own addresses (RFC 6333 §5.2).
func (n *Net) addDSLite() error {
	mtu := n.options.AccessMTU - outerHeader
	if err := n.Carrier.tunnel(SoftwireDevice, CarrierIPv6, WANIPv6, mtu, "192.0.0.1/29"); err != nil {
		return err
	}
	if err := n.Carrier.route("192.168.0.0/16", "", SoftwireDevice); err != nil {
		return err
	}
	if err := n.Carrier.NFT(carrierNAT); err != nil {
		return err
	}
	if err := n.Router.tunnel(DSLiteDevice, WANIPv6, CarrierIPv6, mtu, "192.0.0.2/29"); err != nil {
		return err
	}
	return n.Router.route("0.0.0.0/0", "", DSLiteDevice)
}
