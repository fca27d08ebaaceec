package state

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/transport"
)

// TestAllowances: our rules are recognised in a chain's listing, whatever name protocol 4 has, and rules of others are
// not.
func TestAllowances(t *testing.T) {
	link := Link{Name: "wrap1", Tunnel: transport.IPIP6{Local: netip.MustParseAddr("2001:db8:6ef9:0:198:51:100:144"),
		Remote: netip.MustParseAddr("2001:db8:fdd2::7")}}
	want := allowances(link, IPTables{"iptables": true, "ip6tables": true})
	have := slices.Concat(
		ParseAllowances("ip6tables", `-P INPUT DROP
-A INPUT -s 2001:db8:fdd2::7/128 -d 2001:db8:6ef9:0:198:51:100:144/128 -p ipencap -m comment --comment ds4relay -j ACCEPT
-A INPUT -s 2001:db8:fdd2::7/128 -p tcp -m tcp --dport 22 -m comment --comment ds4relay -j ACCEPT
-A INPUT -s 2001:db8:fdd2::/64 -d 2001:db8:6ef9:0:198:51:100:144/128 -p ipencap -m comment --comment ds4relay -j ACCEPT
-A INPUT -m comment --comment ds4relay -j DROP
-A INPUT -j ufw6-before-input
`),
		ParseAllowances("iptables", `-P FORWARD DROP
-A FORWARD -o wrap1 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -m comment --comment ds4relay -j ACCEPT
-A FORWARD -i wrap1 -m comment --comment ds4relay -j ACCEPT
-A FORWARD -i wrap1 -j ACCEPT
-A FORWARD -i wrap1 -m comment --comment ds4relay2 -j ACCEPT
-A FORWARD -i wrap1 -m comment --comment ds4relay -j DROP
-A FORWARD ! -i wrap1 -m comment --comment ds4relay -j ACCEPT
-A FORWARD -i eth0 -o wrap1 -m comment --comment ds4relay -j ACCEPT
-A FORWARD -o wrap1 -m comment --comment ds4relay -j ACCEPT
-A FORWARD -m comment --comment ds4relay
-A FORWARD -j DOCKER-USER
`))
	if !reflect.DeepEqual(have, want) {
		t.Errorf("listed %+v\nwanted %+v", have, want)
	}
	tables := IPTables{"iptables": true, "iptables" + RawDrops: true, "ip6tables": true}
	home := homeAllowances(link, tables, HomeNeeds{true, true})
	var listing [2]string
	for _, a := range home {
		i := map[bool]int{true: 1}[forIPv6(a.Program)]
		listing[i] += "-A " + a.Chain + " " + strings.ReplaceAll(a.Match, "-p 4", "-p ipencap") + " -m comment --comment " +
			"ds4relay -j ACCEPT\n"
	}
	back := slices.Concat(ParseAllowances("ip6tables", listing[1]), ParseAllowances("iptables", listing[0]))
	for _, a := range home {
		if !slices.Contains(back, a) {
			t.Errorf("%v is not recognised in %s", a, listing)
		}
	}
	if len(back) != len(home) || len(home) != len(want)+3 {
		t.Errorf("at home: %v, recognised %v", home, back)
	}
	if raw := home[len(home)-1].Arguments("-I"); !slices.Equal(raw, strings.Fields("-t raw -w -I PREROUTING -i wrap1 -m "+
		"comment --comment ds4relay -j ACCEPT")) {
		t.Errorf("in the table raw: %v", raw)
	}
	if got := allowances(link, nil); got != nil {
		t.Errorf("without iptables: %v", got)
	}
	twice := Observed{State: State{Allowances: []Allowance{want[0], want[1], want[0]}}}
	if steps, err := Plan(twice, State{Allowances: want[:2]}); err != nil || len(steps) != 1 ||
		steps[0] != (DelAllowance{want[0]}) {
		t.Errorf("a rule that is there twice: %v, %v", steps, err)
	}
	steps, err := Plan(Observed{State: State{Allowances: want[:2]}}, State{Allowances: want[1:]})
	if err != nil || len(steps) != 2 {
		t.Fatal(steps, err)
	}
	for i, command := range []string{
		"ip6tables -w -D INPUT -s 2001:db8:fdd2::7/128 -d 2001:db8:6ef9:0:198:51:100:144/128 -p 4 -m comment " +
			"--comment ds4relay -j ACCEPT", "iptables -w -I FORWARD -i wrap1 -m comment --comment ds4relay -j ACCEPT",
	} {
		if got := steps[i].Commands()[0]; got != command {
			t.Errorf("%s, want %s", got, command)
		}
		if undo := steps[i].Undo(); len(undo) != 1 || !reflect.DeepEqual(undo[0].Undo()[0], steps[i]) {
			t.Errorf("undo of %s: %v", command, undo)
		}
	}
}

// TestAllowancesOfWireGuard: the port is open over both families, and our rules for it are recognised.
func TestAllowancesOfWireGuard(t *testing.T) {
	link := Link{Name: "wrap1", Tunnel: transport.WireGuard{ListenPort: 51846}}
	want := allowances(link, IPTables{"iptables": true, "ip6tables": true})
	port := "-p udp -m udp --dport 51846 -m comment --comment ds4relay -j ACCEPT\n"
	have := slices.Concat(
		ParseAllowances("ip6tables", "-P INPUT DROP\n-A INPUT "+port+"-A INPUT -s 2001:db8::1/128 "+port),
		ParseAllowances("iptables", "-A FORWARD -o wrap1 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -m comment "+
			"--comment ds4relay -j ACCEPT\n-A FORWARD -i wrap1 -m comment --comment ds4relay -j ACCEPT\n"+
			"-P INPUT DROP\n"+
			"-A INPUT -i eth0 "+port+"-A INPUT "+port))
	for _, list := range [][]Allowance{have, want} {
		slices.SortFunc(list, func(a, b Allowance) int {
			return strings.Compare(a.Program+a.Chain+a.Match, b.Program+b.Chain+b.Match)
		})
	}
	if len(want) != 4 || !reflect.DeepEqual(have, want) {
		t.Errorf("listed %+v\nwanted %+v", have, want)
	}
}
