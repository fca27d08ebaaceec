package config

import (
	"fmt"
	"net/netip"
	"testing"
)

// TestMappings: the public side and the host's of each protocol of a forward.
func TestMappings(t *testing.T) {
	host := netip.MustParseAddr("192.168.1.210")
	for _, c := range []struct {
		forward Forward
		want    string // public → private of each
	}{
		{Forward{All: true}, "all"},
		{Forward{Ports: []PortSet{{TCP, 80, 80}}, DestPort: 8080}, "tcp:80→tcp:8080"},
		{Forward{Ports: []PortSet{{TCP, 443, 443}, {UDP, 443, 443}}, DestPort: 443}, "tcp:443=tcp:443 udp:443=udp:443"},
		{Forward{Ports: []PortSet{{UDP, 1000, 1999}}, DestPort: 64000}, "udp:1000-1999→udp:64000-64999"},
		{Forward{Ports: []PortSet{{1, 0, 0}, {TCP, 22, 22}}, DestPort: 2222}, "icmp=icmp tcp:22→tcp:2222"},
	} {
		c.forward.DestIP = host
		got := ""
		for i, m := range c.forward.Mappings() {
			if i > 0 {
				got += " "
			}
			arrow := "→"
			if m.KeepsPorts() {
				arrow = "="
			}
			if m.All {
				got += "all"
			} else {
				got += fmt.Sprint(m.Public, arrow, m.Private())
			}
			if m.Host != host || m.Limited() {
				t.Errorf("%v: %+v", c.forward.String(), m)
			}
		}
		if got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

// TestContains: ports at both ends of a range, and protocols without ports.
func TestContains(t *testing.T) {
	for _, c := range []struct {
		set   PortSet
		proto uint8
		port  uint16
		want  bool
	}{
		{PortSet{TCP, 80, 90}, TCP, 80, true}, {PortSet{TCP, 80, 90}, TCP, 90, true},
		{PortSet{TCP, 80, 90}, TCP, 79, false}, {PortSet{TCP, 80, 90}, TCP, 91, false},
		{PortSet{TCP, 80, 90}, UDP, 80, false}, {PortSet{TCP, 80, 90}, TCP, 0, false},
		{PortSet{1, 0, 0}, 1, 0, true}, {PortSet{1, 0, 0}, TCP, 0, false},
	} {
		if got := c.set.Contains(c.proto, c.port); got != c.want {
			t.Errorf("%v contains protocol %d port %d: %v", c.set, c.proto, c.port, got)
		}
	}
}
