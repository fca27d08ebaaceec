package state

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
)

// maxFlowDevices is how many devices a flowtable may have (NFT_NETDEVICE_MAX of net/netfilter/nf_tables_api.c).
const maxFlowDevices = 256

// flows is the table with the flowtable.
func (s *State) flows() *Table { return s.named("ip", FlowTableName) }

// offloadTable is table ip ds4relay_flows: a flowtable over the tunnels and the devices that clients come by. What it carries
// does not meet any rule. Where homes have equal addresses the rules say who is meant: their tunnels have none.
func offloadTable(onVPS []*config.Relay, facts Facts, slots slots) (Table, bool) {
	var tunnels, access []string
	if !Offloading || !facts.FlowTables {
		return Table{}, false
	}
	for _, r := range onVPS {
		device := facts.Access[r.Name]
		_, shared := slots.of[r.Name]
		if !r.Offloading || shared || device == "" || len(tunnels)+len(access)+2 > maxFlowDevices {
			continue
		}
		tunnels = append(tunnels, r.Device)
		if !slices.Contains(access, device) {
			access = append(access, device)
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
	text := func(devices []string, rule string) string {
		return tableText(t, fmt.Sprintf(`
	flowtable established {
		hook ingress priority 0
		devices = { %s }
		counter
	}
	chain forward {
		type filter hook forward priority 10; policy accept;
%s	}
`, list(devices), rule))
	}
	t.Idle = text(access, "")
	t.Ruleset = text(unique(slices.Concat(access, tunnels)),
		fmt.Sprintf("\t\tiifname { %s } oifname { %s } meta l4proto { tcp, udp } ct state established flow add @established\n", list(tunnels), list(access)))
	return t
}

// removeOffload comes before a tunnel of the flowtable goes, without which it could not be put back.
func (p *planner) removeOffload() {
	have, want := p.have.flows(), p.want.flows()
	if !Offloading || have == nil || !slices.ContainsFunc(p.have.Links, func(l Link) bool { return p.want.link(l.Name) == nil }) {
		return
	}
	step := LoadTables{Script: deleteOffload, Back: have.script(), Former: []Table{*have}}
	p.offload = nil
	if want != nil {
		idle := want.idle()
		step.Script, step.Back, step.Loaded = step.Script+idle.script(), deleteOffload+step.Back, []Table{*idle}
		p.offload = idle
	}
	p.add(step)
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

const deleteOffload = "delete table ip " + FlowTableName + "\n"

// idle is the table without tunnels, which nothing comes into.
func (t *Table) idle() *Table { return &Table{Family: t.Family, Name: t.Name, Ruleset: t.Idle} }

// Swap are the scripts that put an idle flowtable in the place of one that is wanted, so that what the latter carries meets the
// rules, and that put it back. Without any hook for incoming packets in the kernel, its code for them would be altered, which
// interrupts every CPU.
func (t *Table) Swap() (away, back string) { return deleteOffload + t.Idle, deleteOffload + t.Ruleset }
