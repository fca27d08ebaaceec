package state

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
)

// maxFlowDevices is how many devices a flowtable may have: nf_tables_parse_netdev_hooks of net/netfilter/nf_tables_api.c refuses the
// 256th (NFT_NETDEVICE_MAX). Tunnels beyond do without.
const maxFlowDevices = 255

// flows is the table with the flowtable.
func (s *State) flows() *Table { return s.named("ip", FlowTableName) }

// offloadTable is table ip ds4relay_flows: a flowtable over the tunnels and the devices that clients come by. What it carries
// does not meet any rule. Where homes have equal addresses the rules say who is meant: their tunnels have none.
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

// OffloadTable has flows that go on between a device of tunnels and one of access pass by the rules. It comes into play
// after the firewalls of others (priority filter) have let in a connection's first packets. Of family inet it would have the
// kernel track IPv6 too.
// Source: https://docs.kernel.org/networking/nf_flowtable.html
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

// removeOffload comes before a tunnel of the flowtable goes, without which it could not be put back. changeOffload adds it again.
func (p *planner) removeOffload() {
	have := p.have.flows()
	if Offloading && have != nil && slices.ContainsFunc(p.have.Links, func(l Link) bool { return p.want.link(l.Name) == nil }) {
		p.add(LoadTables{Script: deleteOffload, Back: have.script(), Former: []Table{*have}})
		p.offload = nil
	}
}

// changeOffload is part of a transaction that makes the flowtable the wanted one.
func (p *planner) changeOffload(step *LoadTables) {
	have, want := p.offload, p.want.flows()
	if !Offloading || have == nil && want == nil || have != nil && want != nil && have.Ruleset == want.Ruleset {
		return
	}
	if have != nil {
		step.Script, step.Back, step.Former = step.Script+deleteOffload, have.script()+step.Back, append(step.Former, *have)
	}
	if want != nil {
		step.Script, step.Back, step.Loaded = step.Script+want.script(), deleteOffload+step.Back, append(step.Loaded, *want)
	}
}
