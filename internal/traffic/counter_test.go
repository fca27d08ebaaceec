//go:build !openwrt

package traffic

import (
	"net/netip"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/state"
)

const relay = `config relay 'home'
	option role 'vps'
	option ipaddr '198.51.100.144'
	option ip6addr '2001:db8:6ef9::/64'
	option peeraddr '2001:db8:fdd2::/64'
`

func relays(t *testing.T, section, port string) []*config.Relay {
	t.Helper()
	c, _, err := config.Parse("ds4relay", []byte(relay+"config forward '"+section+"'\n\toption src_dport '"+port+
		"'\n\toption dest_ip '192.168.1.210'\n"), config.Defaults{Role: config.VPS})
	if err != nil {
		t.Fatal(err)
	}
	return c.Relays
}

// flow is a connection to a public port that has carried n bytes in, and twice as many out.
func flow(port uint16, n uint64) state.Flow {
	return state.Flow{Proto: 6, Src: netip.MustParseAddr("203.0.113.10"), Dst: netip.MustParseAddr("198.51.100.144"),
		DstPort: port, AnswerSrc: netip.MustParseAddr("192.168.1.210"), AnswerPort: port, Counted: true,
		In: state.Traffic{Packets: 1, Bytes: n}, Out: state.Traffic{Packets: 1, Bytes: 2 * n}}
}

// looks does what counter.look does with a table of connections.
func (c *counter) looks(table map[string]state.Flow) {
	c.round++
	for identity, flow := range table {
		c.open(flow, []byte(identity))
	}
	c.forgetUnseen()
}

// TestCounter: each byte is counted once, wherever a connection is looked at: in the table, at its end, or both.
func TestCounter(t *testing.T) {
	c := newCounter()
	c.configure(relays(t, "web", "80"))
	expect := func(what string, connections, bytes uint64) {
		t.Helper()
		f := c.report()[0]
		if f.Connections != connections || f.In.Bytes != bytes || f.Out.Bytes != 2*bytes {
			t.Errorf("%s: %+v, want %d connections and %d bytes in", what, f, connections, bytes)
		}
	}
	dying := flow(80, 400)
	dying.Dying = true

	c.looks(map[string]state.Flow{"old": flow(80, 1000), "other": flow(81, 1)})
	expect("what there was before is not counted", 0, 0)
	c.looks(map[string]state.Flow{"old": flow(80, 1005), "new": flow(80, 10)})
	expect("a new connection, and more of an old one", 1, 15)
	c.looks(map[string]state.Flow{"old": flow(80, 1005), "new": flow(80, 10)})
	expect("the same again", 1, 15)
	c.ended(flow(80, 1006), []byte("old"))
	c.ended(flow(80, 30), []byte("new"))
	c.ended(flow(80, 100), []byte("short"))
	expect("ends, also of one that was never looked at", 2, 136)
	c.looks(nil)
	expect("none is left", 2, 136)
	if len(c.seen) > 0 {
		t.Errorf("left over: %v", c.seen)
	}

	c.looks(map[string]state.Flow{"dying": dying})
	expect("one that is about to be reported", 2, 136)
	c.ended(dying, []byte("dying"))
	expect("the report", 3, 536)

	c.looks(map[string]state.Flow{"lost": flow(80, 100)})
	c.looks(map[string]state.Flow{})
	expect("one whose end was lost", 4, 636)
	c.looks(map[string]state.Flow{"again": flow(80, 50)})
	c.looks(map[string]state.Flow{"again": flow(80, 20)})
	expect("another one in the place of one whose end was lost", 6, 706)

	// The forward is removed; the end of its connection is reported later.
	c.configure(relays(t, "mail", "25"))
	c.ended(flow(80, 25), []byte("again"))
	c.ended(flow(25, 7), []byte("mail"))
	expect("the new forward", 1, 7)
	c.configure(relays(t, "web", "80"))
	expect("the former one, back", 6, 711)

	c.restart()
	c.looks(map[string]state.Flow{"old": flow(80, 1000)})
	expect("after a pause", 6, 711)
}
