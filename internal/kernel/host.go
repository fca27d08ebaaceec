package kernel

import (
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What the neighbour table says about a host.
const (
	HostUp      = "up"
	HostMissing = "missing" // it does not answer ARP
	HostUnknown = "unknown"
)

// freshTicks is the greatest age of a host's last answer, in hundredths of a second. AskHosts asks every minute; the
// kernel waits some seconds before it asks.
const freshTicks = 150 * 100

// Hosts returns what the neighbour table says about hosts at home. This machine itself is up.
func Hosts(hosts map[netip.Addr]string) error {
	neighbours, err := netlink.NeighList(0, unix.AF_INET)
	if err != nil {
		return err
	}
	for host := range hosts {
		route, err := routeTo(host, netip.Addr{})
		hosts[host] = HostUnknown
		switch {
		case err != nil || route.gateway: // the neighbour is the gateway
			continue
		case route.local:
			hosts[host] = HostUp
			continue
		}
		for i := range neighbours {
			if n := &neighbours[i]; n.LinkIndex == route.index && n.IP.Equal(host.AsSlice()) {
				hosts[host] = hostState(n)
			}
		}
	}
	return nil
}

func hostState(n *netlink.Neigh) string {
	switch {
	case n.State&(unix.NUD_FAILED|unix.NUD_INCOMPLETE) != 0: // packets to it make the kernel ask again and again
		return HostMissing
	case n.State&unix.NUD_REACHABLE != 0,
		n.State&(unix.NUD_STALE|unix.NUD_DELAY|unix.NUD_PROBE) != 0 && n.Confirmed <= freshTicks:
		return HostUp
	}
	return HostUnknown // also an entry that somebody has made by hand
}

// AskHosts makes the kernel ask for hosts at home once, unless they have just answered. It does not wait.
func AskHosts(hosts map[netip.Addr]string) {
	for host := range hosts {
		route, err := routeTo(host, netip.Addr{})
		if err != nil || route.gateway || route.local {
			continue
		}
		// Like `ip neigh replace … use`: a device without ARP refuses it.
		_ = netlink.NeighSet(&netlink.Neigh{LinkIndex: route.index, IP: host.AsSlice(), Flags: netlink.NTF_USE})
	}
}
