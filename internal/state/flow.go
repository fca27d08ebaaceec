package state

import (
	"cmp"
	"net/netip"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
)

// Flow is an entry of connection tracking: its first packet, and where answers come from.
type Flow struct {
	Proto      uint8
	Src, Dst   netip.Addr // of the first packet, before DNAT
	DstPort    uint16     // 0 if the protocol has none
	AnswerSrc  netip.Addr // who answers: the destination after DNAT
	AnswerPort uint16
	AnswerDst  netip.Addr // to whom: the source after NAT
	Mark       uint32
	Answered   bool    // of TCP: it was established
	Dying      bool    // it has ended, and leaves the table now
	Counted    bool    // whether the kernel counts (net.netfilter.nf_conntrack_acct)
	In, Out    Traffic // from and to the one who opened the connection
}

// Traffic is what a connection has carried in one direction.
type Traffic struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"` // of IP packets
}

// Add counts more traffic.
func (t *Traffic) Add(more Traffic) {
	t.Packets += more.Packets
	t.Bytes += more.Bytes
}

// EndFlows deletes connection tracking entries whose destination has changed or is gone; their next packet is treated
// like the first of a connection. Otherwise a removed forward would continue for its present clients, and a new one
// would not work for clients who had tried before. A host's own connections end when it has no egress all any more:
// behind a router they have not been translated, and would go on to another line as they are. When it gets egress all,
// those end that were translated for another line.
type EndFlows struct {
	From, To Table // family ip; as it was and as it is loaded
	// FromDevices and ToDevices are a router's tunnels by connection mark, before and after.
	FromDevices, ToDevices map[uint32]string
	// Adopt maps a router's hosts with egress all to the marks of their tunnels. Open connections get the mark that
	// their next packet into the tunnel would give them, because an answer may come first.
	Adopt map[netip.Addr]uint32
}

// Adopted returns the mark that a flow gets, or 0.
func (s EndFlows) Adopted(f Flow) uint32 {
	if f.Mark&config.MarkMask != 0 || config.Reserved(netip.PrefixFrom(f.Dst, 32)) {
		return 0
	}
	return s.Adopt[f.Src]
}

// Commands implements Step. conntrack(8) would need one command per port.
func (s EndFlows) Commands() []string {
	return []string{"# end the connections that this concerns (as conntrack -D does)"}
}

// Undo implements Step. Ended flows cannot be restored; this is the last step, so nothing fails after it.
func (s EndFlows) Undo() []Step { return nil }

// Ender returns a function that reports whether a flow ends.
func (s EndFlows) Ender() func(Flow) bool {
	var from, to *ways
	return func(f Flow) bool {
		if from == nil { // built on first use: many machines have no flows
			from, to = newWays(s.From, s.FromDevices), newWays(s.To, s.ToDevices)
		}
		if mark := f.Mark & config.MarkMask; s.FromDevices[mark] != "" || s.ToDevices[mark] != "" {
			return from.open(f) && (!to.open(f) || from.masqs(f) != to.masqs(f)) ||
				from.leaves(f) && !to.leaves(f)
		}
		if s.Adopted(f) != 0 && f.AnswerDst != f.Src && !from.leaves(f) {
			return true // translated for another line
		}
		if from.outgoing[f.Src] && !to.outgoing[f.Src] {
			return true
		}
		if !from.public[f.Dst] && !to.public[f.Dst] {
			return false
		}
		if to.own(f) && from.elements["target_local"] == nil {
			return false // the table of a release that left the VPS's own programs alone
		}
		was, is := from.of(f), to.of(f)
		return was != is && is != way{f.AnswerSrc, f.AnswerPort}
	}
}

// way is the destination of a flow's packets; without a forward it is the public address itself.
type way struct {
	host netip.Addr
	port uint16
}

// ways decides like one table's rules about a connection's first packet.
type ways struct {
	elements map[string]map[Key]Value // by the names of sets
	public   map[netip.Addr]bool      // addresses with forwards
	outgoing map[netip.Addr]bool      // a VPS's hosts with egress all
	devices  map[uint32]string
}

func newWays(table Table, devices map[uint32]string) *ways {
	w := &ways{elements: map[string]map[Key]Value{}, public: map[netip.Addr]bool{}, outgoing: map[netip.Addr]bool{},
		devices: devices}
	for _, set := range table.Sets {
		m := make(map[Key]Value, len(set.Elements))
		for _, e := range set.Elements {
			m[e.Key] = e.Value
			if strings.HasSuffix(set.Name, "_forward") {
				w.public[e.Key.Addr] = true
			}
			if set.Name == "source" {
				w.outgoing[e.Key.Addr] = true
			}
		}
		w.elements[set.Name] = m
	}
	return w
}

// inRange finds the element of an interval set that contains the packet's key.
func (w *ways) inRange(set string, packet Key) (value Value, ok bool) {
	for key, value := range w.elements[set] {
		if key.contains(packet) {
			return value, true
		}
	}
	return Value{}, false
}

// own reports whether a VPS itself has opened the flow: nothing from outside has a public address as its source.
func (w *ways) own(f Flow) bool {
	_, ok := w.elements["public_address"][Key{Addr: f.Src}]
	return ok
}

