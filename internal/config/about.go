//go:build !openwrt

package config

import (
	"fmt"
	"strings"
)

// An About documents one option, in addition to its Spec.
type About struct {
	Default string // where Spec.Default does not say it: it depends on others
	Meaning string
}

// Abouts has an About for every option of Schema, by section type and option. The router's program does not contain it.
var Abouts = map[string]map[string]About{
	"relay": {
		"enabled": {Meaning: "0: `up` brings the relay up only if it is named"},
		"role":    {Default: "router on OpenWrt, else vps", Meaning: "which end this machine is"},
		"ipaddr":  {Meaning: "the VPS's public IPv4 address"},
		"nicaddr": {Default: "`ipaddr`, or what [is found](debian.md#the-address-of-a-cloud)", Meaning: "VPS: its " +
			"address on its network card, where a cloud (Oracle, AWS, Google, Azure) translates `ipaddr` to it"},
		"ip6addr": {Default: "router: auto; VPS: required", Meaning: "this end's endpoint: an IPv6 address, " +
			"a prefix of at most 64 bits, or `auto` (router): from the prefix delegated to `tunlink` (OpenWrt), else " +
			"from the /64 that its lasting global address is in"},
		"transport": {Meaning: "what carries the packets: `ipip6` (IPv4 in IPv6, not encrypted) or " +
			"[`wireguard`](wireguard.md) (encrypted, over UDP and IPv4 or IPv6)"},
		"peeraddr": {Default: "required, but not on a VPS with wireguard or `allow`", Meaning: "the other end's endpoint: " +
			"an address, a prefix, or a DNS name; with wireguard an IPv4 or IPv6 address or a DNS name of the VPS"},
		"public_key": {Default: "required with wireguard, but not beside `allow`", Meaning: "wireguard: the other " +
			"end's public key"},
		"private_key_file": {Default: "/etc/ds4relay/keys/NAME", Meaning: "wireguard: the file with this end's " +
			"private key, which `ds4relay genkey` makes; only root may read it"},
		"preshared_key_file": {Default: "none", Meaning: "wireguard: a file with a key that both ends have besides " +
			"(`ds4relay genkey --preshared`)"},
		"listen_port": {Meaning: "wireguard, VPS: its UDP port, a different one for each relay; it is kept by " +
			"itself"},
		"endpoint_port": {Meaning: "wireguard, router: the VPS's `listen_port`"},
		"peer": {Default: "none", Meaning: "wireguard, VPS: `plain` if the home is a [WireGuard client without " +
			"ds4relay](wireguard.md#a-home-without-ds4relay), such as a FRITZ!Box; hosts see the VPS's address " +
			"10.46.46.1 instead of the client's"},
		"persistent_keepalive": {Meaning: "wireguard, router: seconds between packets to the VPS when there are no " +
			"others; they keep firewalls and NAT on the way open"},
		"tunlink": {Default: "VPS: the device that has `ipaddr` or `nicaddr`; OpenWrt: the interface with the " +
			"delegated prefix; other homes: the device of the route to the VPS",
			Meaning: "the device that carries the tunnel's packets; on OpenWrt the name of an " +
				"interface (`wan6`)"},
		"device": {Default: "ds4-NAME; with ifupdown its stanza's name", Meaning: "name of the tunnel device"},
		"mtu": {Meaning: "auto: the MTU of the route to the other end, at most 1500, minus 40 (48 with an " +
			"encaplimit), or with wireguard minus 60 over IPv4 and 80 over IPv6; less if packets of that size do not " +
			"arrive there"},
		"encaplimit": {Meaning: "how many more levels of tunnelling a packet may enter (RFC 2473 section " +
			"4.1.1): none (or ignore), or 0 to 255"},
		"ttl": {Meaning: "hop limit of the outer packets"},
		"ip4table": {Meaning: "router: the policy routing table, a different one for each relay. The " +
			"connection mark is derived from it. (A VPS needs tables only for homes with equal addresses, and " +
			"numbers them itself from 460001)"},
		"priority": {Meaning: "router: the first of six priorities for ip rules"},
		"egress":   {Meaning: "the default for the forwards of this relay"},
		"egress_private": {Meaning: "VPS: hosts with egress all may also reach private addresses through it: its " +
			"other networks, and its cloud's services"},
		"killswitch": {Meaning: "router: hosts with egress all reach the IPv4 internet through the tunnel or " +
			"not at all"},
		"backup": {Default: "none", Meaning: "router: the relay by which hosts with egress all open connections while " +
			"[this one's VPS is silent](more-than-one.md#two-vpss-two-addresses); they have egress all there, too"},
		"masq": {Default: "0; with peer plain 1", Meaning: "the default for the forwards of this relay"},
		"flow_offloading": {Meaning: "established TCP and UDP connections bypass the rules of nft and iptables, " +
			"if the kernel has flowtables (the module nft_flow_offload)"},
		"standby": {Meaning: "VPS: another VPS may have `ipaddr` in its place, by turns, [as keepalived " +
			"decides](more-than-one.md#two-vpss-one-address): this one is ready without it"},
		"target_local": {Meaning: "VPS: its own programs reach the home by `ipaddr` like other clients; 0: they " +
			"reach the VPS itself. 0 in one relay counts for all with the same `ipaddr`"},
		"keep": {Meaning: "VPS, a list: what stays on the VPS, such as `tcp:22`, `udp:60000-61000` or " +
			"`icmp`, also of a range that a forward has"},
		"allow": {Default: "nothing: the relay is not paired", Meaning: "VPS with Debian, a list: what the home may " +
			"[ask for](pairing.md), such as `tcp:1-65535`; `all`: every protocol and port, also forwards of all; " +
			"`egress`: hosts with egress all. With it `peeraddr` and `public_key` may be left out: the home says them"},
	},
	"forward": {
		"enabled": {Meaning: "0: ignore this forward"},
		"relay": {Default: "the only one", Meaning: "the relay's name; on a router a list of several relays with the same " +
			"`ipaddr`, if several VPSs have it in turn"},
		"name": {Meaning: "a description"},
		"proto": {Meaning: "a list of protocols, by name or number; or only `all`: the host gets the " +
			"VPS's address"},
		"src_dport": {Default: "required with tcp, udp, sctp, dccp, udplite",
			Meaning: "a list: public ports or ranges of ports"},
		"dest_ip": {Meaning: "the host's IPv4 address at home, or the router's own LAN address"},
		"dest_port": {Default: "src_dport", Meaning: "port on the host, or a range as long as that of src_dport; " +
			"not with several of these"},
		"src_ip": {Meaning: "a list: addresses or networks of the clients that may use it"},
		"egress": {Default: "the relay's", Meaning: "`replies`: only answers use the tunnel. `all`: connections " +
			"that the host opens use it too, with the VPS's address"},
		"killswitch": {Default: "the relay's", Meaning: "router, with egress all: the host reaches the IPv4 internet " +
			"through the tunnel or not at all"},
		"masq": {Default: "the relay's", Meaning: "router: 1: the host sees [this machine's address instead of the " +
			"client's](home.md#hosts-with-another-gateway), for hosts whose default gateway is another router; VPS: " +
			"always 1 with peer plain, else without effect"},
	},
	"proxy": {
		"enabled": {Meaning: "0: ignore this proxy"},
		"proto":   {Meaning: "tcp or udp; for both, write two sections"},
		"listen":  {Meaning: "a list: addresses and ports for clients"},
		"target":  {Meaning: "where it connects to; a name is resolved repeatedly"},
		"target_local": {Meaning: "1: a target's name may resolve to this machine: its loopback and its other " +
			"addresses (`localhost` always may). Link-local, multicast, broadcast and unspecified answers are " +
			"never used"},
		"proxy_protocol": {Meaning: "version of the PROXY protocol, which tells the target the client's address; 0 " +
			"for none. With udp (2 only) each datagram starts with it"},
		"src_ip": {Default: "everybody", Meaning: "a list: addresses or networks of the clients that " +
			"may use it"},
		"max_sessions": {Meaning: "how many sessions at a time. A new udp session replaces another: first one " +
			"that the target never answered, of those the longest idle"},
		"max_per_client": {Meaning: "the same per client: an IPv4 address or an IPv6 /64. Many people may share one " +
			"IPv4 address (CGNAT), and so do the clients of another proxy on this machine"},
		"connect_timeout": {Meaning: "tcp: how long connecting to the target may take, all its addresses together"},
		"idle_timeout": {Default: "tcp 86400 (a day), udp 180", Meaning: "a session ends after this time without " +
			"data in either direction; dead peers are found by `keepalive`"},
		"keepalive":  {Meaning: "tcp: after this time without data both sides are probed, to find dead peers"},
		"access_log": {Meaning: "log a line for each session that ends"},
	},
}

// OptionsTable is the documentation of a section type's options: a Markdown table in the order of Schema.
func OptionsTable(section string) string {
	var b strings.Builder
	b.WriteString("| option | default | meaning | allowed |\n| --- | --- | --- | --- |\n")
	for _, option := range sectionSpec(section).Options {
		about := Abouts[section][option.Name]
		value := option.Default
		switch {
		case option.Required:
			value = "required"
		case about.Default != "":
			value = about.Default
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", option.Name, value, about.Meaning, option.Allowed)
	}
	return b.String()
}
