//go:build openwrt

package resolve

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/program"
)

// Lookup returns the addresses of a name over IP version 4 or 6. It runs resolveip, as OpenWrt's tunnel protocols do:
// Go's resolver would be a twelfth of the router's program.
func Lookup(ctx context.Context, name string, version int) ([]netip.Addr, error) {
	args := []string{fmt.Sprintf("-%d", version), "-t", "5", name}
	out, _, err := program.Command{Name: "resolveip", Args: args, Limit: limit}.RunContext(ctx)
	if errors.Is(err, program.ErrNotFound) {
		return nil, message.New("the program resolveip is missing; opkg install resolveip")
	}
	var addrs []netip.Addr
	for word := range strings.FieldsSeq(out) {
		if addr, err := netip.ParseAddr(word); err == nil {
			addrs = append(addrs, addr)
		}
	}
	if len(addrs) == 0 {
		return nil, message.New("no IPv%d address for %s", version, name)
	}
	return addrs, nil
}
