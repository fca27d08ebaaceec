package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/state"
)

// An Applier does a step completely or not at all.
type Applier interface {
	Apply(state.Step) error
}

// A StepError says which step failed.
type StepError struct {
	Step state.Step
	Err  error
}

// Error implements error: what a person would have typed, and why it failed.
func (e *StepError) Error() string { return e.AsText().Error() }

// AsText implements message.Coded.
func (e *StepError) AsText() *message.Text {
	command := e.Step.Commands()[0]
	if remedy := e.remedy(); remedy != nil {
		return message.New("%s: %v; %v", command, e.Err, remedy)
	}
	return message.New("%s: %v", command, e.Err)
}

// remedy says what to do where the kernel's word does not.
func (e *StepError) remedy() *message.Text {
	device := state.Device(e.Step)
	var missing netlink.LinkNotFoundError
	_, creates := e.Step.(state.AddLink)
	switch added, ok := e.Step.(state.AddAddr); {
	case ok && isErrno(e.Err, unix.EACCES):
		return message.New("turn on IPv6 on the device: `sysctl -w net.ipv6.conf.%s.disable_ipv6=0`",
			strings.ReplaceAll(added.Addr.Device, ".", "/"))
	case isErrno(e.Err, unix.EADDRINUSE):
		return message.New("the relay's UDP port is in use; find out who has it with `ss -ulpn` and `wg show`, or " +
			"give the relay another one (option listen_port, at the other end endpoint_port)")
	case isErrno(e.Err, unix.EPERM, unix.EACCES, unix.EROFS):
		return message.New("run it as root; in a container its host has to allow it (CAP_NET_ADMIN, and /proc/sys " +
			"writable)")
	case device != "" && !creates && (isErrno(e.Err, unix.ENODEV) || errors.As(e.Err, &missing)):
		return message.New("the device %s has gone; when it is back, run `ds4relay up`", device)
	}
	return nil
}

// Unwrap is for errors.Is and errors.As.
func (e *StepError) Unwrap() error { return e.Err }

// Do applies the steps in order and calls show before each. If one fails, the previous ones are undone in reverse
// order, and the error says so. A step that was done but not recorded is undone too. During the undo, a record that
// cannot be written is no failure: the kernel is as it was, and the next up writes the record.
func Do(k Applier, steps []state.Step, show func(state.Step)) error {
	for i, step := range steps {
		show(step)
		err := k.Apply(step)
		if err == nil {
			continue
		}
		var unrecorded *Unrecorded
		done := i
		if errors.As(err, &unrecorded) {
			done++
		}
		err = &StepError{step, err}
		for j := done - 1; j >= 0; j-- {
			for _, undo := range steps[j].Undo() {
				if undoErr := k.Apply(undo); undoErr != nil && !errors.As(undoErr, &unrecorded) {
					err = errors.Join(err, message.New("and while undoing: %s: %v", undo.Commands()[0], undoErr))
				}
			}
		}
		return err
	}
	return nil
}

// Apply implements Applier.
func (k *Kernel) Apply(step state.Step) error {
	switch s := step.(type) {
	case state.AddLink:
		err := setLink(s.Link, netlink.LinkAdd)
		if isErrno(err, unix.EOPNOTSUPP, unix.ENODEV) {
			return message.New("%v: %s", err, drivers[s.Link.Tunnel.Kind()].missing())
		}
		return err
	case state.DelLink:
		return onLink(s.Link.Name, netlink.LinkDel)
	case state.ChangeLink:
		return setLink(s.To, netlink.LinkModify)
	case state.SetPeer:
		return setPeer(k.located(s))
	case state.SetAlias:
		return onLink(s.Device, func(l netlink.Link) error { return netlink.LinkSetAlias(l, s.Alias()) })
	case state.SetMTU:
		return onLink(s.Device, func(l netlink.Link) error { return netlink.LinkSetMTU(l, s.To) })
	case state.SetGroup:
		return onLink(s.Device, func(l netlink.Link) error { return netlink.LinkSetGroup(l, s.To) })
	case state.SetUp:
		if s.Up {
			return onLink(s.Device, netlink.LinkSetUp)
		}
		return onLink(s.Device, netlink.LinkSetDown)
	case state.AddAddr:
		return addr(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, s.Addr)
	case state.DelAddr:
		err := addr(unix.RTM_DELADDR, 0, s.Addr)
		if isErrno(err, unix.EADDRNOTAVAIL) {
			return nil // it was removed when the link was set down
		}
		return err
	case state.AddRoute:
		return route(s.Route, netlink.RouteAdd)
	case state.DelRoute:
		return route(s.Route, netlink.RouteDel)
	case state.AddRule:
		return rule(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, s.Rule)
	case state.DelRule:
		return rule(unix.RTM_DELRULE, 0, s.Rule)
	case state.SetSysctl:
		return k.setSysctl(s)
	case state.LoadTables:
		return k.loadTables(s)
	case state.AddAllowance:
		return changeAllowance(s.Allowance, "-I")
	case state.DelAllowance:
		return changeAllowance(s.Allowance, "-D")
	case state.EndFlows:
		return endFlows(s)
	}
	return fmt.Errorf("unknown step %T", step)
}

