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
// of which any may carry the answers.
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
		if r.Role == config.VPS {
			if _, shared := slots.of[r.Name]; !shared {
				ways = append(ways, facts.Access[r.Name])
			}
		} else if publics[r.IPAddr] == 1 {
			for _, host := range hosts(r) {
				if !facts.Self[host] {
					ways = append(ways, facts.LAN[host])
				}
			}
		}
		ways = slices.DeleteFunc(ways, func(device string) bool { return device == "" || device == r.Device })
		if r.Offloading && len(ways) > 0 {
			f = f.with(r, ways)
		}
	}
	return OffloadTable(f), f.VPS != nil || f.Router != nil
}

// Flows says which flows bypass the rules: between each tunnel of a VPS and each device on which clients arrive, and
// between the devices of each pair on a router, a tunnel and one of the home network.
type Flows struct {
	VPS, Access []string
	Router      [][2]string
}

// with adds a relay's tunnel, unless that makes too many devices.
func (f Flows) with(r *config.Relay, ways []string) Flows {
	more := f
	if r.Role == config.VPS {
		more.VPS, more.Access = append(f.VPS, r.Device), unique(slices.Concat(f.Access, ways))
	} else {
		for _, device := range ways {
			more.Router = append(more.Router, [2]string{r.Device, device})
		}
		more.Router = unique(more.Router)
	}
	if len(more.devices()) > maxFlowDevices {
		return f
	}
	return more
}

// devices are those of the flowtable.
func (f Flows) devices() []string {
	devices := slices.Concat(f.Access, f.VPS)
	for _, pair := range f.Router {
		devices = append(devices, pair[:]...)
	}
	return unique(devices)
}

// OffloadTable is the table for these flows. With family inet the kernel would track IPv6 too. On a VPS it applies
// after other firewalls (priority filter) have admitted a connection's first packets. On a router it precedes fw4's own
// flowtable, which would take them otherwise, and has no tunnel. Source:
// https://docs.kernel.org/networking/nf_flowtable.html
func OffloadTable(f Flows) Table {
	const established = "meta l4proto { tcp, udp } ct state established flow add @established\n\t}\n"
	list := func(devices []string) string {
		quoted := make([]string, len(devices))
		for i, device := range devices {
			quoted[i] = quote(device)
		}
		return "{ " + strings.Join(quoted, ", ") + " }"
	}
	t := Table{Family: "ip", Name: FlowTableName}
	body := `
	flowtable established {
		hook ingress priority 0
		devices = ` + list(f.devices()) + `
		counter
	}
`
	if f.VPS != nil {
		body += "\tchain forward {\n\t\ttype filter hook forward priority 10; policy accept;\n\t\tiifname " + list(f.VPS) +
			" oifname " + list(f.Access) + " " + established
	}
	if f.Router != nil {
		var pairs []string
		for _, pair := range f.Router {
			tunnel, device := quote(pair[0]), quote(pair[1])
			pairs = append(pairs, tunnel+" . "+device, device+" . "+tunnel)
		}
		body += "\tchain forward_home {\n\t\ttype filter hook forward priority -1; policy accept;\n\t\tiifname . oifname { " +
			strings.Join(pairs, ", ") + " } " + established
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
