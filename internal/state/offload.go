package state

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
)

// maxFlowDevices is the greatest number of devices in a flowtable: nf_tables_parse_netdev_hooks in
// net/netfilter/nf_tables_api.c refuses the 256th (NFT_NETDEVICE_MAX). Further tunnels do not use it.
const maxFlowDevices = 255

// flows returns the table with the flowtable.
func (s *State) flows() *Table { return s.named("ip", FlowTableName) }

// offloadTable is table ip ds4relay_flows: a flowtable over the tunnels and the devices on the other side of this
// machine, from which clients or hosts answer. Its packets bypass all rules. Tunnels are left out if rules have to tell
// their packets apart: on a VPS those to homes with the same addresses, on a router those with the same public address,
// of which any may carry the answers. Of a VPS with standby, conntrackd could not tell the other one of such flows.
// Tunnels that the kernel would mistake are left out, too.
func offloadTable(relays []*config.Relay, facts Facts, slots slots) (Table, bool) {
	if !facts.FlowTables {
		return Table{}, false
	}
	publics := map[netip.Addr]int{} // relays of this router with the public address
	for _, r := range relays {
		if r.Role == config.Router {
			publics[r.IPAddr]++
		}
	}
	var f Flows
	for _, r := range relays {
		var ways []string
		_, shared := slots.of[r.Name]
		switch {
		case !r.Offloading, facts.MistakenTunnels && r.Transport == config.IPIP6:
		case r.Role == config.VPS:
			if !shared && !r.Standby {
				ways = []string{facts.Access[r.Name]}
			}
		case publics[r.IPAddr] == 1:
			for _, host := range hosts(r) {
				if !facts.Self[host] {
					ways = append(ways, facts.LAN[host])
				}
			}
		}
		for _, way := range ways {
			if way != "" && way != r.Device {
				f.Add(r.Role, r.Device, way)
			}
		}
	}
	return f.Table(), f.devices != nil
}

// Flows says which flows bypass the rules. All lists have devices in quotes.
type Flows struct {
	devices         []string // of the flowtable
	tunnels, access []string // of a VPS: between each of the former and each of the latter
	pairs           []string // of a router, as elements of a set: between a tunnel and a device of the home network
}

// Add adds the flows between a tunnel and another device, unless that makes too many devices.
func (f *Flows) Add(role config.Role, tunnel, way string) {
	tunnel, way = quote(tunnel), quote(way)
	devices := unique(append(slices.Clone(f.devices), way, tunnel))
	switch {
	case len(devices) > maxFlowDevices:
		return
	case role == config.VPS:
		f.tunnels, f.access = unique(append(f.tunnels, tunnel)), unique(append(f.access, way))
	default:
		f.pairs = unique(append(f.pairs, tunnel+" . "+way, way+" . "+tunnel))
	}
	f.devices = devices
}

// Table is the flowtable with these flows. With family inet the kernel would track IPv6 too. On a VPS it applies after
// other firewalls (priority filter) have admitted a connection's first packets. On a router it precedes fw4's own
// flowtable, which would take them otherwise, and has no tunnel. Source:
// https://docs.kernel.org/networking/nf_flowtable.html
func (f *Flows) Table() Table {
	t := Table{Family: "ip", Name: FlowTableName}
	list := func(items []string) string { return "{ " + strings.Join(items, ", ") + " }" }
	body := "\n\tflowtable established {\n\t\thook ingress priority 0\n\t\tdevices = " + list(f.devices) +
		"\n\t\tcounter\n\t}\n"
	for _, c := range []struct{ name, priority, match string }{
		{"forward", "10", "iifname " + list(f.tunnels) + " oifname " + list(f.access)},
		{"forward_home", "-1", "iifname . oifname " + list(f.pairs)},
	} {
		if !strings.Contains(c.match, "{  }") {
			body += "\tchain " + c.name + " {\n\t\ttype filter hook forward priority " + c.priority +
				"; policy accept;\n\t\t" + c.match +
				" meta l4proto { tcp, udp } ct state established flow add @established\n\t}\n"
		}
	}
	t.Ruleset = tableText(t, body)
	return t
}

const deleteOffload = "delete table ip " + FlowTableName + "\n"

// removeOffload precedes the removal of a tunnel that is in the flowtable: undoing could not restore the flowtable
// otherwise. changeOffload adds it again.
func (p *planner) removeOffload() {
	have := p.have.flows()
	if have != nil && slices.ContainsFunc(p.have.Links, func(l Link) bool {
		return p.want.link(l.Name) == nil
	}) {
		p.add(LoadTables{Script: deleteOffload, Back: have.script(), Former: []Table{*have}})
		p.offload = nil
	}
}

// changeOffload adds to a transaction what makes the flowtable the wanted one.
func (p *planner) changeOffload(step *LoadTables) {
	have, want := p.offload, p.want.flows()
	if have == nil && want == nil || have != nil && want != nil && have.Ruleset == want.Ruleset {
		return
	}
	if have != nil {
		step.Script, step.Back, step.Former = step.Script+deleteOffload, have.script()+step.Back,
			append(step.Former, *have)
	}
	if want != nil {
		step.Script, step.Back, step.Loaded = step.Script+want.script(), deleteOffload+step.Back,
			append(step.Loaded, *want)
	}
}
