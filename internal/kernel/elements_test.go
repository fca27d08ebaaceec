package kernel

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/state"
)

// TestDecode: elements as the kernel hands them over, and those that only another program can have made.
func TestDecode(t *testing.T) {
	public, low, high := []byte{198, 51, 100, 144}, []byte{203, 0, 113, 0}, []byte{203, 0, 113, 255}
	tcp, http, alt := []byte{6, 0, 0, 0}, []byte{0, 80, 0, 0}, []byte{0x1f, 0x90, 0, 0}
	device := append([]byte("ds4-home"), make([]byte, 8)...)
	tracked := func(state uint32) []byte { return binary.NativeEndian.AppendUint32(nil, state) }
	join := func(fields ...[]byte) (data []byte) {
		for _, f := range fields {
			data = append(data, f...)
		}
		return data
	}
	client := state.Set{Name: "port_client", Key: []state.Type{state.IPv4, state.Proto, state.Service, state.IPv4}}
	forward := state.Set{Name: "port_forward", Key: []state.Type{state.IPv4, state.Proto, state.Service},
		Value: []state.Type{state.IPv4, state.Service}}
	host := state.Set{Name: "host", Key: []state.Type{state.IfName, state.IPv4, state.CtState},
		Value: []state.Type{state.Verdict}}
	web := state.Key{Addr: netip.AddrFrom4([4]byte(public)), Proto: 6, First: 80, Last: 80}
	many := web
	many.Last, many.Client = 8080, netip.MustParsePrefix("203.0.113.0/24")
	for _, c := range []struct {
		name        string
		set         state.Set
		first, last []byte
		value       *nl.RtAttr
		want        state.Element
		foreign     bool
	}{
		{name: "a port", set: forward, first: join(public, tcp, http),
			value: nl.NewRtAttr(unix.NFTA_DATA_VALUE, join(low, alt)),
			want:  state.Element{Key: web, Value: state.Value{Addr: netip.AddrFrom4([4]byte(low)), Port: 8080}}},
		{name: "a range for a network", set: client, first: join(public, tcp, http, low),
			last: join(public, tcp, alt, high), want: state.Element{Key: many}},
		{name: "a device", set: host, first: join(device, public, tracked(8)), value: accepts(),
			want: state.Element{Key: state.Key{Device: "ds4-home", Addr: web.Addr, CtState: "new"},
				Value: state.Value{Verdict: "accept"}}},
		{name: "addresses that are no network", set: client, first: join(public, tcp, http, low),
			last: join(public, tcp, alt, public), foreign: true},
		{name: "a range of protocols", set: client, first: join(public, tcp, http, low),
			last: join(public, []byte{17, 0, 0, 0}, http, low), foreign: true},
		{name: "two states", set: host, first: join(device, public, tracked(10)), value: accepts(), foreign: true},
		{name: "a device that nft cannot name", set: host,
			first: join([]byte(`a"b`), make([]byte, 13), public, tracked(8)), value: accepts(), foreign: true},
		{name: "too short", set: forward, first: join(public, tcp),
			value: nl.NewRtAttr(unix.NFTA_DATA_VALUE, join(low, alt)), foreign: true},
	} {
		key := func(kind int, data []byte) []byte {
			attr := nl.NewRtAttr(kind, nil)
			attr.AddRtAttr(unix.NFTA_DATA_VALUE, data)
			return attr.Serialize()
		}
		item := key(unix.NFTA_SET_ELEM_KEY, c.first)
		if c.last != nil {
			item = append(item, key(nftaSetElemKeyEnd, c.last)...)
		}
		if c.value != nil {
			data := nl.NewRtAttr(unix.NFTA_SET_ELEM_DATA, nil)
			data.AddChild(c.value)
			item = append(item, data.Serialize()...)
		}
		got, err := decode(item, &c.set)
		if c.foreign != errors.Is(err, errElement) || err == nil && got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.name, got, err, c.want)
		}
	}
}

// accepts is the value of a verdict map that says accept.
func accepts() *nl.RtAttr {
	value := nl.NewRtAttr(unix.NFTA_DATA_VERDICT, nil)
	value.AddRtAttr(unix.NFTA_VERDICT_CODE, binary.BigEndian.AppendUint32(nil, 1))
	return value
}

// TestElements: what is written to the kernel is read back, whatever the types, and how many there are.
func TestElements(t *testing.T) {
	addr, host := netip.MustParseAddr("198.51.100.144"), netip.MustParseAddr("192.168.1.210")
	var many []state.Element
	for port := range uint16(5000) {
		many = append(many, state.Element{Key: state.Key{Addr: addr, Proto: 6, First: port + 1, Last: port + 1},
			Value: state.Value{Addr: host, Port: port}})
	}
	for i, c := range []state.SetChange{
		{Set: state.Set{Name: "port_forward", Key: []state.Type{state.IPv4, state.Proto, state.Service},
			Value: []state.Type{state.IPv4, state.Service}}, Added: many},
		{Set: state.Set{Name: "port_client", Key: []state.Type{state.IPv4, state.Proto, state.Service, state.IPv4}},
			Added: []state.Element{{Key: state.Key{Addr: addr, Proto: 17, First: 53, Last: 100,
				Client: netip.MustParsePrefix("203.0.113.0/25")}},
				{Key: state.Key{Addr: addr, Proto: 6, First: 80, Last: 80, Client: netip.MustParsePrefix("0.0.0.0/1")}}}},
		{Set: state.Set{Name: "client_forward", Key: []state.Type{state.IPv4, state.IPv4}, Value: []state.Type{state.IPv4}},
			Added: []state.Element{{Key: state.Key{Addr: addr, Client: netip.MustParsePrefix("203.0.113.9/32")},
				Value: state.Value{Addr: host}}}},
		{Set: state.Set{Name: "host", Key: []state.Type{state.IfName, state.IPv4, state.CtState},
			Value: []state.Type{state.Verdict}}, Added: []state.Element{
			{Key: state.Key{Device: "wrap1", Addr: host, CtState: "new"}, Value: state.Value{Verdict: "goto opened"}},
			{Key: state.Key{Device: "a-longest-name-", Addr: host, CtState: "established"},
				Value: state.Value{Verdict: "accept"}},
			{Key: state.Key{Device: "wrap2", Addr: host, CtState: "untracked"}, Value: state.Value{Verdict: "jump it"}}}},
		{Set: state.Set{Name: "pair", Key: []state.Type{state.IfName, state.IfName}},
			Added: []state.Element{{Key: state.Key{Device: "br-lan", Other: `lan*`}}}},
		{Family: "ip6", Set: state.Set{Name: "peer", Key: []state.Type{state.IPv6}},
			Added: []state.Element{{Key: state.Key{Addr: netip.MustParseAddr("2001:db8::1")}}}},
	} {
		b := batch{interval: i == 1 || i == 2}
		b.add(&c, unix.NFT_MSG_NEWSETELEM, c.Added)
		var got []state.Element
		for rest := b.bytes; len(rest) > 0; {
			size := binary.NativeEndian.Uint32(rest)
			var err error
			if got, err = appendElements(got, rest[unix.NLMSG_HDRLEN:size], &c.Set); err != nil {
				t.Fatalf("%s: %v", c.Set.Name, err)
			}
			rest = rest[size:]
		}
		if !slices.Equal(got, c.Added) {
			t.Errorf("%s: %d elements, want %d: %+v", c.Set.Name, len(got), len(c.Added), got[:min(len(got), 3)])
		}
	}
}
