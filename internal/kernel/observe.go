package kernel

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/platform"
	"github.com/ds4relay/ds4relay/internal/state"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// Kernel is the network namespace that the process runs in.
type Kernel struct {
	Run      string            // directory of run-time records, /run/ds4relay
	Kept     string            // directory of records that outlive a restart, KeptDir; only Served uses it
	Platform platform.Platform // nil: Debian

	// KeepPeers uses the recorded addresses of DNS names, without a lookup, where there are some.
	KeepPeers bool
	// KeepLocals leaves tunnels the endpoints that they have where those are auto.
	KeepLocals bool

	looked map[string]lookedUp // DNS names
	notes  []*message.Text     // about records, for Observe
	made   bool                // Lock has made the directory Run
}

// dumpTries limits how often an incomplete dump is repeated: interrupted by changes (NLM_F_DUMP_INTR) or a signal, or
// larger than the socket's buffer (ENOBUFS, netlink(7)).
const dumpTries = 5

func dump[T any](list func() ([]T, error)) ([]T, error) {
	for try := 1; ; try++ {
		items, err := list()
		again := errors.Is(err, netlink.ErrDumpInterrupted) || isErrno(err, unix.EINTR, unix.ENOBUFS)
		if !again || try == dumpTries {
			return items, err
		}
	}
}

// Observe reads everything with our marks, and other programs' objects that conflict with want.
func (k *Kernel) Observe(want state.State) (state.Observed, error) {
	o := state.Observed{ForeignLinks: map[string]string{}, ForeignAddrs: map[netip.Addr]string{},
		SysctlValues: map[string]string{}, NoIPv6: map[string]bool{}}
	links, err := k.observeLinks(&o)
	if err != nil {
		return o, message.New("list links: %v", err)
	}
	if err := observeAddrs(&o, links); err != nil {
		return o, message.New("list addresses: %v", err)
	}
	if err := observeRoutes(&o, want, links); err != nil {
		return o, message.New("list routes: %v", err)
	}
	if err := observeRules(&o); err != nil {
		return o, message.New("list rules: %v", err)
	}
	if err := k.observeSysctls(&o, want); err != nil {
		return o, err
	}
	if err := observeAllowances(&o); forRoot(err) {
		o.Unseen = append(o.Unseen, message.New("iptables' rules"))
	} else if err != nil {
		return o, err
	}
	if err := k.observeTables(&o); forRoot(err) {
		o.Unseen = append(o.Unseen, message.New("nft's tables"))
	} else if err != nil {
		return o, message.New("list nft tables: %v", err)
	}
	o.Unrecorded = k.unrecorded(o, links)
	o.Notes = append(o.Notes, k.notes...)
	return o, nil
}

// forRoot reports whether the kernel would have answered root instead of returning this error. Everybody may read
// links, addresses, routes and rules; nfnetlink needs CAP_NET_ADMIN (nfnetlink_rcv).
func forRoot(err error) bool { return errors.Is(err, os.ErrPermission) && !Admin() }

// Admin reports whether this process may change the network: it has the capability CAP_NET_ADMIN, which root lacks in
// most containers.
func Admin() bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData // of 32 capabilities each
	return unix.Capget(&head, &sets[0]) == nil && sets[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0
}

// unrecorded returns other devices that forward although the machine as a whole does not, if our tunnels are up but
// neither their table nor a record exists.
func (k *Kernel) unrecorded(o state.Observed, links map[int]string) []string {
	_, err := os.Stat(k.path(recordName(state.Table{Family: "ip", Name: state.TableName})))
	all, _ := readSysctl("net/ipv4/conf/all/forwarding")
	if len(o.Links) == 0 || err == nil || all != "0" || len(o.Tables) > 0 {
		return nil
	}
	var devices []string
	for _, name := range links {
		if value, err := readSysctl(state.ForwardingKey(name)); err == nil && value == "1" &&
			o.ForeignLinks[name] != "" {
			devices = append(devices, name)
		}
	}
	slices.Sort(devices)
	return devices
}

