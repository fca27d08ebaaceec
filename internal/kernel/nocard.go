//go:build openwrt

package kernel

import (
	"net/netip"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/state"
)

// cards finds nothing: on a router no cloud's address is looked for, but option nicaddr is taken.
func cards([]*config.Relay) (map[string]state.Card, error) { return nil, nil }

func orHeld(c state.Card, _ *config.Relay) netip.Addr { return c.Addr }

func clash(*config.Relay) error { return nil }

// OnCards returns the relays.
func OnCards(relays []*config.Relay) []*config.Relay { return relays }
