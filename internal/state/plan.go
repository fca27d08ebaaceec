package state

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// Plan returns the steps from the observed to the wanted state, or the reasons why there are none. A tunnel becomes
// usable only after everything that guards it is in place.
func Plan(have Observed, want State) ([]Step, error) {
	if err := conflicts(have, want); err != nil {
		return nil, err
	}
	want.adopt(&have.State)
	first, have := replaced(have, want)
	p := &planner{have: have, want: want, steps: first}
	p.offload = p.have.flows()
	p.removeOffload()
	p.removeRules()
	p.removeRoutes()
	p.removeAddrs()
	p.removeLinks()
	p.removeAllowances()
	p.links()
	p.addAddrs()
	p.restoreSysctls(isForwarding) // before the fence is removed
	p.tables()
	p.addAllowances()
	p.sysctls()
	p.ups()
	p.addRoutes()
	p.addRules()
	p.endFlows()
	// Last: only a fence can stand in for a record that an undo cannot write.
	p.restoreSysctls(func(key string) bool { return !isForwarding(key) })
	return p.steps, nil
}

// adopt takes over what tunnels have and the configuration leaves to the kernel.
func (s *State) adopt(have *State) {
	s.Links = slices.Clone(s.Links)
	for i := range s.Links {
		peer, ok := s.Links[i].Tunnel.(transport.WireGuard)
		if found := have.link(s.Links[i].Name); ok && found != nil {
			if before, ok := found.Tunnel.(transport.WireGuard); ok {
				s.Links[i].Tunnel = peer.Adopt(before)
			}
		}
	}
}

// replaced returns the steps that remove tunnels of another kind than the wanted ones of the same name, and what is
// left then. A device cannot change its kind.
func replaced(have Observed, want State) ([]Step, Observed) {
	other := map[string]bool{}
	for _, link := range want.Links {
		if found := have.link(link.Name); found != nil && found.Tunnel.Kind() != link.Tunnel.Kind() {
			other[link.Name] = true
		}
	}
	if len(other) == 0 {
		return nil, have
	}
	left := have
	left.Links = without(have.Links, func(l Link) bool { return other[l.Name] })
	left.Routes = without(have.Routes, func(r Route) bool { return other[r.Device] })
	left.Addrs = without(have.Addrs, func(a Addr) bool { return other[a.Device] })
	left.Sysctls = without(have.Sysctls, func(s Sysctl) bool { return other[s.Device] })
	p := &planner{have: have, want: left.State, offload: have.flows()}
	p.removeOffload()
	if p.offload == nil {
		left.Tables = without(have.Tables, func(t Table) bool { return t.Name == FlowTableName })
	}
	p.removeRoutes()
	p.removeAddrs()
	p.removeLinks()
	return p.steps, left
}

func without[T any](items []T, drop func(T) bool) []T {
	return slices.DeleteFunc(slices.Clone(items), drop)
}

type planner struct {
	have    Observed
	want    State
	steps   []Step
	offload *Table // the flowtable after the steps so far
	moved   bool   // elements of table ip change, without its rules
}

func (p *planner) add(s ...Step) { p.steps = append(p.steps, s...) }

// conflicts returns objects of others whose names or places we need.
func conflicts(have Observed, want State) error {
	var errs []error
	for _, link := range want.Links {
		if kind, ok := have.ForeignLinks[link.Name]; ok {
			errs = append(errs, message.New("relay %q: there is a device %s already that ds4relay did not make (%s); "+
				"remove it, or give the tunnel another name with: option device", link.Relay, link.Name, kind))
		}
	}
	for _, route := range want.Routes {
		for _, foreign := range have.ForeignRoutes {
			if foreign.Table != route.Table || route.Table == MainTable && foreign.Dst != route.Dst {
				continue
			}
			option := message.New("option ip4table names another table")
			if route.Table == MainTable {
				option = message.New("option dest_ip names another host")
			}
			errs = append(errs, message.New("table %s has a route to %s through %s that ds4relay did not make (it "+
				"seems to be from %s); "+
				"remove it, or: %s", tableName(route.Table), dstName(foreign.Dst), foreign.Device, foreign.Owner,
				option))
		}
	}
	for _, rule := range want.Rules {
		for _, foreign := range have.ForeignRules {
			if foreign.Priority == rule.Priority {
				errs = append(errs, message.New("there is an ip rule of priority %d that ds4relay did not make (it "+
					"seems to be from %s); "+
					"remove it, or take other priorities with: option priority", rule.Priority, foreign.Owner))
			}
		}
	}
	for _, table := range want.Tables {
		if slices.Contains(have.ForeignTables, table.String()) {
			errs = append(errs, message.New("there is an nft table %s without the chain %s: somebody else made it; "+
				"no option avoids this, rename or remove it: nft delete table %s", table, MarkChain, table))
		}
	}
	return errors.Join(uniqueErrors(errs)...)
}

