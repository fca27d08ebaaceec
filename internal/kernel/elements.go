package kernel

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/state"
)

// elements reads the elements of a set. Maps of attributes would take longer than all else that is done with them.
func elements(family uint8, set state.Set) ([]state.Element, error) {
	return dump(func() (list []state.Element, err error) {
		req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP)
		req.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
		req.AddData(nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_TABLE, nl.ZeroTerminated(state.TableName)))
		req.AddData(nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_SET, nl.ZeroTerminated(set.Name)))
		var parseErr error
		err = req.ExecuteIter(unix.NETLINK_NETFILTER, 0, func(m []byte) bool {
			list, parseErr = appendElements(list, m, &set)
			return parseErr == nil
		})
		return list, cmp.Or(err, parseErr)
	})
}

// appendElements reads a message with elements.
func appendElements(list []state.Element, m []byte, set *state.Set) ([]state.Element, error) {
	if len(m) < nl.SizeofNfgenmsg {
		return list, message.New("a short message of %d bytes", len(m))
	}
	err := eachAttribute(m[nl.SizeofNfgenmsg:], func(kind uint16, value, _ []byte) error {
		if kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return nil
		}
		return eachAttribute(value, func(_ uint16, item, _ []byte) error {
			e, err := decode(item, set)
			list = append(list, e)
			return err
		})
	})
	return list, err
}

// nftaSetElemKeyEnd is NFTA_SET_ELEM_KEY_END of linux/netfilter/nf_tables.h: the end of an interval element.
const nftaSetElemKeyEnd = 10

// fieldSizes are the types' sizes in bytes.
var fieldSizes = map[state.Type]int{state.IPv4: 4, state.IPv6: 16, state.Proto: 1, state.Service: 2, state.IfName: 16,
	state.CtState: 4}

// ctStates are the bits of a connection's state (NF_CT_STATE_BIT).
var ctStates = map[uint32]string{1: "invalid", 2: "established", 4: "related", 8: "new", 64: "untracked"}

// errElement is returned for an element that our sets never have: another program has added it.
var errElement = errors.New("an nft element that is none of ours")

// decode reads an element of a set: consecutive fields of the key and the value, each padded to four bytes.
func decode(item []byte, set *state.Set) (e state.Element, err error) {
	var first, last, value, code, chain []byte
	err = eachAttribute(item, func(kind uint16, nested, _ []byte) error {
		switch kind {
		case unix.NFTA_SET_ELEM_KEY:
			return datum(nested, &first)
		case nftaSetElemKeyEnd: // of an element of intervals
			return datum(nested, &last)
		case unix.NFTA_SET_ELEM_DATA:
			return eachAttribute(nested, func(kind uint16, data, _ []byte) error {
				if kind == unix.NFTA_DATA_VALUE {
					value = data
					return nil
				}
				return eachAttribute(data, func(kind uint16, data, _ []byte) error { // NFTA_DATA_VERDICT
					if kind == unix.NFTA_VERDICT_CODE {
						code = data
					} else {
						chain = data
					}
					return nil
				})
			})
		}
		return nil
	})
	if err != nil {
		return e, err
	}
	if last == nil {
		last = first
	}
	ok := true
	for i, t := range set.Key {
		again := slices.Contains(set.Key[:i], t)
		var low, high []byte
		if low, first = field(t, first); low == nil {
			return e, errElement
		}
		if high, last = field(t, last); high == nil {
			return e, errElement
		}
		ranges := t == state.Service || t == state.IPv4 && again
		if !ranges && !bytes.Equal(low, high) {
			return e, errElement
		}
		switch {
		case t == state.Proto:
			e.Key.Proto = low[0]
		case t == state.Service:
			e.Key.First, e.Key.Last = binary.BigEndian.Uint16(low), binary.BigEndian.Uint16(high)
		case t == state.IfName && again:
			e.Key.Other, ok = deviceName(low)
		case t == state.IfName:
			e.Key.Device, ok = deviceName(low)
		case t == state.CtState:
			e.Key.CtState, ok = ctStates[binary.NativeEndian.Uint32(low)]
		case again:
			e.Key.Client, ok = network(low, high)
		default:
			e.Key.Addr, _ = netip.AddrFromSlice(low)
		}
		if !ok {
			return e, errElement
		}
	}
	if set.Value == nil {
		return e, nil
	}
	if set.Value[0] == state.Verdict {
		e.Value.Verdict, err = verdict(code, chain)
		return e, err
	}
	for _, t := range set.Value {
		var b []byte
		if b, value = field(t, value); b == nil {
			return e, errElement
		}
		if t == state.Service {
			e.Value.Port = binary.BigEndian.Uint16(b)
		} else {
			e.Value.Addr, _ = netip.AddrFromSlice(b)
		}
	}
	return e, nil
}

