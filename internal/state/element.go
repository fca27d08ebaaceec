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

// appendText appends the fields of these types as nft(8) reads them.
func (k *Key) appendText(b []byte, types []Type) []byte {
	addrs, devices := 0, 0
	for i, t := range types {
		if i > 0 {
			b = append(b, concatenation...)
		}
		switch t {
		case IPv4, IPv6:
			if addrs++; addrs == 1 {
				b = k.Addr.AppendTo(b)
			} else {
				b = append(b, clientText(k.Client)...)
			}
		case IfName:
			name := k.Device
			if devices++; devices > 1 {
				name = k.Other
			}
			b = append(b, quote(name)...)
		case Proto:
			b = append(b, config.ProtoName(k.Proto)...)
		case Service:
			b = strconv.AppendUint(b, uint64(k.First), 10)
			if k.Last != k.First {
				b = strconv.AppendUint(append(b, '-'), uint64(k.Last), 10)
			}
		case CtState:
			b = append(b, k.CtState...)
		}
	}
	return b
}

func (v *Value) appendText(b []byte, types []Type) []byte {
	for i, t := range types {
		if i > 0 {
			b = append(b, concatenation...)
		}
		switch t {
		case IPv4:
			b = v.Addr.AppendTo(b)
		case Service:
			b = strconv.AppendUint(b, uint64(v.Port), 10)
		case Verdict:
			b = append(b, v.Verdict...)
		}
	}
	return b
}

// concatenation separates the fields of a key or a value (nft(8), "Concatenations").
const concatenation = " . "

// appendText appends the element of a set as nft(8) reads it.
func (e *Element) appendText(b []byte, s *Set) []byte {
	b = e.Key.appendText(b, s.Key)
	if s.Value != nil {
		b = e.Value.appendText(append(b, " : "...), s.Value)
	}
	return b
}

// compare orders keys, by their texts' fields.
func (k *Key) compare(other *Key) int {
	c := strings.Compare(k.Device, other.Device)
	if c == 0 {
		c = k.Addr.Compare(other.Addr)
	}
	if c == 0 {
		c = int(k.Proto) - int(other.Proto)
	}
	if c == 0 {
		c = int(k.First) - int(other.First)
	}
	if c == 0 {
		c = cmp.Or(int(k.Last)-int(other.Last), k.Client.Addr().Compare(other.Client.Addr()),
			k.Client.Bits()-other.Client.Bits(), strings.Compare(k.Other, other.Other),
			strings.Compare(k.CtState, other.CtState))
	}
	return c
}

// inOrder reports whether the elements are sorted, and no key is there twice.
func inOrder(elements []Element) bool {
	for i := 1; i < len(elements); i++ {
		if elements[i-1].Key.compare(&elements[i].Key) >= 0 {
			return false
		}
	}
	return true
}

// distinct sorts the elements in place and keeps the first of each key. There may be many, and mostly they are sorted.
func distinct(elements []Element) []Element {
	if inOrder(elements) {
		return elements
	}
	sort.SliceStable(elements, func(i, j int) bool { return elements[i].Key.compare(&elements[j].Key) < 0 })
	kept := elements[:0]
	for _, e := range elements {
		if len(kept) == 0 || e.Key != kept[len(kept)-1].Key {
			kept = append(kept, e)
		}
	}
	return kept
}

// difference returns the elements that only have has, and those that only want has, each in its order. No key is in one
// of them twice.
func difference(have, want []Element) (gone, added []Element) {
	if len(have) == 0 || len(want) == 0 {
		return have, want
	}
	places := make(map[Key]int, len(have))
	for i := range have {
		places[have[i].Key] = i
	}
	stays := make([]bool, len(have))
	for i := range want {
		if place, found := places[want[i].Key]; found && have[place].Value == want[i].Value {
			stays[place] = true
		} else {
			added = append(added, want[i])
		}
	}
	for i := range have {
		if !stays[i] {
			gone = append(gone, have[i])
		}
	}
	return gone, added
}