func uniqueErrors(errs []error) []error {
	seen := map[string]bool{}
	return slices.DeleteFunc(errs, func(err error) bool {
		again := seen[err.Error()]
		seen[err.Error()] = true
		return again
	})
}

func tableName(table uint32) string {
	if table == MainTable {
		return "main"
	}
	return fmt.Sprint(table)
}

func dstName(dst netip.Prefix) string {
	if dst.Bits() == 0 {
		return "default"
	}
	return dst.String()
}

func missing[T comparable](have, from []T) []T {
	if len(have) == 0 || len(from) == 0 {
		return from
	}
	set := make(map[T]bool, len(have))
	for _, item := range have {
		set[item] = true
	}
	var result []T
	for _, item := range from {
		if !set[item] {
			result = append(result, item)
		}
	}
	return result
}

// replaced reports whether another rule of the same priority replaces this one for the same packets. The old one is
// then removed after the new one was added: with neither, packets out of a tunnel would be answered with "network
// unreachable".
func (p *planner) replaced(rule Rule) bool {
	return slices.ContainsFunc(p.want.Rules, func(w Rule) bool {
		return w.Priority == rule.Priority && w.IIF == rule.IIF && w.From == rule.From
	})
}

func (p *planner) removeRules() {
	for _, rule := range missing(p.want.Rules, p.have.Rules) {
		if !p.replaced(rule) {
			p.add(DelRule{rule})
		}
	}
}

func (p *planner) removeRoutes() {
	for _, route := range missing(p.want.Routes, p.have.Routes) {
		p.add(DelRoute{route})
	}
}

func (p *planner) addRoutes() {
	for _, route := range missing(p.have.Routes, p.want.Routes) {
		p.add(AddRoute{route})
	}
}

func (p *planner) addRules() {
	for _, rule := range missing(p.have.Rules, p.want.Rules) {
		p.add(AddRule{rule})
	}
	for _, rule := range missing(p.want.Rules, p.have.Rules) {
		if p.replaced(rule) {
			p.add(DelRule{rule})
		}
	}
}

func (s *State) link(name string) *Link {
	for i := range s.Links {
		if s.Links[i].Name == name {
			return &s.Links[i]
		}
	}
	return nil
}

// links creates new tunnels, which stay down, and changes existing ones.
func (p *planner) links() {
	for _, want := range p.want.Links {
		have := p.have.link(want.Name)
		if have == nil {
			p.add(AddLink{want}, SetAlias{Device: want.Name, To: want.Relay}, SetMTU{Device: want.Name, To: want.MTU})
			if peer, ok := want.Tunnel.(transport.WireGuard); ok {
				p.add(SetPeer{Device: want.Name, To: peer})
			}
			continue
		}
		changed := have.Tunnel != want.Tunnel
		peer, ok := want.Tunnel.(transport.WireGuard)
		switch {
		case changed && ok:
			if from := have.Tunnel.(transport.WireGuard); !peer.Same(from) {
				p.add(SetPeer{want.Name, from, peer})
			}
			changed = false
		case changed:
			p.add(ChangeLink{*have, want})
		}
		if have.Group != want.Group {
			p.add(SetGroup{want.Name, have.Group, want.Group})
		}
		if have.Relay != want.Relay {
			p.add(SetAlias{want.Name, have.Relay, want.Relay})
		}
		if changed || have.MTU != want.MTU { // each change resets the tunnel's MTU
			p.add(SetMTU{want.Name, have.MTU, want.MTU})
		}
	}
}

func (p *planner) ups() {
	for _, want := range p.want.Links {
		if have := p.have.link(want.Name); have == nil || !have.Up {
			p.add(SetUp{want.Name, true})
		}
	}
}

func (p *planner) removeLinks() {
	for _, have := range p.have.Links {
		if p.want.link(have.Name) != nil {
			continue
		}
		step := DelLink{Link: have}
		for _, sysctl := range p.have.Sysctls {
			if sysctl.Device == have.Name {
				step.Sysctls = append(step.Sysctls, SetSysctl{Key: sysctl.Key, To: sysctl.Value})
			}
		}
		if p.have.NoIPv6[NewDevice] && !p.have.NoIPv6[have.Name] {
			step.Sysctls = append(step.Sysctls, SetSysctl{Key: NoIPv6Key(have.Name), To: "0"})
		}
		p.add(step)
	}
}

func (p *planner) removeAddrs() {
	for _, addr := range missing(p.want.Addrs, p.have.Addrs) {
		p.add(DelAddr{addr})
	}
}

