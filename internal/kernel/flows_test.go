package kernel

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink/nl"

	"github.com/ds4relay/ds4relay/internal/state"
)

// attribute is a netlink attribute of these parts.
func attribute(kind uint16, parts ...[]byte) []byte {
	value := slices.Concat(parts...)
	head := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b := append(binary.NativeEndian.AppendUint16(head, kind), value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// TestParseFlow reads a message of the kernel, whole and cut off at each byte.
func TestParseFlow(t *testing.T) {
	const nested = 0x8000
	tuple := func(kind uint16, src, dst, srcPort, dstPort byte) []byte {
		return attribute(kind|nested,
			attribute(nl.CTA_TUPLE_IP|nested, attribute(nl.CTA_IP_V4_SRC, []byte{192, 0, 2, src}),
				attribute(nl.CTA_IP_V4_DST, []byte{192, 0, 2, dst})),
			attribute(nl.CTA_TUPLE_PROTO|nested, attribute(nl.CTA_PROTO_NUM, []byte{6}),
				attribute(protoSrcPort, []byte{1, srcPort}), attribute(nl.CTA_PROTO_DST_PORT, []byte{1, dstPort})))
	}
	count := func(kind uint16, packets, bytes uint64) []byte {
		number := func(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
		return attribute(kind|nested, attribute(nl.CTA_COUNTERS_PACKETS, number(packets)),
			attribute(nl.CTA_COUNTERS_BYTES, number(bytes)))
	}
	first, zone, id := tuple(nl.CTA_TUPLE_ORIG, 1, 2, 3, 4), attribute(nl.CTA_ZONE, []byte{0, 7}),
		attribute(nl.CTA_ID, []byte{1, 2, 3, 4})
	parts := [][]byte{{2, 0, 0, 0}, first, tuple(nl.CTA_TUPLE_REPLY, 5, 1, 6, 3), zone,
		attribute(nl.CTA_STATUS, []byte{0, 0, 2, 5}), count(nl.CTA_COUNTERS_ORIG, 10, 1<<40),
		count(nl.CTA_COUNTERS_REPLY, 20, 2000), attribute(nl.CTA_MARK, []byte{0x46, 0, 0, 1}), id}
	message := slices.Concat(parts...)
	flow, identity, err := parseFlow(message)
	addr := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, last}) }
	want := state.Flow{Proto: 6, Src: addr(1), Dst: addr(2), DstPort: 260, AnswerSrc: addr(5), AnswerPort: 262,
		AnswerDst: addr(1), Mark: 0x46000001, Answered: true, Dying: true, Counted: true,
		In: state.Traffic{Packets: 10, Bytes: 1 << 40}, Out: state.Traffic{Packets: 20, Bytes: 2000}}
	if err != nil || flow != want {
		t.Errorf("got  %+v, %v\nwant %+v", flow, err, want)
	}
	if want := slices.Concat(first, zone, id); !slices.Equal(identity, want) {
		t.Errorf("identity %x, want %x", identity, want)
	}
	whole := map[int]bool{}
	for end := range parts {
		whole[len(slices.Concat(parts[:end+1]...))] = true
	}
	for end := range len(message) {
		padded := (end + 3) &^ 3 // the last attribute's padding may be missing
		if _, _, err := parseFlow(message[:end]); err == nil && !whole[padded] || err != nil && whole[end] {
			t.Errorf("%d of %d bytes: %v", end, len(message), err)
		}
	}
}
