package reconcile

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message/messagetest"
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
