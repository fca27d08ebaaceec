package kernel

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/state"
)

// endFlows deletes entries of connection tracking (linux/netfilter/nfnetlink_conntrack.h). Without the module
// nf_conntrack_netlink this is not possible: connections then end at the other end of the tunnel, or by time-out.
func endFlows(step state.EndFlows) error {
	ends := step.Ender()
	var doomed, adopted [][]byte
	err := eachFlow(func(f state.Flow, identity []byte) {
		if ends(f) {
			doomed = append(doomed, identity)
		} else if mark := step.Adopted(f); mark != 0 {
			adopted = append(adopted,
				slices.Concat(identity, nl.NewRtAttr(nl.CTA_MARK, nl.BEUint32Attr(mark)).Serialize(),
					nl.NewRtAttr(ctaMarkMask, nl.BEUint32Attr(config.MarkMask)).Serialize()))
		}
	}, func() { doomed, adopted = nil, nil })
	if errors.Is(err, errNoConntrack) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, identity := range doomed {
		req := conntrack(nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK)
		req.AddRawData(identity)
		_, err := req.Execute(unix.NETLINK_NETFILTER, 0)
		switch {
		case isErrno(err, unix.EBUSY): // ctnetlink_del_conntrack, before 2023's commit 9b7c68b3911a
			return message.New("end a connection: %v: a flowtable has it, and kernels before Linux 6.1.32 do not let "+
				"it go; update the kernel, or turn offloading off before: option flow_offloading '0'", err)
		case err != nil && !isErrno(err, unix.ENOENT): // ended by itself
			return message.New("end a connection: %v", err)
		}
	}
	for _, change := range adopted {
		req := conntrack(nl.IPCTNL_MSG_CT_NEW, unix.NLM_F_ACK)
		req.AddRawData(change)
		if _, err := req.Execute(unix.NETLINK_NETFILTER, 0); err != nil && !isErrno(err, unix.ENOENT) {
			return message.New("mark a connection: %v", err)
		}
	}
	return nil
}

// ctaMarkMask is CTA_MARK_MASK of linux/netfilter/nfnetlink_conntrack.h.
const ctaMarkMask = 21

// Bits of a connection's status: IPS_SEEN_REPLY, IPS_ASSURED and IPS_DYING of linux/netfilter/nf_conntrack_common.h.
const (
	statusSeenReply = 1 << 1
	statusAssured   = 1 << 2
	statusDying     = 1 << 9
)

// errNoConntrack is returned where the kernel has no interface to its connections.
var errNoConntrack = message.New("the kernel does not list its connections; the module nf_conntrack_netlink does")

// Flows calls f for each IPv4 connection that the kernel tracks. It calls restart before each try: if the table changed
// meanwhile, it begins again.
func Flows(f func(state.Flow), restart func()) error {
	return eachFlow(func(flow state.Flow, _ []byte) { f(flow) }, restart)
}

// eachFlow also passes the attributes that identify an entry. It calls restart before each try.
func eachFlow(f func(flow state.Flow, identity []byte), restart func()) error {
	_, err := dump(func() ([]struct{}, error) {
		restart()
		var parseErr error
		err := conntrack(nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP).ExecuteIter(unix.NETLINK_NETFILTER, 0,
			func(m []byte) bool {
				var flow state.Flow
				var identity []byte
				if flow, identity, parseErr = parseFlow(m); parseErr == nil {
					f(flow, identity)
				}
				return parseErr == nil
			})
		if err == nil {
			err = parseErr
		}
		return nil, err
	})
	if isErrno(err, unix.EINVAL, unix.EOPNOTSUPP, unix.ENOENT, unix.EPROTONOSUPPORT) {
		return errNoConntrack
	}
	if err != nil {
		return message.New("list connections: %v", err)
	}
	return nil
}

func conntrack(message, flags int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|message, flags)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_INET, Version: nl.NFNETLINK_V0})
	return req
}

