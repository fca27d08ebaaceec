package kernel

import (
	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/openwrt"
	"github.com/ds4relay/ds4relay/internal/state"
)

// netifdFree refuses a relay where somebody else has the interface of netifd that would stand for its tunnel.
func (k *Kernel) netifdFree(r *config.Relay, interfaces []openwrt.Interface) error {
	if len(interfaces) == 0 {
		return nil
	}
	o := state.Observed{ForeignLinks: map[string]string{}}
	if _, err := k.observeLinks(&o); err != nil {
		return err
	}
	tunnels := []string{r.Device}
	for _, link := range o.Links {
		tunnels = append(tunnels, link.Name)
	}
	return openwrt.Free(interfaces, r.Name, tunnels)
}
