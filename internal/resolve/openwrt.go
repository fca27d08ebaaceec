//go:build openwrt

package resolve

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
)

// Lookup returns the addresses of a name over IP version 4 or 6. It runs resolveip, as OpenWrt's tunnel protocols do: Go's
// resolver would be a twelfth of the router's program.
func Lookup(ctx context.Context, name string, version int) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out, err := exec.CommandContext(ctx, "resolveip", fmt.Sprintf("-%d", version), "-t", "5", name).Output()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, errors.New("the program resolveip is missing; opkg install resolveip")
	}
	var addrs []netip.Addr
	for word := range strings.FieldsSeq(string(out)) {
		if addr, err := netip.ParseAddr(word); err == nil {
			addrs = append(addrs, addr)
		}
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("no IPv%d address for %s", version, name)
	}
	return addrs, nil
}
