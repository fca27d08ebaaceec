package state

import (
	"fmt"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// A Step is one change of the kernel.
type Step interface {
	// Commands are what a person would type for it.
	Commands() []string
	// Undo returns the steps that reverse it.
	Undo() []Step
}

// The kinds of steps. Each is a single operation of the kernel, so it is done completely or not at all.
type (
	// AddLink creates a tunnel in our link group, down and without an alias.
	AddLink struct{ Link Link }
	// DelLink removes a tunnel, and its sysctls with it.
	DelLink struct {
		Link    Link
		Sysctls []SetSysctl // values of the link's own sysctls, for when it is created again
	}
	// ChangeLink changes a tunnel's endpoints, encapsulation limit or hop limit.
	ChangeLink struct{ From, To Link }
	// SetPeer sets keys, port, mark and the other end of a tunnel of WireGuard. From is zero for a new one.
	SetPeer struct {
		Device   string
		From, To transport.WireGuard
	}
	// SetAlias marks a link with its relay; "" means no alias.
	SetAlias struct{ Device, From, To string }
	// SetMTU changes a link's MTU in bytes.
	SetMTU struct {
		Device   string
		From, To int
	}
	// SetGroup moves a link to another device group.
	SetGroup struct {
		Device   string
		From, To int
	}
	// SetUp sets a link up or down.
	SetUp struct {
		Device string
		Up     bool
	}
	// AddAddr adds an endpoint.
	AddAddr struct{ Addr Addr }
	// DelAddr removes an endpoint.
	DelAddr struct{ Addr Addr }
	// AddRoute adds a route.
	AddRoute struct{ Route Route }
	// DelRoute removes a route.
	DelRoute struct{ Route Route }
	// AddRule adds a policy rule.
	AddRule struct{ Rule Rule }
	// DelRule removes a policy rule.
	DelRule struct{ Rule Rule }
	// SetSysctl changes a value. With Save the previous value is recorded before, with Forget the record is removed
	// afterwards.
	SetSysctl struct {
		Key, From, To string
		Save, Forget  bool
	}
	// LoadTables changes nft tables: Script in one transaction, and then Elements in another one, if the program is
	// Direct. Back and BackElements reverse that.
	LoadTables struct {
		Script, Back           string
		Elements, BackElements []SetChange
		Loaded                 []Table // the tables afterwards, without those whose elements alone change
		Former                 []Table // the same before
	}
)

// A SetChange changes elements of a set. The set has no Elements.
type SetChange struct {
	Family string
	Set    Set
	New    bool // the script before it creates the set's table
	Gone   []Element
	Added  []Element
}

// Device returns the device that a step changes, or "" for none or several.
func Device(step Step) string {
	switch s := step.(type) {
	case AddLink:
		return s.Link.Name
	case ChangeLink:
		return s.To.Name
	case SetPeer:
		return s.Device
	case SetAlias:
		return s.Device
	case SetMTU:
		return s.Device
	case SetGroup:
		return s.Device
	case SetUp:
		return s.Device
	case AddAddr:
		return s.Addr.Device
	case AddRoute:
		return s.Route.Device
	}
	return ""
}

// Commands implements Step with ip-link(8).
func (s AddLink) Commands() []string {
	return []string{fmt.Sprintf("ip link add name %s group %d %s", s.Link.Name, s.Link.Group,
		s.Link.Tunnel.Arguments())}
}

// Undo implements Step.
func (s AddLink) Undo() []Step { return []Step{DelLink{Link: s.Link}} }

// Commands implements Step with ip-link(8).
func (s DelLink) Commands() []string { return []string{"ip link del dev " + s.Link.Name} }

// Undo implements Step: it creates the link again with everything that belongs to it.
func (s DelLink) Undo() []Step {
	steps := []Step{AddLink{s.Link}}
	if s.Link.Relay != "" {
		steps = append(steps, SetAlias{Device: s.Link.Name, To: s.Link.Relay})
	}
	if s.Link.MTU != 0 {
		steps = append(steps, SetMTU{Device: s.Link.Name, To: s.Link.MTU})
	}
	if peer, ok := s.Link.Tunnel.(transport.WireGuard); ok {
		steps = append(steps, SetPeer{Device: s.Link.Name, To: peer})
	}
	for _, sysctl := range s.Sysctls {
		steps = append(steps, sysctl)
	}
	if s.Link.Up {
		steps = append(steps, SetUp{s.Link.Name, true})
	}
	return steps
}

// Commands implements Step with ip-link(8).
func (s ChangeLink) Commands() []string {
	return []string{fmt.Sprintf("ip link change dev %s %s", s.To.Name, s.To.Tunnel.Arguments())}
}

// Undo implements Step. The kernel resets a tunnel's MTU when it changes (ip6_tnl_link_config).
func (s ChangeLink) Undo() []Step {
	return []Step{ChangeLink{s.To, s.From}, SetMTU{s.From.Name, s.To.MTU, s.From.MTU}}
}

// Commands implements Step with wg(8).
func (s SetPeer) Commands() []string {
	return []string{"wg set " + s.Device + " " + s.To.Settings(s.From)}
}

// Undo implements Step. A new tunnel is removed.
func (s SetPeer) Undo() []Step {
	if s.From == (transport.WireGuard{}) {
		return nil
	}
	return []Step{SetPeer{s.Device, s.To, s.From}}
}

// Commands implements Step with ip-link(8).
func (s SetAlias) Commands() []string {
	return []string{fmt.Sprintf("ip link set dev %s alias %q", s.Device, s.Alias())}
}

// Alias returns the complete new alias.
func (s SetAlias) Alias() string {
	if s.To == "" {
		return ""
	}
	return AliasPrefix + s.To
}

// Undo implements Step.
func (s SetAlias) Undo() []Step { return []Step{SetAlias{s.Device, s.To, s.From}} }

// Commands implements Step with ip-link(8).
func (s SetMTU) Commands() []string {
	return []string{fmt.Sprintf("ip link set dev %s mtu %d", s.Device, s.To)}
}

// Undo implements Step.
func (s SetMTU) Undo() []Step {
	if s.From == 0 { // a new link, which is removed
		return nil
	}
	return []Step{SetMTU{s.Device, s.To, s.From}}
}

// Commands implements Step with ip-link(8).
func (s SetGroup) Commands() []string {
	return []string{fmt.Sprintf("ip link set dev %s group %d", s.Device, s.To)}
}

// Undo implements Step.
func (s SetGroup) Undo() []Step { return []Step{SetGroup{s.Device, s.To, s.From}} }

// Commands implements Step with ip-link(8).
func (s SetUp) Commands() []string {
	state := "down"
	if s.Up {
		state = "up"
	}
	return []string{fmt.Sprintf("ip link set dev %s %s", s.Device, state)}
}

// Undo implements Step.
func (s SetUp) Undo() []Step { return []Step{SetUp{s.Device, !s.Up}} }

// Commands implements Step with ip-address(8).
func (s AddAddr) Commands() []string {
	return []string{fmt.Sprintf("ip -6 addr add %s/128 dev %s metric %d nodad noprefixroute preferred_lft 0",
		s.Addr.Addr, s.Addr.Device, Metric)}
}

// Undo implements Step.
func (s AddAddr) Undo() []Step { return []Step{DelAddr(s)} }

// Commands implements Step with ip-address(8).
func (s DelAddr) Commands() []string {
	return []string{fmt.Sprintf("ip -6 addr del %s/128 dev %s", s.Addr.Addr, s.Addr.Device)}
}

// Undo implements Step.
func (s DelAddr) Undo() []Step { return []Step{AddAddr(s)} }

func routeText(r Route) string {
	dst := r.Dst.String()
	if r.Dst.Bits() == 0 {
		dst = "default"
	}
	text := fmt.Sprintf("%s dev %s proto %d", dst, r.Device, Protocol)
	if r.Table != MainTable {
		text += fmt.Sprintf(" table %d", r.Table)
	}
	return text
}

// Commands implements Step with ip-route(8).
func (s AddRoute) Commands() []string { return []string{"ip -4 route add " + routeText(s.Route)} }

// Undo implements Step.
func (s AddRoute) Undo() []Step { return []Step{DelRoute(s)} }

// Commands implements Step with ip-route(8).
func (s DelRoute) Commands() []string { return []string{"ip -4 route del " + routeText(s.Route)} }

// Undo implements Step.
func (s DelRoute) Undo() []Step { return []Step{AddRoute(s)} }

func ruleText(r Rule) string {
	var b strings.Builder
	fmt.Fprintf(&b, "priority %d", r.Priority)
	if r.From.IsValid() {
		fmt.Fprintf(&b, " from %s", r.From.Addr())
	}
	if r.To.IsValid() {
		fmt.Fprintf(&b, " to %s", r.To)
	}
	if r.IIF != "" {
		fmt.Fprintf(&b, " iif %s", r.IIF)
	}
	if r.IPProto != 0 {
		fmt.Fprintf(&b, " ipproto %s", config.ProtoName(r.IPProto))
	}
	if r.LastPort != 0 {
		fmt.Fprintf(&b, " dport %d-%d", r.FirstPort, r.LastPort)
	}
	if r.Mask != 0 {
		fmt.Fprintf(&b, " fwmark %#08x/%#08x", r.Mark, r.Mask)
	}
	switch {
	case r.Unreachable:
		b.WriteString(" unreachable")
	case r.Table == MainTable:
		b.WriteString(" lookup main")
	default:
		fmt.Fprintf(&b, " lookup %d", r.Table)
	}
	if r.NoDefault {
		b.WriteString(" suppress_prefixlength 0")
	}
	return fmt.Sprintf("%s protocol %d", b.String(), Protocol)
}

// Commands implements Step with ip-rule(8).
func (s AddRule) Commands() []string { return []string{"ip -4 rule add " + ruleText(s.Rule)} }

// Undo implements Step.
func (s AddRule) Undo() []Step { return []Step{DelRule(s)} }

// Commands implements Step with ip-rule(8).
func (s DelRule) Commands() []string { return []string{"ip -4 rule del " + ruleText(s.Rule)} }

// Undo implements Step.
func (s DelRule) Undo() []Step { return []Step{AddRule(s)} }

// Commands implements Step with sysctl(8).
func (s SetSysctl) Commands() []string { return []string{fmt.Sprintf("sysctl -qw %s=%s", s.Key, s.To)} }

// Undo implements Step.
func (s SetSysctl) Undo() []Step {
	return []Step{SetSysctl{Key: s.Key, From: s.To, To: s.From, Save: s.Forget, Forget: s.Save}}
}

// Commands implements Step with nft(8).
func (s LoadTables) Commands() []string {
	return []string{"nft -f - <<'EOF'\n" + s.Whole() + "EOF"}
}

// Whole is a script of nft for all of the step.
func (s LoadTables) Whole() string {
	if !Direct {
		return s.Script
	}
	return s.Script + ElementsScript(s.Elements)
}

// ElementsScript is a script of nft for changes of elements. To change a value, it removes the element and adds it
// again.
func ElementsScript(changes []SetChange) string {
	var b []byte
	for _, c := range changes {
		b = appendElements(b, "delete", c.Family, &c.Set, c.Gone)
		b = appendElements(b, "add", c.Family, &c.Set, c.Added)
	}
	return string(b)
}

// Undo implements Step.
func (s LoadTables) Undo() []Step {
	return []Step{LoadTables{Script: s.Back, Back: s.Script, Elements: s.BackElements, BackElements: s.Elements,
		Loaded: s.Former, Former: s.Loaded}}
}

// Line returns the step as one line: its command, or for a ruleset its size.
func Line(step Step) string {
	load, ok := step.(LoadTables)
	if !ok {
		return strings.Join(step.Commands(), "; ")
	}
	return "nft -f - # " + load.size()
}

// size says how much the script changes in each table.
func (s LoadTables) size() string {
	type table struct {
		name                     string
		rules, elements, removed int
		loaded, deleted          bool
	}
	var tables []*table
	named := func(words []string) *table {
		name := words[0] + " " + words[1]
		for _, t := range tables {
			if t.name == name {
				return t
			}
		}
		tables = append(tables, &table{name: name})
		return tables[len(tables)-1]
	}
	chain := false
	var last *table
	for _, line := range strings.Split(s.Script, "\n") {
		words := append(strings.Fields(line), "", "", "", "")
		n := strings.Count(line, ",") + 1
		switch verb := words[0] + " " + words[1]; {
		case words[0] == "table":
			last = named(words[1:])
			last.loaded = true
		case verb == "delete table":
			named(words[2:]).deleted = true
		case verb == "add element":
			named(words[2:]).elements += n
		case verb == "delete element":
			named(words[2:]).removed += n
		case !strings.HasPrefix(line, "\t\t"):
			chain = words[0] == "chain" && !strings.HasSuffix(line, "}")
		case chain && words[0] != "type" && words[0] != "#":
			last.rules++
		}
	}
	for _, c := range s.Elements {
		t := named([]string{c.Family, TableName})
		t.elements += len(c.Added)
		t.removed += len(c.Gone)
	}
	var parts []string
	for _, t := range tables {
		text := ""
		switch {
		case t.loaded:
			text = fmt.Sprint("rules ", t.rules)
		case t.deleted:
			text = "removed"
		}
		if t.elements > 0 {
			text += fmt.Sprint(", elements ", t.elements)
		}
		if t.removed > 0 {
			text += fmt.Sprint(", elements removed ", t.removed)
		}
		parts = append(parts, "table "+t.name+": "+strings.TrimPrefix(text, ", "))
	}
	return strings.Join(parts, "; ")
}
