package state

import (
	"net/netip"
	"strconv"
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
	Mark       uint32
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
// would not work for clients who had tried before.
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
			return from.open(f) && !to.open(f)
		}
		if !from.public[f.Dst] && !to.public[f.Dst] {
			return false
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
	elements map[string]map[string]string // set → key → value
	public   map[netip.Addr]bool          // addresses with forwards
	devices  map[uint32]string
}

func newWays(table Table, devices map[uint32]string) *ways {
	w := &ways{elements: map[string]map[string]string{}, public: map[netip.Addr]bool{}, devices: devices}
	for _, set := range table.Sets {
		m := make(map[string]string, len(set.Elements))
		for _, e := range set.Elements {
			m[e.Key] = e.Value
			if strings.HasSuffix(set.Name, "_forward") {
				address, _, _ := strings.Cut(e.Key, " ")
				w.public[parseAddr(address)] = true
			}
		}
		w.elements[set.Name] = m
	}
	return w
}

// inRange finds the element of an interval set that contains the fields.
func (w *ways) inRange(set string, fields ...string) (value string, ok bool) {
next:
	for key, value := range w.elements[set] {
		parts := strings.Split(key, " . ")
		for i, part := range parts {
			if !within(fields[i], part) {
				continue next
			}
		}
		return value, true
	}
	return "", false
}

// within reports whether a field equals the element's, or lies in its network or port range.
func within(field, part string) bool {
	if field == part {
		return true
	}
	if strings.Contains(part, "/") {
		network, err := netip.ParsePrefix(part)
		addr, err2 := netip.ParseAddr(field)
		return err == nil && err2 == nil && network.Contains(addr)
	}
	if low, high, ok := strings.Cut(part, "-"); ok {
		a, err1 := strconv.Atoi(low)
		b, err2 := strconv.Atoi(high)
		n, err3 := strconv.Atoi(field)
		return err1 == nil && err2 == nil && err3 == nil && a <= n && n <= b
	}
	return false
}

func (w *ways) of(f Flow) way {
	address, proto, port, client := f.Dst.String(), config.ProtoName(f.Proto), strconv.Itoa(int(f.DstPort)), f.Src.String()
	unchanged := way{f.Dst, f.DstPort}
	if config.HasPorts(f.Proto) {
		key := address + " . " + proto + " . " + port
		switch exception, ok := w.elements["port_exception"][key]; {
		case exception == "accept":
			return unchanged
		case ok:
			if _, ok := w.inRange("port_client", address, proto, port, client); !ok {
				return unchanged
			}
		}
		if to, ok := w.elements["port_forward"][key]; ok {
			host, port, _ := strings.Cut(to, " . ")
			n, _ := strconv.Atoi(port)
			return way{parseAddr(host), uint16(n)}
		}
		if to, ok := w.inRange("range_forward", address, proto, port); ok {
			return way{parseAddr(to), f.DstPort}
		}
	} else {
		key := address + " . " + proto
		switch exception, ok := w.elements["protocol_exception"][key]; {
		case exception == "accept":
			return unchanged
		case ok:
			if _, ok := w.inRange("protocol_client", address, proto, client); !ok {
				return unchanged
			}
		}
		if to, ok := w.elements["protocol_forward"][key]; ok {
			return way{parseAddr(to), f.DstPort}
		}
	}
	if to, ok := w.elements["address_forward"][address]; ok {
		return way{parseAddr(to), f.DstPort}
	}
	if to, ok := w.inRange("client_forward", address, client); ok {
		return way{parseAddr(to), f.DstPort}
	}
	return unchanged
}

// open reports whether a router lets the flow in through the tunnel.
func (w *ways) open(f Flow) bool {
	device, ok := w.devices[f.Mark&config.MarkMask]
	if !ok {
		return false
	}
	host, proto, port, client := f.Dst.String(), config.ProtoName(f.Proto), strconv.Itoa(int(f.DstPort)), f.Src.String()
	chain, key := chainName(device), quote(device)+" . "+host
	for _, look := range []struct{ set, key string }{
		{"open_port", key + " . " + proto + " . " + port}, {"open_protocol", key + " . " + proto}, {"open_host", key},
	} {
		if _, ok := w.elements[look.set][look.key]; ok {
			return true
		}
	}
	if _, ok := w.inRange(chain+"_port", host, proto, port, client); ok {
		return true
	}
	if _, ok := w.inRange(chain+"_protocol", host, proto, client); ok {
		return true
	}
	_, ok = w.inRange(chain+"_host", host, client)
	return ok
}

func parseAddr(s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return a
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
