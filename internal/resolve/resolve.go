//go:build !openwrt

package resolve

import (
	"context"
	"net"
	"net/netip"
)

// Lookup returns the addresses of a name over IP version 4 or 6, as the system's resolver has them.
func Lookup(ctx context.Context, name string, version int) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	network := "ip6"
	if version == 4 {
		network = "ip4"
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, network, name)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, err
}
