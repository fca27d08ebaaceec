package kernel

import (
	"errors"
	"net/netip"
	"testing"
)

// TestRouteToNobody: an address that is not known yet, as that of a home before its first packet, has no route. The
// kernel must not be asked: it would log an attribute of the wrong length.
func TestRouteToNobody(t *testing.T) {
	if route, err := routeTo(netip.Addr{}, netip.Addr{}); !errors.Is(err, errNobody) {
		t.Errorf("a route to nobody: %+v, %v", route, err)
	}
}