// deviceName returns a device's name, if nft can read it: it has no escape for a double quote.
func deviceName(b []byte) (string, bool) {
	name := text(b)
	return name, !strings.Contains(name, `"`)
}

// datum finds the value of a nested attribute of a key (NFTA_DATA_VALUE).
func datum(nested []byte, data *[]byte) error {
	return eachAttribute(nested, func(kind uint16, value, _ []byte) error {
		if kind == unix.NFTA_DATA_VALUE {
			*data = value
		}
		return nil
	})
}

// field cuts off a field of a type; it returns nil if too few bytes are left.
func field(t state.Type, data []byte) (b, rest []byte) {
	size := fieldSizes[t]
	if size == 0 || len(data) < size {
		return nil, nil
	}
	return data[:size], data[min(len(data), (size+3)&^3):]
}

// network returns the IPv4 addresses from first to last as a network, if they are one.
func network(first, last []byte) (netip.Prefix, bool) {
	a, b := binary.BigEndian.Uint32(first), binary.BigEndian.Uint32(last)
	hosts := a ^ b
	addr, ok := netip.AddrFromSlice(first)
	return netip.PrefixFrom(addr, bits.LeadingZeros32(hosts)), ok && hosts&(hosts+1) == 0 && a&hosts == 0
}

// Verdicts with a chain, as they are in nft and in an element (NFTA_VERDICT_CODE; linux/netfilter/nf_tables.h).
const (
	gotoChain = "goto "
	jumpChain = "jump "
	accept    = 1 // NF_ACCEPT
)

// verdict decodes the value of a verdict map.
func verdict(code, chain []byte) (string, error) {
	if len(code) != 4 {
		return "", message.New("an nft verdict without a code")
	}
	switch code := int32(binary.BigEndian.Uint32(code)); code {
	case unix.NFT_GOTO:
		return gotoChain + text(chain), nil
	case unix.NFT_JUMP:
		return jumpChain + text(chain), nil
	case accept:
		return "accept", nil
	default:
		return "", errElement
	}
}

// maxElements is how many bytes of elements one message has at most. An attribute has a length of 16 bits.
const maxElements = 32 << 10

// changeElements changes elements in one transaction, as nft would, which takes much longer for many.
func changeElements(changes []state.SetChange) error {
	if len(changes) == 0 {
		return nil
	}
	b := batch{bytes: nftMessage(nil, unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)}
	intervals := map[string]map[string]bool{} // family → names of sets
	for i := range changes {
		c := &changes[i]
		if intervals[c.Family] == nil {
			sets, err := intervalSets(c.Family)
			if err != nil {
				return message.New("change elements of nft's sets: %v", err)
			}
			intervals[c.Family] = sets
		}
		b.interval = intervals[c.Family][c.Set.Name]
		b.add(c, unix.NFT_MSG_DELSETELEM, c.Gone)
		b.add(c, unix.NFT_MSG_NEWSETELEM, c.Added)
	}
	b.acknowledge()
	return transact(nftMessage(b.bytes, unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES))
}

