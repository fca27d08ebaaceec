package reconcile

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/alive"
	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/doctor"
	"github.com/ds4relay/ds4relay/internal/message/messagetest"
	"github.com/ds4relay/ds4relay/internal/plain"
	"github.com/ds4relay/ds4relay/internal/state"
)

// TestStatusPage: docs/status.md names each member of the object.
func TestStatusPage(t *testing.T) {
	messagetest.Describes(t, "docs/status.md", reflect.TypeFor[Status]())
}

// TestForwardStatus: the status has a forward as values, not as text.
func TestForwardStatus(t *testing.T) {
	host := netip.MustParseAddr("192.168.1.210")
	for _, c := range []struct {
		forward config.Forward
		want    string
	}{
		{config.Forward{Section: "web", Ports: []config.PortSet{{Proto: 6, First: 80, Last: 90}}, DestPort: 8080,
			Egress: config.Replies, Clients: []netip.Prefix{netip.MustParsePrefix("203.0.113.7/32")}},
			`{"section":"web","mappings":[{"proto":"tcp","first":80,"last":90,"port":8080}],"dest_ip":"192.168.1.210","clients":["203.0.113.7"],"egress":"replies"}`},
		{config.Forward{Section: "ping", Ports: []config.PortSet{{Proto: 1}}, Egress: config.All},
			`{"section":"ping","mappings":[{"proto":"icmp"}],"dest_ip":"192.168.1.210","egress":"all"}`},
		{config.Forward{Section: "all", Name: "Dad's", All: true, Egress: config.All},
			`{"section":"all","name":"Dad's","mappings":[{"proto":"all"}],"dest_ip":"192.168.1.210","egress":"all"}`},
	} {
		c.forward.DestIP = host
		if got, err := json.Marshal(forwardStatus(&c.forward)); err != nil || string(got) != c.want {
			t.Errorf("%v\n%s\nwant\n%s", err, got, c.want)
		}
	}
}

// TestHeard: what status says about the other end.
func TestHeard(t *testing.T) {
	seconds := func(n int64) *int64 { return &n }
	for _, c := range []struct {
		state alive.State
		heard *int64
		want  string
	}{
		{alive.Heard, seconds(18), "  last heard      18 s ago\n"},
		{alive.Heard, seconds(7199), "  last heard      119 min ago\n"},
		{alive.Silent, seconds(200), "  last heard      3 min ago, the other end is silent\n"},
		{alive.Silent, nil, "  last heard      never, the other end is silent\n"},
		{alive.Unknown, seconds(3 * 86400), "  last heard      3 days ago\n"},
		{alive.Unknown, nil, "  last heard      not known yet (`ds4relay watch` finds out)\n"},
	} {
		s := &Status{Relays: []RelayStatus{{Name: "home", Up: true, OtherEnd: c.state, HeardS: c.heard}}}
		var out strings.Builder
		s.Print(plain.Writer{To: &out})
		if !strings.Contains(out.String(), c.want) || s.Silent() != (c.state == alive.Silent) {
			t.Errorf("silent: %v, want %q in\n%s", s.Silent(), c.want, out.String())
		}
		const end = "another end is silent; find out why: ds4relay doctor"
		if strings.Contains(out.String(), end) != s.Silent() {
			t.Errorf("%s: the last line of\n%s", c.state, out.String())
		}
	}
}

// TestFlows: what the host has answered counts, and test packets of the doctor do not.
func TestFlows(t *testing.T) {
	client := netip.MustParseAddr("203.0.113.10")
	var flows Flows
	for _, flow := range []state.Flow{{Src: client}, {Src: client, Answered: true},
		{Src: doctor.TestClient, Answered: true}} {
		flows.add(flow)
	}
	if want := (Flows{Open: 3, Answered: 1}); flows != want {
		t.Errorf("got %+v, want %+v", flows, want)
	}
}
