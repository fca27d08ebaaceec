//go:build !openwrt

package reconcile

import (
	"errors"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/message"
)

// Carried refuses relays that would forward the packets of another tunnel that a relay runs in: neither would get any
// more. carriers are the tunnels by relay.
func Carried(relays []*config.Relay, carriers map[string][]kernel.Carrier) error {
	var vps []*config.Relay
	for _, r := range relays {
		if r.Role == config.VPS {
			vps = append(vps, r)
		}
	}
	var errs []error
	said := map[string]bool{}
	for _, inside := range vps {
		for _, c := range carriers[inside.Name] {
			for _, public := range vps {
				if c.Local.IsValid() && !public.Has(c.Local) {
					continue
				}
				r, f := config.Takes(vps, public.IPAddr, c.Client, c.Set.Proto, c.Set.First)
				if f == nil {
					continue
				}
				err := message.New("relay %q: forward %q would hand over %s of %s, by which the tunnel %s gets its "+
					"packets, and relay %q runs in that tunnel: both would stop; keep it with: list keep '%s' (in the "+
					"relay section), or go on with --force", r.Name, f.Section, c.Set, r.IPAddr, c.Device, inside.Name,
					c.Set)
				if !said[err.Error()] {
					said[err.Error()] = true
					errs = append(errs, err)
				}
			}
		}
	}
	return errors.Join(errs...)
}