// observeLinks returns the names of all links by index.
func (k *Kernel) observeLinks(o *state.Observed) (map[int]string, error) {
	all, err := dump(netlink.LinkList)
	if err != nil {
		return nil, err
	}
	names := map[int]string{}
	for _, link := range all {
		attrs := link.Attrs()
		names[attrs.Index] = attrs.Name
		relay, marked := strings.CutPrefix(attrs.Alias, state.AliasPrefix)
		var tunnel transport.Tunnel
		var typical bool
		if marked || attrs.Alias == "" && attrs.Group == state.Group {
			tunnel, typical, err = observeTunnel(link)
			if forRoot(err) {
				unseen := message.New("WireGuard's keys")
				if !slices.ContainsFunc(o.Unseen, func(t *message.Text) bool { return t.Code == unseen.Code }) {
					o.Unseen = append(o.Unseen, unseen)
				}
			} else if err != nil {
				return nil, err
			}
		}
		if tunnel == nil || !marked && !typical {
			o.ForeignLinks[attrs.Name] = link.Type()
			continue
		}
		ours := state.Link{Name: attrs.Name, Tunnel: tunnel, MTU: attrs.MTU, Group: int(attrs.Group),
			Up: attrs.RawFlags&unix.IFF_UP != 0}
		if marked {
			ours.Relay = relay
		}
		o.Links = append(o.Links, ours)
	}
	return names, nil
}

func observeAddrs(o *state.Observed, links map[int]string) error {
	// The netlink package's AddrList leaves out IFA_RT_PRIORITY, our mark.
	messages, err := dump(func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
		req.AddData(nl.NewIfAddrmsg(unix.AF_INET6))
		return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
	})
	if err != nil {
		return err
	}
	for _, m := range messages {
		msg := nl.DeserializeIfAddrmsg(m)
		attrs, err := nl.ParseRouteAttr(m[msg.Len():])
		if err != nil {
			return err
		}
		var addr netip.Addr
		var metric uint32
		for _, attr := range attrs {
			switch attr.Attr.Type {
			case unix.IFA_ADDRESS:
				addr, _ = netip.AddrFromSlice(attr.Value)
			case unix.IFA_RT_PRIORITY:
				metric = nl.NativeEndian().Uint32(attr.Value)
			}
		}
		device := links[int(msg.Index)]
		if metric == state.Metric && msg.Prefixlen == 128 {
			o.Addrs = append(o.Addrs, state.Addr{Addr: addr, Device: device})
		} else {
			o.ForeignAddrs[addr] = device
		}
	}
	return nil
}

func observeRoutes(o *state.Observed, want state.State, links map[int]string) error {
	add := func(filter *netlink.Route, mask uint64, ours bool) error {
		routes, err := dump(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(unix.AF_INET, filter, mask)
		})
		if err != nil {
			return err
		}
		for _, r := range routes {
			dst := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
			if r.Dst != nil {
				addr, _ := netip.AddrFromSlice(r.Dst.IP.To4())
				bits, _ := r.Dst.Mask.Size()
				dst = netip.PrefixFrom(addr, bits)
			}
			if ours {
				o.Routes = append(o.Routes, state.Route{Table: uint32(r.Table), Dst: dst, Device: links[r.LinkIndex]})
			} else if r.Protocol != state.Protocol {
				o.ForeignRoutes = append(o.ForeignRoutes, state.ForeignRoute{Table: uint32(r.Table), Dst: dst,
					Owner: owner(int(r.Protocol)), Device: links[r.LinkIndex]})
			}
		}
		return nil
	}
	if err := add(&netlink.Route{Protocol: state.Protocol}, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE,
		true); err != nil {
		return err
	}
	seen := map[uint32]bool{}
	for _, route := range want.Routes {
		filter, mask := &netlink.Route{Table: int(route.Table)}, netlink.RT_FILTER_TABLE
		if route.Table == state.MainTable {
			filter.Dst = &net.IPNet{IP: route.Dst.Addr().AsSlice(), Mask: net.CIDRMask(route.Dst.Bits(), 32)}
			mask |= netlink.RT_FILTER_DST
		} else if seen[route.Table] {
			continue
		}
		seen[route.Table] = true
		if err := add(filter, mask, false); err != nil {
			return err
		}
	}
	return nil
}

// owner names who a route or rule is from by its protocol number, as /etc/iproute2/rt_protos of iproute2 does.
func owner(protocol int) *message.Text {
	programs := map[int]string{11: "zebra", 12: "bird", 18: "keepalived", 42: "babel", 186: "bgp", 188: "ospf"}
	switch protocol {
	case 0:
		return message.New("a person or a script (no protocol)")
	case 2:
		return message.New("the kernel")
	case 3:
		return message.New("a person or a script (protocol boot)")
	case 4:
		return message.New("a person or a script (protocol static)")
	case 9:
		return message.New("a router advertisement")
	case 15:
		return message.New("NetworkManager or a mesh daemon")
	case 16:
		return message.New("a DHCP client")
	}
	if name, ok := programs[protocol]; ok {
		return message.Plain(name)
	}
	return message.New("protocol %d", protocol)
}

