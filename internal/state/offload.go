package state

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
)

// maxFlowDevices is the greatest number of devices in a flowtable: nf_tables_parse_netdev_hooks in
// net/netfilter/nf_tables_api.c refuses the 256th (NFT_NETDEVICE_MAX). Further tunnels do not use it.
const maxFlowDevices = 255

// flows returns the table with the flowtable.
func (s *State) flows() *Table { return s.named("ip", FlowTableName) }

// offloadTable is table ip ds4relay_flows: a flowtable over the tunnels and the devices on which clients arrive. Its
// packets bypass all rules. If homes have the same addresses, rules have to tell them apart, so their tunnels are left
// out.
func offloadTable(onVPS []*config.Relay, facts Facts, slots slots) (Table, bool) {
	if !Offloading || !facts.FlowTables {
		return Table{}, false
	}
	var tunnels, access []string
	for _, r := range onVPS {
		device := facts.Access[r.Name]
		_, shared := slots.of[r.Name]
		if !r.Offloading || shared || device == "" {
			continue
		}
		ways := access
		if !slices.Contains(ways, device) {
			ways = append(ways, device)
		}
		if len(tunnels)+1+len(ways) <= maxFlowDevices {
			tunnels, access = append(tunnels, r.Device), ways
		}
	}
	if len(tunnels) == 0 {
		return Table{}, false
	}
	return OffloadTable(tunnels, access), true
}

// OffloadTable makes established flows between a device of tunnels and one of access bypass the rules. It applies after
// other firewalls (priority filter) have admitted a connection's first packets. With family inet the kernel would track
// IPv6 too. Source: https://docs.kernel.org/networking/nf_flowtable.html
func OffloadTable(tunnels, access []string) Table {
	list := func(devices []string) string {
		quoted := make([]string, len(devices))
		for i, device := range devices {
			quoted[i] = quote(device)
		}
		return strings.Join(quoted, ", ")
	}
	t := Table{Family: "ip", Name: FlowTableName}
	t.Ruleset = tableText(t, fmt.Sprintf(`
	flowtable established {
		hook ingress priority 0
		devices = { %s }
		counter
	}
	chain forward {
		type filter hook forward priority 10; policy accept;
		iifname { %s } oifname { %s } meta l4proto { tcp, udp } ct state established flow add @established
	}
`, list(unique(slices.Concat(access, tunnels))), list(tunnels), list(access)))
	return t
}

const deleteOffload = "delete table ip " + FlowTableName + "\n"

// removeOffload precedes the removal of a tunnel that is in the flowtable: undoing could not restore the flowtable
// otherwise. changeOffload adds it again.
func (p *planner) removeOffload() {
	have := p.have.flows()
	if Offloading && have != nil && slices.ContainsFunc(p.have.Links, func(l Link) bool {
		return p.want.link(l.Name) == nil
	}) {
		p.add(LoadTables{Script: deleteOffload, Back: have.script(), Former: []Table{*have}})
		p.offload = nil
	}
}

// changeOffload adds to a transaction what makes the flowtable the wanted one.
func (p *planner) changeOffload(step *LoadTables) {
	have, want := p.offload, p.want.flows()
	if !Offloading || have == nil && want == nil || have != nil && want != nil && have.Ruleset == want.Ruleset {
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
