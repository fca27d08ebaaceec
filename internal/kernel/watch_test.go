//go:build !openwrt

package kernel

import (
	"encoding/binary"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// TestConcerns: messages about what a relay needs are told apart from those about anything else.
func TestConcerns(t *testing.T) {
	attr := func(kind int, value []byte) []byte { return nl.NewRtAttr(kind, value).Serialize() }
	rtm := func(family, bits, protocol byte) []byte {
		return []byte{family, bits, 0, 0, 254, protocol, 0, 1, 0, 0, 0, 0}
	}
	link := func(family byte, kind string) []byte {
		info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
		info.AddRtAttr(nl.IFLA_INFO_KIND, nl.ZeroTerminated(kind))
		return append(append([]byte{family}, make([]byte, unix.SizeofIfInfomsg-1)...), info.Serialize()...)
	}
	forwarding := func(on uint32) []byte {
		value := attr(netconfaForwarding, binary.NativeEndian.AppendUint32(nil, on))
		return append([]byte{unix.AF_INET, 0, 0, 0}, value...)
	}
	address := func(flags byte, created, updated uint32) []byte { // struct ifaddrmsg, ifa_cacheinfo
		cache := make([]byte, 8)
		for _, ticks := range []uint32{created, updated} {
			cache = binary.NativeEndian.AppendUint32(cache, ticks)
		}
		return append([]byte{unix.AF_INET6, 64, flags, 0, 2, 0, 0, 0}, attr(unix.IFA_CACHEINFO, cache)...)
	}
	for _, c := range []struct {
		what string
		kind uint16
		data []byte
		want bool
	}{
		{"a tunnel is gone", unix.RTM_DELLINK, link(unix.AF_UNSPEC, "ip6tnl"), true},
		{"a device came up", unix.RTM_NEWLINK, link(unix.AF_UNSPEC, ""), true},
		{"a container's device", unix.RTM_NEWLINK, link(unix.AF_UNSPEC, "veth"), false},
		{"a bridge's port", unix.RTM_NEWLINK, link(unix.AF_BRIDGE, ""), false},
		{"an address is gone", unix.RTM_DELADDR, []byte{unix.AF_INET6, 128, 0, 0, 2, 0, 0, 0}, true},
		{"a router advertisement", unix.RTM_NEWADDR, []byte{unix.AF_INET6, 64, 0, 0, 2, 0, 0, 0}, false},
		{"an address that was renewed", unix.RTM_NEWADDR, address(0, 1000, 5000), false},
		{"an address that has come", unix.RTM_NEWADDR, address(0, 1000, 1000), true},
		{"an address that is tried", unix.RTM_NEWADDR, address(unix.IFA_F_TENTATIVE, 1000, 1000), false},
		{"an address of a prefix that was taken back", unix.RTM_NEWADDR, address(unix.IFA_F_DEPRECATED, 1000, 5000), true},
		{"an IPv4 address", unix.RTM_NEWADDR, []byte{unix.AF_INET, 24, 0, 0, 2, 0, 0, 0}, true},
		{"our route is gone", unix.RTM_DELROUTE, rtm(unix.AF_INET, 32, 46), true},
		{"our route", unix.RTM_NEWROUTE, rtm(unix.AF_INET, 32, 46), false},
		{"another route", unix.RTM_DELROUTE, rtm(unix.AF_INET, 24, 186), false},
		{"IPv6's default route", unix.RTM_NEWROUTE, rtm(unix.AF_INET6, 0, 9), true},
		{"our rule is " +
			"gone", unix.RTM_DELRULE, append(rtm(unix.AF_INET, 0, 0), attr(nl.FRA_PROTOCOL, []byte{46})...), true},
		{"another rule", unix.RTM_DELRULE, append(rtm(unix.AF_INET, 0, 0), attr(nl.FRA_PROTOCOL, []byte{3})...), false},
		{"forwarding is off", unix.RTM_NEWNETCONF, forwarding(0), true},
		{"forwarding is on", unix.RTM_NEWNETCONF, forwarding(1), false},
		{"nothing", unix.RTM_NEWROUTE, nil, false},
	} {
		m := syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: c.kind}, Data: c.data}
		if got := concernsRoutes(m); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}

	var all transaction
	nft := func(kind int, family byte, table string) (Change, bool) {
		data := append([]byte{family, 0, 0, 0}, attr(1, nl.ZeroTerminated(table))...)
		header := syscall.NlMsghdr{Type: uint16(unix.NFNL_SUBSYS_NFTABLES<<8 | kind)}
		return all.add(syscall.NetlinkMessage{Header: header, Data: data})
	}
	for _, c := range []struct {
		kind         int
		family       byte
		table        string
		want, urgent bool
	}{
		{unix.NFT_MSG_DELTABLE, unix.NFPROTO_IPV4, "ds4relay", true, true},
		{unix.NFT_MSG_NEWRULE, unix.NFPROTO_IPV4, "ds4relay_flows", true, false},
		{unix.NFT_MSG_DELTABLE, unix.NFPROTO_INET, "ds4relay", false, false},
		{unix.NFT_MSG_NEWSETELEM, unix.NFPROTO_INET, "crowdsec", false, false},
		{unix.NFT_MSG_NEWCHAIN, unix.NFPROTO_IPV6, "filter", true, false},
		{unix.NFT_MSG_NEWSETELEM, unix.NFPROTO_IPV4, "filter", false, false},
	} {
		if _, ok := nft(c.kind, c.family, c.table); ok {
			t.Errorf("%v: told before its end", c)
		}
		end := []byte{0, 0, 0, 0}
		change, ok := all.add(syscall.NetlinkMessage{Header: syscall.NlMsghdr{
			Type: uint16(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN)}, Data: end})
		if ok != c.want || change.Urgent != c.urgent {
			t.Errorf("%v: told %v, urgent %v", c, ok, change.Urgent)
		}
	}
}
