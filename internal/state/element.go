package state

import (
	"cmp"
	"net/netip"
	"sort"
	"strconv"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
)

// Element is an element of a set or map. Only those fields of its key and value count that the set's types name.
type Element struct {
	Key   Key
	Value Value
}

// Key is the key of an element. In a set with two addresses the second one is a client; a set with two devices has two
// names of the same kind.
type Key struct {
	Device, Other string // IfName
	CtState       string // CtState: new, established
	Addr          netip.Addr
	Client        netip.Prefix
	Proto         uint8
	First, Last   uint16 // Service: ports from First to Last, both included
}

// Value is the value of a map's element.
type Value struct {
	Addr    netip.Addr
	Port    uint16
	Verdict string // accept, or goto and the name of a chain
}

// protoKey returns a key with an address and a protocol.
func protoKey(addr netip.Addr, proto uint8) Key { return Key{Addr: addr, Proto: proto} }

// at returns the key for one port.
func (k Key) at(port uint16) Key { return k.between(port, port) }

// between returns the key for a range of ports.
func (k Key) between(first, last uint16) Key {
	k.First, k.Last = first, last
	return k
}

// from returns the key for a client or a network of clients.
func (k Key) from(client netip.Prefix) Key {
	k.Client = client
	return k
}

// by returns the key for packets of a device.
func (k Key) by(device string) Key {
	k.Device = device
	return k
}

// contains reports whether a packet's key lies within the key, which may have a range of ports and a network of
// clients.
func (k Key) contains(packet Key) bool {
	return k.Addr == packet.Addr && k.Proto == packet.Proto && k.First <= packet.First && packet.Last <= k.Last &&
		(!k.Client.IsValid() || k.Client.Contains(packet.Client.Addr()))
}

// text formats the fields of these types like nft(8).
func (k Key) text(types []Type) string {
	var words []string
	addrs, devices := []string{k.Addr.String(), clientText(k.Client)}, []string{quote(k.Device), quote(k.Other)}
	for _, t := range types {
		switch t {
		case IPv4, IPv6:
			words, addrs = append(words, addrs[0]), addrs[1:]
		case IfName:
			words, devices = append(words, devices[0]), devices[1:]
		case Proto:
			words = append(words, config.ProtoName(k.Proto))
		case Service:
			words = append(words, portText(k.First, k.Last))
		case CtState:
			words = append(words, k.CtState)
		}
	}
	return strings.Join(words, concatenation)
}

func (v Value) text(types []Type) string {
	var words []string
	for _, t := range types {
		switch t {
		case IPv4:
			words = append(words, v.Addr.String())
		case Service:
			words = append(words, strconv.Itoa(int(v.Port)))
		case Verdict:
			words = append(words, v.Verdict)
		}
	}
	return strings.Join(words, concatenation)
}

// concatenation separates the fields of a key or a value (nft(8), "Concatenations").
const concatenation = " . "

// text formats the element like nft(8) does in the set.
func (e Element) text(s Set) string {
	if s.Value == nil {
		return e.Key.text(s.Key)
	}
	return e.Key.text(s.Key) + " : " + e.Value.text(s.Value)
}

// compare orders keys.
func (k Key) compare(other Key) int {
	return cmp.Or(strings.Compare(k.Device, other.Device), strings.Compare(k.Other, other.Other),
		strings.Compare(k.CtState, other.CtState), k.Addr.Compare(other.Addr),
		k.Client.Addr().Compare(other.Client.Addr()), k.Client.Bits()-other.Client.Bits(),
		int(k.Proto)-int(other.Proto), int(k.First)-int(other.First), int(k.Last)-int(other.Last))
}

// distinct sorts the elements in place and keeps the first of each key. There may be many.
func distinct(elements []Element) []Element {
	sort.SliceStable(elements, func(i, j int) bool { return elements[i].Key.compare(elements[j].Key) < 0 })
	kept := elements[:0]
	for _, e := range elements {
		if len(kept) == 0 || e.Key != kept[len(kept)-1].Key {
			kept = append(kept, e)
		}
	}
	return kept
}
