package state

import (
	"cmp"
	"net/netip"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
)

// Flow is an entry of connection tracking: what its first packet was, and where answers come from.
type Flow struct {
	Proto      uint8
	Src, Dst   netip.Addr // of the first packet, before its destination was changed
	DstPort    uint16     // 0 where the protocol has none
	AnswerSrc  netip.Addr // who answers: the destination after the change
	AnswerPort uint16
	Mark       uint32
	Counted    bool    // whether the kernel counts (net.netfilter.nf_conntrack_acct)
	In, Out    Traffic // from who opened the connection, and to them
}

// Traffic is what a connection has carried one way.
type Traffic struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"` // of IP packets
}

// Add counts more traffic.
func (t *Traffic) Add(more Traffic) {
	t.Packets += more.Packets
	t.Bytes += more.Bytes
}

// EndFlows removes entries of connection tracking whose way is another one now, or none: their next packet is treated as
// a connection's first. Without it a removed forward would go on for all who use it, and a new one would not be seen by
// who had tried before.
type EndFlows struct {
	From, To Table // family ip; those that were and are loaded
	// Devices are the tunnels of a router by their connection mark, before and after.
	FromDevices, ToDevices map[uint32]string
	// Adopt are a router's hosts with egress all, and the marks of their tunnels. What is open already gets the mark that
	// its next packet into the tunnel would give it: answers may come before that.
	Adopt map[netip.Addr]uint32
}

// Adopted is the mark that a flow gets, or 0.
func (s EndFlows) Adopted(f Flow) uint32 {
	if f.Mark&config.MarkMask != 0 || config.Reserved(netip.PrefixFrom(f.Dst, 32)) {
		return 0
	}
	return s.Adopt[f.Src]
}

// Commands implements Step. What conntrack(8) would have to be told are many lines, one for each port.
func (s EndFlows) Commands() []string {
	return []string{"# end the connections that this concerns (as conntrack -D does)"}
}

// Undo implements Step: what has ended has ended. It is the last step, after which nothing fails.
func (s EndFlows) Undo() []Step { return nil }

// Ender tells for any number of flows whether they end.
func (s EndFlows) Ender() func(Flow) bool {
	var from, to *ways
	return func(f Flow) bool {
		if from == nil { // most machines have few flows, many have none
			from, to = newWays(s.From, s.FromDevices), newWays(s.To, s.ToDevices)
		}
		if mark := f.Mark & config.MarkMask; s.FromDevices[mark] != "" || s.ToDevices[mark] != "" {
			return from.open(f) && !to.open(f)
		}
		if !from.public[f.Dst] && !to.public[f.Dst] {
			return false
		}
		was, is := from.of(f), to.of(f)
		return was != is && is != way{f.AnswerSrc, f.AnswerPort}
	}
}

// way is where a flow's packets go; without a forward, to the public address itself.
type way struct {
	host netip.Addr
	port uint16
}

// ways answers for one table, as its rules would for a connection's first packet.
type ways struct {
	elements map[string]map[Key]Value // by the names of sets
	public   map[netip.Addr]bool      // addresses that something is forwarded of
	devices  map[uint32]string
}

func newWays(table Table, devices map[uint32]string) *ways {
	w := &ways{elements: map[string]map[Key]Value{}, public: map[netip.Addr]bool{}, devices: devices}
	for _, set := range table.Sets {
		m := make(map[Key]Value, len(set.Elements))
		for _, e := range set.Elements {
			m[e.Key] = e.Value
			if strings.HasSuffix(set.Name, "_forward") {
				w.public[e.Key.Addr] = true
			}
		}
		w.elements[set.Name] = m
	}
	return w
}

// inRange finds the element of an interval set that the packet's key is in.
func (w *ways) inRange(set string, packet Key) (value Value, ok bool) {
	for key, value := range w.elements[set] {
		if key.contains(packet) {
			return value, true
		}
	}
	return Value{}, false
}

func (w *ways) of(f Flow) way {
	unchanged, address := way{f.Dst, f.DstPort}, Key{Addr: f.Dst}
	client := netip.PrefixFrom(f.Src, f.Src.BitLen())
	exceptions, clients, forwards, key := "protocol_exception", "protocol_client", "protocol_forward", protoKey(f.Dst, f.Proto)
	if config.HasPorts(f.Proto) {
		exceptions, clients, forwards, key = "port_exception", "port_client", "port_forward", key.at(f.DstPort)
	}
	if exception, ok := w.elements[exceptions][key]; ok {
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

// open tells whether a router lets the flow in through the tunnel.
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

// tunnelsByMark are the tunnels of a router by the mark of their connections.
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

// egressMarks are a router's hosts whose own connections leave by a tunnel, and its mark.
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

// endFlows comes last, where the way of some flows changes.
func (p *planner) endFlows() {
	have, want := p.have.table("ip"), p.want.table("ip")
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
	return len(a.Elements) == len(b.Elements) && len(missing(a.Elements, b.Elements)) == 0
}

func (p *planner) addEndFlows(from, to Table) {
	p.add(EndFlows{From: from, To: to, FromDevices: p.have.tunnelsByMark(), ToDevices: p.want.tunnelsByMark(),
		Adopt: p.want.egressMarks()})
}
