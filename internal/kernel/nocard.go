//go:build openwrt

package kernel

import (
	"net/netip"

	"github.com/ds4relay/ds4relay/internal/config"
)

// card is empty: on a router no cloud's address is looked for, but option nicaddr is taken.
type card struct {
	addr netip.Addr
	err  error
}

func cards([]*config.Relay) (map[string]card, error) { return nil, nil }

func (c card) orHeld(*config.Relay) netip.Addr { return c.addr }

func clash(*config.Relay) error { return nil }

// OnCards returns the relays.
func OnCards(relays []*config.Relay) []*config.Relay { return relays }