func onLink(name string, f func(netlink.Link) error) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return f(link)
}

// forever is the infinite lifetime of an address (INFINITY_LIFE_TIME of linux/addrconf.h).
const forever = 0xffffffff

// addr adds or removes an endpoint. The address is deprecated, so that nothing chooses it as a source (RFC 6724 rule
// 3), has no prefix route, and skips duplicate address detection, so that it is usable at once. The netlink package's
// AddrAdd cannot set the metric, nor a preferred lifetime of 0 on 32-bit machines.
func addr(message, flags int, a state.Addr) error {
	return onLink(a.Device, func(link netlink.Link) error {
		req := nl.NewNetlinkRequest(message, flags|unix.NLM_F_ACK)
		msg := nl.NewIfAddrmsg(unix.AF_INET6)
		msg.Prefixlen, msg.Index = 128, uint32(link.Attrs().Index)
		req.AddData(msg)
		req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, a.Addr.AsSlice()))
		req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, a.Addr.AsSlice()))
		if message == unix.RTM_NEWADDR {
			req.AddData(nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(unix.IFA_F_NOPREFIXROUTE|unix.IFA_F_NODAD)))
			req.AddData(nl.NewRtAttr(unix.IFA_RT_PRIORITY, nl.Uint32Attr(state.Metric)))
			lifetimes := nl.IfaCacheInfo{IfaCacheinfo: unix.IfaCacheinfo{Prefered: 0, Valid: forever}}
			req.AddData(nl.NewRtAttr(unix.IFA_CACHEINFO, lifetimes.Serialize()))
		}
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

func route(r state.Route, f func(*netlink.Route) error) error {
	return onLink(r.Device, func(link netlink.Link) error {
		return f(&netlink.Route{Family: unix.AF_INET, LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK,
			Dst: ipNet(r.Dst), Table: int(r.Table), Protocol: state.Protocol})
	})
}

// rule adds or removes a policy rule. The netlink package writes the protocol as four bytes instead of one, which on a
// big-endian machine (MIPS) is another protocol.
func rule(message, flags int, r state.Rule) error {
	req := nl.NewNetlinkRequest(message, flags|unix.NLM_F_ACK)
	msg := nl.NewRtMsg()
	msg.Family, msg.Protocol, msg.Scope, msg.Table, msg.Type = unix.AF_INET, 0, unix.RT_SCOPE_UNIVERSE,
		unix.RT_TABLE_UNSPEC, unix.RTN_UNICAST
	if r.Unreachable {
		msg.Type = unix.RTN_UNREACHABLE
	}
	req.AddData(msg)
	if r.From.IsValid() {
		msg.Src_len = uint8(r.From.Bits())
		req.AddData(nl.NewRtAttr(unix.RTA_SRC, r.From.Addr().AsSlice()))
	}
	if r.To.IsValid() {
		msg.Dst_len = uint8(r.To.Bits())
		req.AddData(nl.NewRtAttr(unix.RTA_DST, r.To.Addr().AsSlice()))
	}
	req.AddData(nl.NewRtAttr(nl.FRA_PRIORITY, nl.Uint32Attr(uint32(r.Priority))))
	if r.Mask != 0 {
		req.AddData(nl.NewRtAttr(nl.FRA_FWMARK, nl.Uint32Attr(r.Mark)))
		req.AddData(nl.NewRtAttr(nl.FRA_FWMASK, nl.Uint32Attr(r.Mask)))
	}
	if !r.Unreachable {
		req.AddData(nl.NewRtAttr(nl.FRA_TABLE, nl.Uint32Attr(r.Table)))
	}
	if r.NoDefault {
		req.AddData(nl.NewRtAttr(nl.FRA_SUPPRESS_PREFIXLEN, nl.Uint32Attr(0)))
	}
	if r.IIF != "" {
		req.AddData(nl.NewRtAttr(nl.FRA_IIFNAME, nl.ZeroTerminated(r.IIF)))
	}
	if r.IPProto != 0 {
		req.AddData(nl.NewRtAttr(nl.FRA_IP_PROTO, nl.Uint8Attr(r.IPProto)))
	}
	if r.LastPort != 0 {
		ports := binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, r.FirstPort), r.LastPort)
		req.AddData(nl.NewRtAttr(nl.FRA_DPORT_RANGE, ports)) // struct fib_rule_port_range
	}
	req.AddData(nl.NewRtAttr(nl.FRA_PROTOCOL, nl.Uint8Attr(state.Protocol)))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// setSysctl records the previous value before the change, so that it is not lost if the process is killed.
func (k *Kernel) setSysctl(s state.SetSysctl) error {
	if s.Save {
		if err := k.saveSysctl(s.Key, s.From); err != nil {
			return err
		}
	}
	err := os.WriteFile(filepath.Join("/proc/sys", s.Key), []byte(s.To), 0)
	if s.Forget && errors.Is(err, os.ErrNotExist) {
		err = nil // the device is gone, and so are its sysctls
	}
	switch {
	case s.Save && err != nil:
		err = errors.Join(err, k.forgetSysctl(s.Key))
	case s.Forget && err == nil:
		if err := k.forgetSysctl(s.Key); err != nil {
			return &Unrecorded{err}
		}
	}
	return err
}
