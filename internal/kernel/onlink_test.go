package kernel

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLasting: of a card's addresses, the one that an endpoint may be made of.
func TestLasting(t *testing.T) {
	const day = 86400
	addr := func(text string, flags, preferred int) addr6 {
		return addr6{netip.MustParseAddr(text), "eth0", flags, preferred}
	}
	other := addr("2001:db8:9::1", unix.IFA_F_PERMANENT, 0)
	other.device = "eth1"
	unfit := []addr6{other, addr("fe80::1", unix.IFA_F_PERMANENT, 0), addr("fd00::1", unix.IFA_F_PERMANENT, 0),
		addr("2001:db8:1::a", unix.IFA_F_TEMPORARY, day), addr("2001:db8:1::b", unix.IFA_F_DEPRECATED, 0),
		addr("2001:db8:1::c", unix.IFA_F_TENTATIVE, day), addr("2001:db8:1::d", unix.IFA_F_DADFAILED, day)}
	if got := lasting(unfit, "eth0", netip.Addr{}); got.IsValid() {
		t.Errorf("of unfit ones: %s", got)
	}
	for _, c := range []struct {
		want, held string
		addrs      []addr6
	}{
		{"2001:db8:1::1", "::", []addr6{addr("2001:db8:1::1", 0, 600)}},
		{"2001:db8:2::1", "::", []addr6{addr("2001:db8:1::1", 0, 600), addr("2001:db8:2::1", 0, day)}},
		{"2001:db8:1::1", "::", []addr6{addr("2001:db8:1::1", 0, 600), addr("2001:db8:2::1", 0, 601)}},
		{"2001:db8:1::1", "::", []addr6{addr("2001:db8:1::1", unix.IFA_F_PERMANENT, 0), addr("2001:db8:2::1", 0, day)}},
		// Two routers advertise by turns; then one of them falls silent.
		{"2001:db8:2::1", "2001:db8:2::9", []addr6{addr("2001:db8:1::1", 0, 3600), addr("2001:db8:2::1", 0, 3000)}},
		{"2001:db8:1::1", "2001:db8:2::9", []addr6{addr("2001:db8:1::1", 0, 3600), addr("2001:db8:2::1", 0, 1200)}},
		{"2001:db8:1::1", "2001:db8:2::9", []addr6{addr("2001:db8:1::1", 0, 600), addr("2001:db8:2::1",
			unix.IFA_F_DEPRECATED, 0)}},
	} {
		got := lasting(append(unfit, c.addrs...), "eth0", netip.MustParseAddr(c.held))
		if got != netip.MustParseAddr(c.want) {
			t.Errorf("of %v, with %s: %s, want %s", c.addrs, c.held, got, c.want)
		}
	}
}
