package probe

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/doctor"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/state"
)

// followTable exists only while a packet is followed. It makes the kernel report each chain that a packet of ADDR
// traverses (nft(8), nftrace), also inside the tunnel: the inner addresses are 52 and 56 bytes after the start of the
// outer header, and eight bytes later with an encapsulation limit.
const (
	followName  = "ds4relay_doctor"
	followTable = `table ip NAME
delete table ip NAME
table ip6 NAME
delete table ip6 NAME
table ip NAME {
	chain followed { meta nftrace set 1; }
	chain prerouting {
		type filter hook prerouting priority -500;
		ip saddr ADDR jump followed
		ip daddr ADDR jump followed
	}
	chain output {
		type filter hook output priority -500;
		ip saddr ADDR jump followed
		ip daddr ADDR jump followed
	}
}
table ip6 NAME {
	chain followed { meta nftrace set 1; }
	chain tunnel {
		@nh,416,32 HEX jump followed
		@nh,448,32 HEX jump followed
		@nh,480,32 HEX jump followed
		@nh,512,32 HEX jump followed
	}
	chain prerouting { type filter hook prerouting priority -500; meta l4proto 4 jump tunnel; }
	chain output { type filter hook output priority -500; meta l4proto 4 jump tunnel; }
}
`
	// followPort does the same for UDP packets from or to PORT.
	followPort = `table FAMILY NAME
delete table FAMILY NAME
table FAMILY NAME {
	chain followed { meta nftrace set 1; }
	chain prerouting {
		type filter hook prerouting priority -500;
		udp dport PORT jump followed
		udp sport PORT jump followed
	}
	chain output {
		type filter hook output priority -500;
		udp dport PORT jump followed
		udp sport PORT jump followed
	}
}
`
	unfollow = "delete table ip NAME\ndelete table ip6 NAME\n"
)

// Numbers of linux/netfilter/nf_tables.h and nfnetlink.h.
const (
	nfTables     = 10 // NFNL_SUBSYS_NFTABLES
	msgTrace     = 17 // NFT_MSG_TRACE
	groupTrace   = 9  // NFNLGRP_NFTRACE
	traceTable   = 1
	traceChain   = 2
	traceType    = 4
	traceVerdict = 5
	tracePolicy  = 16
	verdictCode  = 1
	typePolicy   = 1
	typeRule     = 3
	maxVerdicts  = 1000 // read at most
)

// following is a packet being followed.
type following struct{ socket *nl.NetlinkSocket }

// ours reports from nft's listing whether a table named like followTable was left by a doctor.
func ours(listing string) bool {
	return strings.Contains(listing, "chain followed {") && strings.Contains(listing, "nftrace set 1")
}

// follow returns nil if nft cannot do that, or somebody else has a table of that name. Then it is known where a packet
// was dropped, but not by which chain. With a port it follows UDP packets from or to that.
func follow(addr netip.Addr, port uint16) *following {
	for _, family := range []string{"ip", "ip6"} {
		if listing, err := kernel.Nft("", "list", "table", family, followName); err == nil && !ours(listing) {
			return nil
		}
	}
	socket, err := nl.Subscribe(unix.NETLINK_NETFILTER, groupTrace)
	if err != nil {
		return nil
	}
	ruleset := ""
	for _, family := range []string{"ip", "ip6"} {
		ruleset += strings.NewReplacer("FAMILY", family, "NAME", followName, "PORT", strconv.Itoa(int(port))).
			Replace(followPort)
	}
	if port == 0 {
		ruleset = strings.NewReplacer("NAME", followName, "ADDR", addr.String(), "HEX",
			fmt.Sprintf("%#x", addr.As4())).Replace(followTable)
	}
	if _, err := kernel.Nft(ruleset, "-f", "-"); err != nil {
		socket.Close()
		return nil
	}
	return &following{socket}
}

// end removes the table and returns the verdicts of the chains.
func (f *following) end() []doctor.Verdict {
	defer f.socket.Close()
	kernel.Nft(strings.ReplaceAll(unfollow, "NAME", followName), "-f", "-")
	f.socket.SetReceiveTimeout(&unix.Timeval{Usec: 20000})
	var verdicts []doctor.Verdict
	for len(verdicts) < maxVerdicts {
		messages, _, err := f.socket.Receive()
		if err != nil {
			break
		}
		for _, m := range messages {
			if v, ok := verdict(m.Header.Type, m.Data); ok {
				verdicts = append(verdicts, v)
			}
		}
	}
	hints := map[[2]string]string{}
	for i := range verdicts {
		v := &verdicts[i]
		key := [2]string{v.Family, v.Table}
		if _, known := hints[key]; !known {
			hints[key] = hint(v.Family, v.Table)
		}
		v.Hint = hints[key]
	}
	return verdicts
}

var families = map[uint8]string{unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6",
	unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_NETDEV: "netdev"}

// verdict reads one message about a rule or policy that decided.
func verdict(kind uint16, data []byte) (v doctor.Verdict, ok bool) {
	if kind != nfTables<<8|msgTrace || len(data) < nl.SizeofNfgenmsg {
		return v, false
	}
	attrs, err := nl.ParseRouteAttr(data[nl.SizeofNfgenmsg:])
	if err != nil {
		return v, false
	}
	v.Family = families[data[0]]
	var what uint32
	code := int32(-1)
	for _, a := range attrs {
		switch a.Attr.Type &^ unix.NLA_F_NESTED {
		case traceTable:
			v.Table = unix.ByteSliceToString(a.Value)
		case traceChain:
			v.Chain = unix.ByteSliceToString(a.Value)
		case traceType:
			what = binary.BigEndian.Uint32(a.Value)
		case tracePolicy:
			code = int32(binary.BigEndian.Uint32(a.Value))
		case traceVerdict:
			nested, err := nl.ParseRouteAttr(a.Value)
			if err != nil {
				return v, false
			}
			for _, n := range nested {
				if n.Attr.Type == verdictCode {
					code = int32(binary.BigEndian.Uint32(n.Value))
				}
			}
		}
	}
	v.Policy, v.Drop = what == typePolicy, code == 0
	return v, v.Table != followName && (what == typeRule || what == typePolicy) && (code == 0 || code == 1)
}

// hint guesses the owner of a table from the names of its chains.
func hint(family, table string) string {
	switch table {
	case state.TableName, state.FlowTableName:
		return ""
	case "fw4", "firewalld":
		return table
	}
	text, err := kernel.Nft("", "-t", "list", "table", family, table)
	if err != nil {
		return ""
	}
	if strings.Contains(text, "chain DOCKER") {
		return "docker"
	}
	return ""
}