func observeRules(o *state.Observed) error {
	rules, err := dump(func() ([]netlink.Rule, error) { return netlink.RuleList(unix.AF_INET) })
	if err != nil {
		return err
	}
	for _, r := range rules {
		if r.Protocol != state.Protocol {
			o.ForeignRules = append(o.ForeignRules,
				state.ForeignRule{Priority: max(r.Priority, 0), Owner: owner(int(r.Protocol))})
			continue
		}
		ours := state.Rule{Priority: r.Priority, IIF: r.IifName, Mark: r.Mark, Table: uint32(r.Table),
			NoDefault:   r.SuppressPrefixlen == 0,
			Unreachable: r.Table == unix.RT_TABLE_UNSPEC} // the netlink package leaves out the action
		if r.Mask != nil {
			ours.Mask = *r.Mask
		}
		for proto := uint32(r.IPProto); proto != 0; proto >>= 8 { // one byte, which the netlink package reads as four
			ours.IPProto = uint8(proto)
		}
		if r.Dport != nil {
			ours.FirstPort, ours.LastPort = r.Dport.Start, r.Dport.End
		}
		if r.Src != nil {
			addr, _ := netip.AddrFromSlice(r.Src.IP.To4())
			bits, _ := r.Src.Mask.Size()
			ours.From = netip.PrefixFrom(addr, bits)
		}
		if r.Dst != nil {
			bits, addr := maskBits(r.Dst)
			ours.To = netip.PrefixFrom(addr, bits)
		}
		o.Rules = append(o.Rules, ours)
	}
	return nil
}

func (k *Kernel) observeSysctls(o *state.Observed, want state.State) error {
	saved, err := k.savedSysctls()
	if err != nil {
		return err
	}
	o.SavedSysctls = saved
	for _, s := range slices.Concat(want.Sysctls, saved) {
		if value, err := readSysctl(s.Key); err == nil {
			o.SysctlValues[s.Key] = value
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	o.NoIPv6[state.NewDevice] = noIPv6(state.NewDevice)
	for _, link := range o.Links {
		o.NoIPv6[link.Name] = noIPv6(link.Name)
		for _, name := range state.LinkSysctls {
			key := "net/ipv4/conf/" + link.Name + "/" + name
			if value, err := readSysctl(key); err == nil {
				o.Sysctls = append(o.Sysctls, state.Sysctl{Key: key, Value: value, Device: link.Name})
			}
		}
	}
	return nil
}

func noIPv6(device string) bool {
	value, err := readSysctl(state.NoIPv6Key(device))
	return err == nil && value == "1"
}

func readSysctl(key string) (string, error) {
	data, err := os.ReadFile(filepath.Join("/proc/sys", key))
	return strings.TrimSpace(string(data)), err
}

// Counters are a link's traffic since it was created.
type Counters struct {
	Index     int    `json:"-"` // of the link
	RxBytes   uint64 `json:"rx_bytes"`
	RxPackets uint64 `json:"rx_packets"`
	TxBytes   uint64 `json:"tx_bytes"`
	TxPackets uint64 `json:"tx_packets"`
	RxErrors  uint64 `json:"rx_errors"`
	TxErrors  uint64 `json:"tx_errors"`
}

// LinkCounters reads them.
func LinkCounters(device string) (Counters, error) {
	link, err := netlink.LinkByName(device)
	if err != nil || link.Attrs().Statistics == nil {
		return Counters{}, err
	}
	s := link.Attrs().Statistics
	return Counters{link.Attrs().Index, s.RxBytes, s.RxPackets, s.TxBytes, s.TxPackets, s.RxErrors, s.TxErrors}, nil
}

// HasModule reports whether a module is loaded.
func HasModule(name string) bool {
	_, err := os.Stat("/sys/module/" + name)
	return err == nil
}

func isErrno(err error, numbers ...syscall.Errno) bool {
	return slices.ContainsFunc(numbers, func(n syscall.Errno) bool { return errors.Is(err, n) })
}