// parseFlow returns an entry, and the attributes that identify it: its first tuple, zone and number.
func parseFlow(m []byte) (flow state.Flow, identity []byte, err error) {
	if len(m) < nl.SizeofNfgenmsg {
		return flow, nil, message.New("a short message of %d bytes", len(m))
	}
	var status uint64
	err = eachAttribute(m[nl.SizeofNfgenmsg:], func(kind uint16, value, whole []byte) error {
		switch kind {
		case nl.CTA_TUPLE_ORIG:
			identity = append(identity, whole...)
			t, err := parseTuple(value)
			flow.Proto, flow.Src, flow.Dst, flow.DstPort = t.proto, t.src, t.dst, t.dstPort
			return err
		case nl.CTA_TUPLE_REPLY:
			t, err := parseTuple(value)
			flow.AnswerSrc, flow.AnswerPort, flow.AnswerDst = t.src, t.srcPort, t.dst
			return err
		case nl.CTA_COUNTERS_ORIG:
			flow.Counted = true
			return parseTraffic(value, &flow.In)
		case nl.CTA_COUNTERS_REPLY:
			flow.Counted = true
			return parseTraffic(value, &flow.Out)
		case nl.CTA_ZONE, nl.CTA_ID:
			identity = append(identity, whole...)
		case nl.CTA_MARK:
			flow.Mark = uint32(number(value, 4))
		case nl.CTA_STATUS:
			status = number(value, 4)
		}
		return nil
	})
	flow.Dying = status&statusDying != 0
	flow.Answered = status&statusAssured != 0 || status&statusSeenReply != 0 && flow.Proto != unix.IPPROTO_TCP
	return flow, identity, err
}

// eachAttribute calls f for each netlink attribute, with its type, its value, and all of it. Maps of attributes would
// take longer than all else that is done with a connection.
func eachAttribute(b []byte, f func(kind uint16, value, whole []byte) error) error {
	for len(b) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			break
		}
		next := min((size+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1), len(b))
		kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		if err := f(kind, b[unix.SizeofRtAttr:size], b[:next]); err != nil {
			return err
		}
		b = b[next:]
	}
	if len(b) > 0 {
		return message.New("a short message of %d bytes", len(b)) // cut off
	}
	return nil
}

// number is a number of some bytes in network order, or 0 if there are others.
func number(b []byte, bytes int) (n uint64) {
	if len(b) != bytes {
		return 0
	}
	for _, digit := range b {
		n = n<<8 | uint64(digit)
	}
	return n
}

func parseTraffic(nested []byte, traffic *state.Traffic) error {
	return eachAttribute(nested, func(kind uint16, value, _ []byte) error {
		switch kind {
		case nl.CTA_COUNTERS_PACKETS:
			traffic.Packets = number(value, 8)
		case nl.CTA_COUNTERS_BYTES:
			traffic.Bytes = number(value, 8)
		}
		return nil
	})
}

type tuple struct {
	proto            uint8
	src, dst         netip.Addr
	srcPort, dstPort uint16
}

// protoSrcPort is CTA_PROTO_SRC_PORT.
const protoSrcPort = 2

func parseTuple(nested []byte) (t tuple, err error) {
	err = eachAttribute(nested, func(kind uint16, value, _ []byte) error {
		switch kind {
		case nl.CTA_TUPLE_IP:
			return eachAttribute(value, func(kind uint16, value, _ []byte) error {
				switch kind {
				case nl.CTA_IP_V4_SRC:
					t.src, _ = netip.AddrFromSlice(value)
				case nl.CTA_IP_V4_DST:
					t.dst, _ = netip.AddrFromSlice(value)
				}
				return nil
			})
		case nl.CTA_TUPLE_PROTO:
			return eachAttribute(value, func(kind uint16, value, _ []byte) error {
				switch kind {
				case nl.CTA_PROTO_NUM:
					t.proto = uint8(number(value, 1))
				case protoSrcPort:
					t.srcPort = uint16(number(value, 2))
				case nl.CTA_PROTO_DST_PORT:
					t.dstPort = uint16(number(value, 2))
				}
				return nil
			})
		}
		return nil
	})
	return t, err
}

// Connections is the number of connection tracking entries, and their limit.
type Connections struct {
	Count int `json:"count"`
	Max   int `json:"max"`
}

// CountConnections reads them; it returns nil if the kernel tracks no connections.
func CountConnections() *Connections {
	read := func(name string) int {
		data, err := os.ReadFile("/proc/sys/net/netfilter/" + name)
		if err != nil {
			return 0
		}
		n, _ := strconv.Atoi(strings.TrimSpace(string(data)))
		return n
	}
	c := Connections{read("nf_conntrack_count"), read("nf_conntrack_max")}
	if c.Max == 0 {
		return nil
	}
	return &c
}
