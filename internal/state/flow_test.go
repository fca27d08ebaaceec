package state

import (
	"net/netip"
	"testing"
)

const flowRelay = `
	option ipaddr '198.51.100.144'
	option ip6addr '2001:db8:6ef9::/64'
	option peeraddr '2001:db8:fdd2::/64'
	list keep 'tcp:22'

`

// TestEnder checks which flows end when a table changes.
func TestEnder(t *testing.T) {
	addr := netip.MustParseAddr
	client, public, host, other := addr("203.0.113.10"), addr("198.51.100.144"), addr("192.168.1.210"),
		addr("192.168.1.211")
	web := "config forward 'web'\n\toption src_dport '80'\n\toption dest_ip '192.168.1.210'\n"
	elsewhere := "config forward 'web'\n\toption src_dport '80'\n\toption dest_ip '192.168.1.211'\n"
	limited := web + "\toption src_ip '192.0.2.0/24'\n"
	still := web + "\toption src_ip '203.0.113.0/24'\n"
	hidden := web + "\toption masq '1'\n"
	all := "config forward 'all'\n\toption proto 'all'\n\toption dest_ip '192.168.1.210'\n"
	wide := "config forward 'wide'\n\toption relay 'home'\n\toption src_dport '30-1000'\n\toption dest_ip " +
		"'192.168.1.210'\n"
	wideLimited, wideStill := wide+"\toption src_ip '192.0.2.0/24'\n", wide+"\toption src_ip '203.0.113.0/24'\n"
	kept := "config relay 'other'\n\toption role 'vps'\n\toption ipaddr '198.51.100.144'\n\toption ip6addr " +
		"'2001:db8:6ef9::/64'\n\toption peeraddr '2001:db8:fdd6::/64'\n\tlist keep 'tcp:400-600'\n"
	out := web + "\toption egress 'all'\n"
	outElsewhere := elsewhere + "\toption egress 'all'\n"
	ping := "config forward 'ping'\n\toption proto 'icmp'\n\toption dest_ip '192.168.1.210'\n"
	outside := Flow{Proto: 17, Src: host, Dst: client, DstPort: 53, AnswerSrc: client, AnswerPort: 53}
	outside.AnswerDst = host
	translated := outside
	translated.AnswerDst = addr("203.0.113.77")
	hairpin := translated
	hairpin.Dst = addr("192.168.2.1")
	marked := outside
	marked.Mark = 0x46000000
	flow := func(proto uint8, port uint16, answer netip.Addr) Flow {
		return Flow{Proto: proto, Src: client, Dst: public, DstPort: port, AnswerSrc: answer, AnswerPort: port}
	}
	own := func(answer netip.Addr) Flow {
		return Flow{Proto: 6, Src: public, Dst: public, DstPort: 80, AnswerSrc: answer, AnswerPort: 80}
	}
	for _, c := range []struct {
		name     string
		from, to string
		flow     Flow
		want     bool
	}{
		{"a forward goes", web, "", flow(6, 80, host), true},
		{"a forward stays", web, web + ping, flow(6, 80, host), false},
		{"a forward stays of the same table", web, web, flow(6, 80, host), false},
		{"a forward comes", "", web, flow(17, 80, public), true},
		{"a forward comes that was there by hand", "", web, flow(17, 80, host), false},
		{"the VPS's own, which stays", web, web + ping, own(host), false},
		{"the VPS's own, which is no client any more", web, "\toption target_local '0'\n" + web, own(host), true},
		{"the VPS's own, which becomes a client", "\toption target_local '0'\n" + web, web, own(public), true},
		{"another host", web, elsewhere, flow(6, 80, host), true},
		{"another host, already there", web, elsewhere, flow(6, 80, other), false},
		{"not for this client any more", web, limited, flow(6, 80, host), true},
		{"still for this client", web, still, flow(6, 80, host), false},
		{"now within all", web, all, flow(6, 80, host), false},
		{"now within a wide range", web, wide, flow(17, 80, host), false},
		{"within a wide range, not for this client any more", wide, wideLimited, flow(17, 80, host), true},
		{"within a wide range, still for this client", wide, wideStill, flow(17, 80, host), false},
		{"a kept port of a wide range for some", "", wideStill + kept, flow(6, 500, public), false},
		{"another port", web, "", flow(6, 81, public), false},
		{"a kept port", "", all, flow(6, 22, public), false},
		{"a kept port's neighbour", "", all, flow(6, 23, public), true},
		{"ping", ping, "", flow(1, 0, host), true},
		{"a host's own, which may not leave any more", out, web, outside, true},
		{"a host's own, and the relay goes", out, "none", outside, true},
		{"a host's own, which may still leave", out, out + ping, outside, false},
		{"a host's own, which may leave now", web, out, outside, false},
		{"another host's own, which may leave instead", out, outElsewhere, outside, true},
		{"somebody else's address", web, "", Flow{Proto: 6, Src: client, Dst: addr("198.51.100.9"), DstPort: 80,
			AnswerSrc: host, AnswerPort: 80}, false},
	} {
		if got := ender(t, "vps", c.from, c.to)(c.flow); got != c.want {
			t.Errorf("%s (vps): %v, want %v", c.name, got, c.want)
		}
	}
	inside := func(proto uint8, port uint16, mark uint32) Flow {
		return Flow{Proto: proto, Src: client, Dst: host, DstPort: port, AnswerSrc: host, AnswerPort: port, Mark: mark}
	}
	for _, c := range []struct {
		name     string
		from, to string
		flow     Flow
		want     bool
	}{
		{"a forward goes", web, ping, inside(6, 80, 0x46000001), true},
		{"the relay goes", web, "none", inside(6, 80, 0x46000001), true},
		{"a forward stays", web, web + ping, inside(6, 80, 0x46000000), false},
		{"not by the tunnel", web, ping, inside(6, 80, 0), false},
		{"not for this client any more", web, limited, inside(6, 80, 0x46000000), true},
		{"still for this client", web, still, inside(6, 80, 0x46000000), false},
		{"ping", ping, web, inside(1, 0, 0x46000000), true},
		{"a host's own, which leaves by another line from now on", out, web, marked, true},
		{"a host's own, and the relay goes", out, "none", marked, true},
		{"a host's own, which leaves by the tunnel as before", out, out + ping, marked, false},
		{"a host's own, which leaves by the tunnel from now on", web, out, outside, false},
		{"a host's own by another line or in the home", out, web, outside, false},
		{"a host's own, translated for another line", web, out, translated, true},
		{"a host's own, translated, which stays at home", web, out, hairpin, false},
		{"a host's own, translated, not by the tunnel", out, out + ping, translated, false},
		{"now within all", web, all, inside(6, 80, 0x46000000), false},
		{"the client hidden from now on", web, hidden, inside(6, 80, 0x46000000), true},
		{"the client not hidden any more", hidden, web, inside(6, 80, 0x46000000), true},
		{"the client hidden as before", hidden, hidden + "\toption src_ip '203.0.113.0/24'\n", inside(6, 80, 0x46000000),
			false},
	} {
		if got := ender(t, "router", c.from, c.to)(c.flow); got != c.want {
			t.Errorf("%s (router): %v, want %v", c.name, got, c.want)
		}
	}
}

func ender(t *testing.T, role, from, to string) func(Flow) bool {
	t.Helper()
	make := func(forwards string) State {
		if forwards == "none" {
			return State{}
		}
		text := "config relay 'home'\n\toption role '" + role + "'" + flowRelay + forwards
		return compile(t, []byte(text), Facts{Tunlink: map[string]string{"home": "eth0"}})
	}
	have, want := make(from), make(to)
	step := EndFlows{FromDevices: have.tunnelsByMark(), ToDevices: want.tunnelsByMark(),
		Adopt: want.egressMarks()}
	if table := have.table("ip"); table != nil {
		step.From = *table
	}
	if table := want.table("ip"); table != nil {
		step.To = *table
	}
	return step.Ender()
}
