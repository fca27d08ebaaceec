package state

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
)

// TestOffloadDevices: no flowtable has more devices than the kernel accepts, whichever devices the clients use.
func TestOffloadDevices(t *testing.T) {
	for _, role := range []config.Role{config.VPS, config.Router} {
		for _, ways := range []int{1, 2, 300} {
			facts := Facts{FlowTables: true, Access: map[string]string{}, LAN: map[netip.Addr]string{}}
			var relays []*config.Relay
			for i := range 300 {
				name, host := fmt.Sprintf("r%d", i), netip.AddrFrom4([4]byte{192, 168, byte(i / 250), byte(i%250 + 1)})
				relays = append(relays, &config.Relay{Name: name, Role: role, Device: "ds4-" + name,
					IPAddr: netip.AddrFrom4([4]byte{198, 51, byte(i / 250), byte(i%250 + 1)}), Offloading: true,
					Forwards: []*config.Forward{{DestIP: host}}})
				facts.Access[name] = fmt.Sprintf("eth%d", i%ways)
				facts.LAN[host] = facts.Access[name]
			}
			table, ok := offloadTable(relays, facts, slots{})
			_, line, _ := strings.Cut(table.Ruleset, "devices = ")
			line, _, _ = strings.Cut(line, "\n")
			if n := strings.Count(line, `"`) / 2; !ok || n > maxFlowDevices || n < maxFlowDevices-1 {
				t.Errorf("%v, %d devices of access: %d devices", role, ways, n)
			}
		}
	}
}

// TestOffloadRouter: which flows of a router bypass its rules.
func TestOffloadRouter(t *testing.T) {
	addr := netip.MustParseAddr
	nas, cam, self, away := addr("192.168.1.210"), addr("192.168.2.4"), addr("192.168.1.1"), addr("192.168.9.9")
	facts := Facts{FlowTables: true, LAN: map[netip.Addr]string{nas: "br-lan", cam: "br-iot", self: "br-lan"},
		Self: map[netip.Addr]bool{self: true}}
	relay := func(name, public string, hosts ...netip.Addr) *config.Relay {
		r := &config.Relay{Name: name, Role: config.Router, Device: "ds4-" + name, IPAddr: addr(public),
			Offloading: true}
		for _, host := range hosts {
			r.Forwards = append(r.Forwards, &config.Forward{DestIP: host})
		}
		return r
	}
	off := relay("off", "198.51.100.144", nas)
	off.Offloading = false
	for what, c := range map[string]struct {
		relays []*config.Relay
		pairs  string
	}{
		"hosts in two networks": {[]*config.Relay{relay("a", "198.51.100.144", nas, cam, nas)},
			`"ds4-a" . "br-lan", "br-lan" . "ds4-a", "ds4-a" . "br-iot", "br-iot" . "ds4-a"`},
		"the router itself, and a host without a route": {[]*config.Relay{relay("a", "198.51.100.144", self, away)}, ""},
		"two relays": {[]*config.Relay{relay("a", "198.51.100.144", nas), relay("b", "198.51.100.145", nas)},
			`"ds4-a" . "br-lan", "br-lan" . "ds4-a", "ds4-b" . "br-lan", "br-lan" . "ds4-b"`},
		"two relays with one address": {[]*config.Relay{relay("a", "198.51.100.144", nas),
			relay("b", "198.51.100.144", cam)}, ""},
		"turned off": {[]*config.Relay{off}, ""},
	} {
		table, ok := offloadTable(c.relays, facts, slots{})
		if ok != (c.pairs != "") || ok && !strings.Contains(table.Ruleset, "iifname . oifname { "+c.pairs+" } ") {
			t.Errorf("%s: %v, %s", what, ok, table.Ruleset)
		}
	}
}