// addAddrs adds endpoints; an address that the machine already has is used as it is.
func (p *planner) addAddrs() {
	for _, addr := range missing(p.have.Addrs, p.want.Addrs) {
		if _, ok := p.have.ForeignAddrs[addr.Addr]; ok {
			continue
		}
		if p.lacksIPv6(addr.Device) {
			p.add(SetSysctl{Key: NoIPv6Key(addr.Device), From: "1", To: "0"})
		}
		p.add(AddAddr{addr})
	}
}

// lacksIPv6 reports whether IPv6 is off on one of our links, or will be when it is created.
func (p *planner) lacksIPv6(device string) bool {
	if p.want.link(device) != nil && p.have.link(device) == nil {
		device = NewDevice
	}
	return p.have.NoIPv6[device]
}

func (p *planner) sysctls() {
	for _, want := range p.want.Sysctls {
		value := p.have.SysctlValues[want.Key]
		if want.Device != "" && p.have.link(want.Device) == nil {
			value = "0" // the value on a new device does not matter: it is set anyway
		}
		if value == "" && want.Key == liberalKey {
			value = "0" // the module comes with the tables; this is its default
		}
		if value == want.Value {
			continue
		}
		p.add(SetSysctl{Key: want.Key, From: value, To: want.Value, Save: want.Device == "" && !p.saved(want.Key)})
	}
}

func (p *planner) saved(key string) bool {
	return slices.ContainsFunc(p.have.SavedSysctls, func(s Sysctl) bool { return s.Key == key })
}

func isForwarding(key string) bool { return strings.HasSuffix(key, "/forwarding") }

// restoreSysctls restores sysctls of a kind that are no longer wanted.
func (p *planner) restoreSysctls(kind func(key string) bool) {
	for _, saved := range p.have.SavedSysctls {
		if !kind(saved.Key) || slices.ContainsFunc(p.want.Sysctls, func(s Sysctl) bool { return s.Key == saved.Key }) {
			continue
		}
		p.add(SetSysctl{Key: saved.Key, From: p.have.SysctlValues[saved.Key], To: saved.Value, Forget: true})
	}
}

// String names the table as nft does.
func (t Table) String() string { return t.Family + " " + t.Name }

// table returns the family's table named TableName.
func (s *State) table(family string) *Table { return s.named(family, TableName) }

// KillSwitch reports whether a kill switch is on for any host.
func (s *State) KillSwitch() bool { return s.named("ip", KillTableName) != nil }

// Held returns the hosts with rules of the kill switch.
func (s *State) Held() []netip.Addr {
	var hosts []netip.Addr
	for _, r := range s.Rules {
		if r.From.IsSingleIP() && r.IIF == "" && r.Priority != lastPriority && (r.Unreachable || r.Table == lastTable) {
			hosts = append(hosts, r.From.Addr())
		}
	}
	return hosts
}

func (s *State) named(family, name string) *Table {
	for i := range s.Tables {
		if s.Tables[i].Family == family && s.Tables[i].Name == name {
			return &s.Tables[i]
		}
	}
	return nil
}

// tables adds one step that loads new or altered tables completely, and changes single elements of the others. With
// Direct, a new table gets its elements after its rules. Until then no packet meets the rules: tunnels, addresses and
// rules of routing follow.
func (p *planner) tables() {
	var script, back strings.Builder
	var step LoadTables
	for _, table := range []Table{
		{Family: "ip", Name: TableName}, {Family: "ip6", Name: TableName}, {Family: "ip", Name: KillTableName},
	} {
		have, want := p.have.named(table.Family, table.Name), p.want.named(table.Family, table.Name)
		switch {
		case have == nil && want == nil:
		case have == nil:
			script.WriteString(want.create(&step.Elements))
			fmt.Fprintf(&back, "delete table %s\n", want)
			step.Loaded = append(step.Loaded, *want)
		case want == nil:
			fmt.Fprintf(&script, "delete table %s\n", have)
			back.WriteString(have.create(&step.BackElements))
			step.Former = append(step.Former, *have)
		case have.Ruleset != want.Ruleset:
			script.WriteString(have.become(want))
			back.WriteString(want.become(have))
			step.Loaded, step.Former = append(step.Loaded, *want), append(step.Former, *have)
		default:
			for i := range want.Sets {
				gone, added := difference(have.set(want.Sets[i].Name).Elements, want.Sets[i].Elements)
				p.moved = p.moved || table.Family == "ip" && len(gone)+len(added) > 0
				script.WriteString(want.alter(i, gone, added, false, &step.Elements))
				back.WriteString(want.alter(i, added, gone, false, &step.BackElements))
			}
		}
	}
	step.Script, step.Back = script.String(), back.String()
	p.changeOffload(&step)
	if step.Script != "" || len(step.Elements) > 0 {
		p.add(step)
	}
}