// intervalSets returns the names of those sets whose elements are intervals, also where they have one value.
func intervalSets(family string) (map[string]bool, error) {
	table := nl.NewRtAttr(unix.NFTA_SET_TABLE, nl.ZeroTerminated(state.TableName))
	sets, err := nftDump(unix.NFT_MSG_GETSET, families[family], table)
	names := map[string]bool{}
	for _, set := range sets {
		if text(set[unix.NFTA_SET_TABLE]) == state.TableName {
			names[text(set[unix.NFTA_SET_NAME])] = number(set[unix.NFTA_SET_FLAGS], 4)&unix.NFT_SET_INTERVAL != 0
		}
	}
	return names, err
}

// batch is messages of one transaction.
type batch struct {
	bytes    []byte
	last     int  // where the last message begins
	interval bool // of the set whose elements are added
}

// nftMessage appends the header of a message without attributes (linux/netfilter/nfnetlink.h).
func nftMessage(b []byte, kind, flags uint16, family uint8, resource uint16) []byte {
	b = binary.NativeEndian.AppendUint32(b, unix.NLMSG_HDRLEN+nl.SizeofNfgenmsg)
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // number, and sender
	b = append(b, family, nl.NFNETLINK_V0)
	return binary.BigEndian.AppendUint16(b, resource)
}

// add appends messages that add or delete elements.
func (b *batch) add(c *state.SetChange, kind uint16, elements []state.Element) {
	for len(elements) > 0 {
		b.last = len(b.bytes)
		flags := uint16(0)
		if kind == unix.NFT_MSG_NEWSETELEM {
			flags = unix.NLM_F_CREATE
		}
		b.bytes = nftMessage(b.bytes, unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags, families[c.Family], 0)
		b.value(unix.NFTA_SET_ELEM_LIST_TABLE, nl.ZeroTerminated(state.TableName)...)
		b.value(unix.NFTA_SET_ELEM_LIST_SET, nl.ZeroTerminated(c.Set.Name)...)
		list := b.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		for len(elements) > 0 && len(b.bytes)-list < maxElements {
			b.element(c, &elements[0], kind == unix.NFT_MSG_NEWSETELEM)
			elements = elements[1:]
		}
		b.end(list)
		binary.NativeEndian.PutUint32(b.bytes[b.last:], uint32(len(b.bytes)-b.last))
	}
}

// acknowledge makes the kernel answer the last message.
func (b *batch) acknowledge() {
	flags := b.bytes[b.last+6:]
	binary.NativeEndian.PutUint16(flags, binary.NativeEndian.Uint16(flags)|unix.NLM_F_ACK)
}

// nest begins an attribute; end ends it.
func (b *batch) nest(kind uint16) (place int) {
	b.bytes = binary.NativeEndian.AppendUint16(append(b.bytes, 0, 0), kind|unix.NLA_F_NESTED)
	return len(b.bytes) - unix.SizeofRtAttr
}

func (b *batch) end(place int) {
	binary.NativeEndian.PutUint16(b.bytes[place:], uint16(len(b.bytes)-place))
	b.pad()
}

// pad fills up to four bytes: all that comes before has such a length.
func (b *batch) pad() {
	for len(b.bytes)%unix.NLA_ALIGNTO != 0 {
		b.bytes = append(b.bytes, 0)
	}
}

func (b *batch) value(kind uint16, value ...byte) {
	b.bytes = binary.NativeEndian.AppendUint16(b.bytes, uint16(unix.SizeofRtAttr+len(value)))
	b.bytes = append(binary.NativeEndian.AppendUint16(b.bytes, kind), value...)
	b.pad()
}

