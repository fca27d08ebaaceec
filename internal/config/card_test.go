package config

import (
	"net/netip"
	"strings"
	"testing"
)

// translated is a relay on a VPS whose cloud translates the public address.
const translated = `config relay 'home'
	option role 'vps'
	option ipaddr '198.51.100.144'
	option nicaddr '10.0.0.5'
	option ip6addr '2001:db8:6ef9::1'
	option peeraddr '2001:db8:fdd2::/64'

config forward 'web'
	option relay 'home'
	option src_dport '443'
	option dest_ip '192.168.1.210'
`

// other is another relay on the same VPS; IPADDR and REST stand for what differs.
const other = `
config relay 'cabin'
	option role 'vps'
	option ipaddr 'IPADDR'
	option ip6addr '2001:db8:6ef9::2'
	option peeraddr '2001:db8:fdd3::/64'
REST`

// TestNICAddrMistakes: each mistake with the option nicaddr, and what is said about it.
func TestNICAddrMistakes(t *testing.T) {
	const words = "allowed is an IPv4 address that a device of the VPS has, such as 10.0.0.5"
	relay := func(ipaddr, rest string) string {
		return translated + strings.NewReplacer("IPADDR", ipaddr, "REST", rest).Replace(other)
	}
	proxy := func(listen string) string {
		return translated + "\nconfig proxy 'site'\n\toption listen '" + listen + "'\n\toption target '[::1]:80'\n"
	}
	for _, c := range []struct{ text, want string }{
		{strings.Replace(translated, "10.0.0.5", "10.0.0", 1), `F:4: relay "home": option nicaddr "10.0.0": ` + words},
		{strings.Replace(translated, "10.0.0.5", "10.0.0.0/24", 1),
			`F:4: relay "home": option nicaddr "10.0.0.0/24": ` + words},
		{strings.Replace(translated, "10.0.0.5", "127.0.0.1", 1), `F:4: relay "home": option nicaddr "127.0.0.1": ` +
			words},
		{strings.Replace(translated, "10.0.0.5", "2001:db8::5", 1), `F:4: relay "home": option nicaddr ` +
			`"2001:db8::5": ` + words},
		{strings.Replace(translated, "192.168.1.210", "10.0.0.5", 1), `F:11: forward "web": option dest_ip ` +
			`"10.0.0.5": is the public address itself; allowed is the IPv4 address of one host in the home network`},
		{relay("198.51.100.145", "\toption nicaddr '10.0.0.5'\n"), `F:18: relay "cabin": option nicaddr "10.0.0.5": ` +
			`relay "home" has the same address on the network card for another ipaddr (198.51.100.144); give each ` +
			`public address its own`},
		{strings.Replace(relay("203.0.113.5", ""), "10.0.0.5", "203.0.113.5", 1), `F:4: relay "home": option nicaddr ` +
			`"203.0.113.5": relay "cabin" has the same address on the network card for another ipaddr ` +
			`(203.0.113.5); give each public address its own`},
		{relay("198.51.100.144", "\toption nicaddr '10.0.0.6'\n"), `F:18: relay "cabin": option nicaddr "10.0.0.6": ` +
			`relay "home" has another one (10.0.0.5) for the same ipaddr; allowed is the same in both`},
		{proxy("198.51.100.144:80"), `F:14: proxy "site": option listen "198.51.100.144:80": no packet to this machine ` +
			`has this address: relay "home" says that it is translated to 10.0.0.5 (option nicaddr); allowed is that ` +
			`one, or 0.0.0.0`},
		{proxy("10.0.0.5:443"), `F:14: proxy "site": option listen "10.0.0.5:443": overlaps with forward "web" of ` +
			`relay "home" (tcp:443, udp:443 → 192.168.1.210); a port of 198.51.100.144 can go one way only`},
		{strings.NewReplacer("'vps'", "'router'", "::1'", "::/64'").Replace(translated),
			`F:4: relay "home": option nicaddr "10.0.0.5": is ignored: it is for the VPS`},
		{proxy("10.0.0.5:80"), ""},
		{relay("198.51.100.145", "\toption nicaddr '10.0.0.6'\n"), ""},
		{relay("198.51.100.145", ""), ""},
		{strings.Replace(translated, "10.0.0.5", "198.51.100.144", 1), ""},
	} {
		_, warnings, err := load(t, c.text)
		said := warnings.Error()
		if err != nil {
			said = err.Error()
		}
		if said != c.want {
			t.Errorf("%s\nsays: %s\nwant: %s", c.text, said, c.want)
		}
	}
}

// TestNICAddr: relays of one public address have one address on the card, with which forwards are found; neither is in
// the file for the other end.
func TestNICAddr(t *testing.T) {
	c, _, err := load(t, translated+strings.NewReplacer("IPADDR", "198.51.100.144", "REST", "").Replace(other))
	if err != nil {
		t.Fatal(err)
	}
	card := netip.MustParseAddr("10.0.0.5")
	p, _, err := load(t, translated+"\nconfig proxy 'site'\n\toption listen '[::]:80'\n\toption target "+
		"'a.example.net:80'\n")
	if err != nil || len(p.Proxies[0].Public) != 1 || p.Proxies[0].Public[0].String() != "198.51.100.144" {
		t.Errorf("what a proxy knows of this machine's public addresses: %v %v", p.Proxies[0].Public, err)
	}
	for _, r := range c.Relays {
		if r.Card() != card || !r.Translated() || len(r.Addresses()) != 2 {
			t.Errorf("relay %s: card %s", r.Name, r.Card())
		}
		if text := Export(c, r, Known{}); strings.Contains(text, "10.0.0.5") || strings.Contains(text, "nicaddr") {
			t.Errorf("export: %s", text)
		}
	}
	for to, want := range map[string]bool{"198.51.100.144": true, "10.0.0.5": true, "10.0.0.6": false} {
		_, f := Takes(c.Relays, netip.MustParseAddr(to), netip.MustParseAddr("203.0.113.10"), TCP, 443)
		if got := f != nil; got != want {
			t.Errorf("a forward takes packets to %s: %v", to, got)
		}
	}
}