func (w *ways) of(f Flow) way {
	unchanged, address := way{f.Dst, f.DstPort}, Key{Addr: f.Dst}
	if _, ok := w.elements["target_local"][address]; !ok && w.own(f) {
		return unchanged
	}
	client := netip.PrefixFrom(f.Src, f.Src.BitLen())
	exceptions, clients, forwards, key := "protocol_exception", "protocol_client", "protocol_forward",
		protoKey(f.Dst, f.Proto)
	if config.HasPorts(f.Proto) {
		exceptions, clients, forwards, key = "port_exception", "port_client", "port_forward", key.at(f.DstPort)
	}
	exception, ok := w.elements[exceptions][key]
	if !ok {
		exception, ok = w.inRange("range_exception", key)
	}
	if ok {
		if _, ok := w.inRange(clients, key.from(client)); !ok || exception.Verdict == "accept" {
			return unchanged
		}
	}
	if to, ok := w.elements[forwards][key]; ok {
		return way{to.Addr, cmp.Or(to.Port, f.DstPort)}
	}
	if to, ok := w.inRange("range_forward", key); ok {
		return way{to.Addr, f.DstPort}
	}
	if to, ok := w.elements["address_forward"][address]; ok {
		return way{to.Addr, f.DstPort}
	}
	if to, ok := w.inRange("client_forward", address.from(client)); ok {
		return way{to.Addr, f.DstPort}
	}
	return unchanged
}

// open reports whether a router lets the flow in through the tunnel.
func (w *ways) open(f Flow) bool {
	device, ok := w.devices[f.Mark&config.MarkMask]
	if !ok {
		return false
	}
	host, proto := Key{Addr: f.Dst}, protoKey(f.Dst, f.Proto)
	port := proto.at(f.DstPort)
	for _, look := range []struct {
		set string
		key Key
	}{{"open_port", port}, {"open_protocol", proto}, {"open_host", host}} {
		if _, ok := w.elements[look.set][look.key.by(device)]; ok {
			return true
		}
	}
	chain, client := chainName(device), netip.PrefixFrom(f.Src, f.Src.BitLen())
	for _, look := range []struct {
		set string
		key Key
	}{{"_port", port}, {"_protocol", proto}, {"_host", host}} {
		if _, ok := w.inRange(chain+look.set, look.key.from(client)); ok {
			return true
		}
	}
	return false
}

// leaves reports whether a router sends the flow, which its host has opened, through the tunnel.
func (w *ways) leaves(f Flow) bool {
	_, ok := w.elements["egress_host"][Key{Addr: f.Src}]
	return ok
}

// masqs reports whether a router hides a flow's client from the host.
func (w *ways) masqs(f Flow) bool {
	_, ok := w.elements[masqSet(w.devices[f.Mark&config.MarkMask]).Name][Key{Addr: f.Dst}]
	return ok
}

// tunnelsByMark returns a router's tunnels by connection mark.
func (s *State) tunnelsByMark() map[uint32]string {
	devices := map[uint32]string{}
	for _, rule := range s.Rules {
		if rule.Mask != config.MarkMask || rule.From.IsValid() {
			continue
		}
		for _, route := range s.Routes {
			if route.Table == rule.Table && route.Dst.Bits() == 0 {
				devices[rule.Mark] = route.Device
			}
		}
	}
	return devices
}

// egressMarks returns a router's hosts whose own connections leave through a tunnel, with its mark.
func (s *State) egressMarks() map[netip.Addr]uint32 {
	marks := map[uint32]uint32{} // routing table → mark
	for _, rule := range s.Rules {
		if rule.Mask == config.MarkMask && !rule.From.IsValid() {
			marks[rule.Table] = rule.Mark
		}
	}
	hosts := map[netip.Addr]uint32{}
	for _, rule := range s.Rules {
		if mark := marks[rule.Table]; mark != 0 && rule.From.IsValid() {
			hosts[rule.From.Addr()] = mark
		}
	}
	return hosts
}

// endFlows is the last step if the destination of some flows may change.
func (p *planner) endFlows() {
	have, want := p.have.table("ip"), p.want.table("ip")
	if have != nil && want != nil && have.Ruleset == want.Ruleset { // tables has compared them
		if p.moved {
			p.addEndFlows(*have, *want)
		}
		return
	}
	if have == nil {
		have = &Table{}
	}
	if want == nil {
		want = &Table{}
	}
	for _, set := range want.Sets {
		if !sameElements(have.set(set.Name), set) {
			p.addEndFlows(*have, *want)
			return
		}
	}
	for _, set := range have.Sets {
		if want.set(set.Name).Key == nil && len(set.Elements) > 0 {
			p.addEndFlows(*have, *want)
			return
		}
	}
}

func sameElements(a, b Set) bool {
	if len(a.Elements) != len(b.Elements) {
		return false
	}
	gone, added := difference(a.Elements, b.Elements)
	return len(gone)+len(added) == 0
}

func (p *planner) addEndFlows(from, to Table) {
	p.add(EndFlows{From: from, To: to, FromDevices: p.have.tunnelsByMark(), ToDevices: p.want.tunnelsByMark(),
		Adopt: p.want.egressMarks()})
}