// create is the part of a script that creates the table with its elements. With Direct they are changes instead.
func (t *Table) create(changes *[]SetChange) string {
	if !Direct {
		return t.script()
	}
	for i := range t.Sets {
		t.alter(i, nil, t.Sets[i].Elements, true, changes)
	}
	return t.Ruleset
}

// alter is the part of a script that changes elements of a set, or of a new one. To change a value, it removes the
// element and adds it again. With Direct it is a change instead.
func (t *Table) alter(number int, gone, added []Element, isNew bool, changes *[]SetChange) string {
	set := &t.Sets[number]
	if !Direct {
		return string(appendElements(appendElements(nil, "delete", t.Family, set, gone), "add", t.Family, set, added))
	}
	if len(gone)+len(added) > 0 {
		*changes = append(*changes, SetChange{Family: t.Family, Set: Set{set.Name, set.Key, set.Value, nil}, New: isNew,
			Gone: gone, Added: added})
	}
	return ""
}

func (t *Table) set(name string) Set {
	for _, s := range t.Sets {
		if s.Name == name {
			return s
		}
	}
	return Set{Name: name}
}

// script creates the table from nothing.
func (t *Table) script() string {
	b := []byte(t.Ruleset)
	for _, set := range t.Sets {
		b = appendElements(b, "add", t.Family, &set, set.Elements)
	}
	return string(b)
}

// Include is text for an nft file to include: it creates the table, whether it exists or not.
func (t *Table) Include() string {
	return fmt.Sprintf("table %s\ndelete table %s\n%s", t, t, t.script())
}

// declared returns a ruleset's chains with their hooks, and its sets and maps with their declarations.
func declared(ruleset string) (chains, sets map[string]string) {
	chains, sets = map[string]string{}, map[string]string{}
	chain := ""
	for line := range strings.Lines(ruleset) {
		kind, rest, _ := strings.Cut(strings.TrimPrefix(line, "\t"), " ")
		name, _, ok := strings.Cut(rest, " {")
		switch {
		case strings.HasPrefix(line, "\t\ttype "):
			chains[chain] = strings.TrimSpace(line)
		case !ok || !strings.HasPrefix(line, "\t"):
		case kind == "chain":
			chain = name
			chains[name] = "without a hook"
		case kind == "set", kind == "map":
			sets[name] = kind + " " + rest
		}
	}
	return chains, sets
}

// become is the part of a script that turns the table into want. Sets that stay keep their elements and their place in
// the kernel: if a table were replaced completely, packets in flight would find nothing in its maps and be dropped. A
// table that somebody has altered has no sets here and is replaced; so is one of another version with other sets or
// hooks.
func (t *Table) become(want *Table) string {
	chains, sets := declared(t.Ruleset)
	wantChains, wantSets := declared(want.Ruleset)
	replace := len(t.Sets) == 0 || len(want.Sets) == 0
	for name, what := range sets {
		replace = replace || wantSets[name] != "" && wantSets[name] != what
	}
	for name, hook := range chains {
		replace = replace || wantChains[name] != "" && wantChains[name] != hook
	}
	if replace {
		return fmt.Sprintf("delete table %s\n%s", t, want.script())
	}
	b := fmt.Appendf(nil, "flush table %s\n", t)
	for _, name := range slices.Sorted(maps.Keys(sets)) {
		if wantSets[name] == "" {
			kind, _, _ := strings.Cut(sets[name], " ")
			b = fmt.Appendf(b, "delete %s %s %s\n", kind, t, name)
		}
	}
	add := []byte(want.Ruleset)
	for _, set := range want.Sets {
		gone, added := difference(t.set(set.Name).Elements, set.Elements)
		b = appendElements(b, "delete", t.Family, &set, gone)
		add = appendElements(add, "add", t.Family, &set, added)
	}
	for _, name := range slices.Sorted(maps.Keys(chains)) {
		if wantChains[name] == "" {
			b = fmt.Appendf(b, "delete chain %s %s\n", t, name)
		}
	}
	return string(b) + string(add)
}

// appendElements appends a command of nft, if there are elements.
func appendElements(b []byte, verb, family string, set *Set, elements []Element) []byte {
	if len(elements) == 0 {
		return b
	}
	if !inOrder(elements) { // as they come from the kernel
		elements = distinct(append([]Element(nil), elements...))
	}
	b = fmt.Appendf(b, "%s element %s %s %s { ", verb, family, TableName, set.Name)
	for i := range elements {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = elements[i].appendText(b, set)
	}
	return append(b, " }\n"...)
}
