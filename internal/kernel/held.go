//go:build !openwrt

package kernel

import (
	"net/netip"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/state"
)

// heldBy returns the device that carries a VPS's tunnel while the device with its IPv4 address cannot be told, for
// example because a DHCP client is about to set the address anew: the one with its endpoint, or else with the route to
// the other end.
func (k *Kernel) heldBy(r *config.Relay, local, peer netip.Addr) string {
	if r.Role != config.VPS || r.Tunlink != "" {
		return ""
	}
	o := state.Observed{ForeignLinks: map[string]string{}, ForeignAddrs: map[netip.Addr]string{}}
	links, err := k.observeLinks(&o)
	if err != nil || observeAddrs(&o, links) != nil {
		return ""
	}
	for _, addr := range o.Addrs {
		if addr.Addr == local {
			return addr.Device
		}
	}
	if route, err := routeTo(peer, local); err == nil && !route.local {
		return route.device
	}
	return ""
}