func (b *batch) element(c *state.SetChange, e *state.Element, add bool) {
	item := b.nest(unix.NFTA_LIST_ELEM)
	b.key(unix.NFTA_SET_ELEM_KEY, &c.Set, &e.Key, false)
	if b.interval {
		b.key(nftaSetElemKeyEnd, &c.Set, &e.Key, true)
	}
	if add && c.Set.Value != nil {
		data := b.nest(unix.NFTA_SET_ELEM_DATA)
		if c.Set.Value[0] == state.Verdict {
			b.verdict(e.Value.Verdict)
		} else {
			value := b.nest(unix.NFTA_DATA_VALUE)
			for _, t := range c.Set.Value {
				if t == state.Service {
					b.bytes = binary.BigEndian.AppendUint16(b.bytes, e.Value.Port)
				} else {
					b.bytes = append(b.bytes, e.Value.Addr.AsSlice()...)
				}
				b.pad()
			}
			b.end(value)
		}
		b.end(data)
	}
	b.end(item)
}

// key appends the first or the last of the keys that an element has.
func (b *batch) key(kind uint16, set *state.Set, k *state.Key, last bool) {
	outer := b.nest(kind)
	value := b.nest(unix.NFTA_DATA_VALUE)
	for i, t := range set.Key {
		again := slices.Contains(set.Key[:i], t)
		switch {
		case t == state.Proto:
			b.bytes = append(b.bytes, k.Proto)
		case t == state.Service && last:
			b.bytes = binary.BigEndian.AppendUint16(b.bytes, k.Last)
		case t == state.Service:
			b.bytes = binary.BigEndian.AppendUint16(b.bytes, k.First)
		case t == state.IfName:
			name := k.Device
			if again {
				name = k.Other
			}
			b.bytes = append(append(b.bytes, name...), make([]byte, max(unix.IFNAMSIZ-len(name), 0))...)
		case t == state.CtState:
			for bit, name := range ctStates {
				if name == k.CtState {
					b.bytes = binary.NativeEndian.AppendUint32(b.bytes, bit)
				}
			}
		case again:
			hosts := uint32(0)
			if last {
				hosts = 1<<(32-k.Client.Bits()) - 1
			}
			first := k.Client.Addr().As16() // an IPv4 address is at the end
			b.bytes = binary.BigEndian.AppendUint32(b.bytes, binary.BigEndian.Uint32(first[12:])|hosts)
		default:
			b.bytes = append(b.bytes, k.Addr.AsSlice()...)
		}
		b.pad()
	}
	b.end(value)
	b.end(outer)
}

func (b *batch) verdict(verdict string) {
	place := b.nest(unix.NFTA_DATA_VERDICT)
	code, chain := int32(accept), ""
	if name, ok := strings.CutPrefix(verdict, gotoChain); ok {
		code, chain = unix.NFT_GOTO, name
	} else if name, ok := strings.CutPrefix(verdict, jumpChain); ok {
		code, chain = unix.NFT_JUMP, name
	}
	b.value(unix.NFTA_VERDICT_CODE, binary.BigEndian.AppendUint32(nil, uint32(code))...)
	if chain != "" {
		b.value(unix.NFTA_VERDICT_CHAIN, nl.ZeroTerminated(chain)...)
	}
	b.end(place)
}

// transact sends a transaction, whose last message but one asks for an answer, and returns its first error. The kernel
// has answered when it has taken the messages (nfnetlink_rcv_batch in net/netfilter/nfnetlink.c).
func transact(messages []byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// All must fit at once. Root may have as much as it wants.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, len(messages)) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, len(messages))
	}
	err = unix.Sendto(fd, messages, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err == nil {
		err = answered(fd)
	}
	if err != nil {
		return message.New("change elements of nft's sets: %v", err)
	}
	return nil
}

// answered returns the error of the kernel's first answer.
func answered(fd int) error {
	answer := make([]byte, 4096) // more than an error with the header of its message
	n, _, err := unix.Recvfrom(fd, answer, unix.MSG_DONTWAIT)
	if err != nil {
		return err
	}
	if n < unix.NLMSG_HDRLEN+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return message.New("a short message of %d bytes", n)
	}
	if number := int32(binary.NativeEndian.Uint32(answer[unix.NLMSG_HDRLEN:])); number != 0 {
		return unix.Errno(-number)
	}
	return nil
}
