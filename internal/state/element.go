package state

import (
	"cmp"
	"net/netip"
	"sort"
	"strconv"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
)

// Element is an element of a set or map: of its key and value those fields that the set's types name.
type Element struct {
	Key   Key
	Value Value
}

// Key is what an element is looked up by. A set with two addresses has a client as the second one, a set with two
// devices the same kind of name twice.
type Key struct {
	Device, Other string // IfName
	CtState       string // CtState: new, established
	Addr          netip.Addr
	Client        netip.Prefix
	Proto         uint8
	First, Last   uint16 // Service: ports from First to Last, both included
}

// Value is what a map says about a key.
type Value struct {
	Addr    netip.Addr
	Port    uint16
	Verdict string // accept, or goto and the name of a chain
}

// protoKey is a key of an address and a protocol.
func protoKey(addr netip.Addr, proto uint8) Key { return Key{Addr: addr, Proto: proto} }

// at is the key for one port.
func (k Key) at(port uint16) Key { return k.between(port, port) }

// between is the key for a range of ports.
func (k Key) between(first, last uint16) Key {
	k.First, k.Last = first, last
	return k
}

// from is the key for a client, or a network of clients.
func (k Key) from(client netip.Prefix) Key {
	k.Client = client
	return k
}

// by is the key for packets of a device.
func (k Key) by(device string) Key {
	k.Device = device
	return k
}

// contains tells whether a packet's key is within the key, which may have a range of ports and a network of clients.
func (k Key) contains(packet Key) bool {
	return k.Addr == packet.Addr && k.Proto == packet.Proto && k.First <= packet.First && packet.Last <= k.Last &&
		(!k.Client.IsValid() || k.Client.Contains(packet.Client.Addr()))
}

// text are the fields of the types as nft(8) writes an element.
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

// concatenation stands between the fields of a key or a value (nft(8), "Concatenations").
const concatenation = " . "

// text is the element as nft(8) writes it in the set.
func (e Element) text(s Set) string {
	if s.Value == nil {
		return e.Key.text(s.Key)
	}
	return e.Key.text(s.Key) + " : " + e.Value.text(s.Value)
}

// compare orders keys.
func (k Key) compare(other Key) int {
	return cmp.Or(strings.Compare(k.Device, other.Device), strings.Compare(k.Other, other.Other),
		strings.Compare(k.CtState, other.CtState), k.Addr.Compare(other.Addr), k.Client.Addr().Compare(other.Client.Addr()),
		k.Client.Bits()-other.Client.Bits(), int(k.Proto)-int(other.Proto), int(k.First)-int(other.First),
		int(k.Last)-int(other.Last))
}

// distinct leaves the elements in order, the first of each key. They may be many, and stay where they are.
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
