//go:build !openwrt

package config

import (
	"fmt"
	"strings"
)

// An About is what documentation says of one option, beside its Spec.
type About struct {
	Default string // where Spec.Default does not say it: it depends on others
	Meaning string
}

// Abouts has an About for every option of Schema, by section type and option. It is not in the router's program.
var Abouts = map[string]map[string]About{
	"relay": {
		"enabled":         {Meaning: "whether `up` without names brings it up"},
		"role":            {Default: "router on OpenWrt, else vps", Meaning: "which end this machine is"},
		"ipaddr":          {Meaning: "the VPS's public IPv4 address"},
		"ip6addr":         {Default: "OpenWrt: auto; else required", Meaning: "this end's endpoint: an IPv6 address, a prefix of at most 64 bits, or `auto`: out of the prefix that `tunlink` got delegated (OpenWrt)"},
		"peeraddr":        {Meaning: "the other end's: an address, a prefix, or a DNS name"},
		"tunlink":         {Default: "VPS: the device that has `ipaddr`; OpenWrt: the interface with the delegated prefix", Meaning: "the device that the tunnel's packets use; on OpenWrt the name of an interface (`wan6`)"},
		"device":          {Default: "ds4-NAME", Meaning: "the tunnel device's name"},
		"mtu":             {Meaning: "auto: MTU of the route to the other end, less 40 (and less 8 with an encaplimit)"},
		"encaplimit":      {Meaning: "how often the tunnel's packets may be put into tunnels again (RFC 2473 section 4.1.1): none, or 0 to 255"},
		"ttl":             {Meaning: "hop limit of the outer packets"},
		"ip4table":        {Meaning: "router: the policy routing table; another one for each relay. It also gives the connection mark. (A VPS has tables only for homes with equal addresses, and numbers them itself, from 460001)"},
		"priority":        {Meaning: "router: the first of six priorities of ip rules"},
		"egress":          {Meaning: "what the forwards of this relay have by default"},
		"egress_private":  {Meaning: "VPS: hosts with egress all may also reach private addresses by it: its other networks, and its cloud's services"},
		"killswitch":      {Meaning: "router: hosts with egress all leave for the internet by the tunnel, or not at all (IPv4)"},
		"flow_offloading": {Meaning: "VPS: established TCP and UDP connections pass by the rules of nft and iptables, from device to device, where the kernel has flowtables (the module nft_flow_offload)"},
		"keep":            {Meaning: "VPS, a list: `tcp:22`, `udp:60000-61000`, `icmp`: stays the VPS's own"},
	},
	"forward": {
		"enabled":    {Meaning: "0 leaves it out"},
		"relay":      {Default: "the only one", Meaning: "the relay's name"},
		"name":       {Meaning: "your words for it"},
		"proto":      {Meaning: "a list: names or numbers of protocols; or `all` alone: the VPS's address becomes the host's"},
		"src_dport":  {Default: "required with tcp, udp, sctp, dccp, udplite", Meaning: "public port, or a range"},
		"dest_ip":    {Meaning: "the host's address in the home, or the router's own there"},
		"dest_port":  {Default: "src_dport", Meaning: "port on the host; a range as long as that of src_dport"},
		"src_ip":     {Meaning: "a list: addresses or networks of the clients that may use it"},
		"egress":     {Default: "the relay's", Meaning: "`replies`: only answers use the tunnel. `all`: the host's own connections too, from the VPS's address"},
		"killswitch": {Default: "the relay's", Meaning: "router: with egress all: the host leaves for the internet by the tunnel, or not at all (IPv4)"},
	},
	"proxy": {
		"enabled":         {Meaning: "0 leaves it out"},
		"proto":           {Meaning: "one of the two; a port of both takes two sections"},
		"listen":          {Meaning: "a list: where clients come to"},
		"target":          {Meaning: "where it connects to; a name is looked up again and again"},
		"target_local":    {Meaning: "1 lets a target's name lead to this machine itself: its loopback and its other addresses (`localhost` may without). Link-local, multicast, broadcast and unspecified answers are never used"},
		"proxy_protocol":  {Meaning: "version of the PROXY protocol that tells the target the client's address; with udp (2 only) each datagram begins with it"},
		"src_ip":          {Default: "everybody", Meaning: "a list: addresses or networks of the clients that may use it"},
		"max_sessions":    {Meaning: "connections at a time; with udp, clients: the one that the target never answered makes room first, of those the idlest"},
		"max_per_client":  {Meaning: "the same of one client: an IPv4 address or an IPv6 network of 64 bits. Behind one IPv4 address may be many people (CGNAT), or a program on this machine that passes on its own clients"},
		"connect_timeout": {Meaning: "tcp: how long the target may take, all its addresses together"},
		"idle_timeout":    {Default: "tcp 86400 (a day), udp 180", Meaning: "a session ends after so long without a byte in either direction; `keepalive` is what finds peers that are gone"},
		"keepalive":       {Meaning: "tcp: probes to both sides after so long without a byte, so that peers that are gone are found"},
		"access_log":      {Meaning: "a line in the log for every session that ends"},
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
