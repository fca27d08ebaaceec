package openwrt

import (
	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/platform"
)

// Platform is OpenWrt.
type Platform struct{}

// Name implements platform.Platform.
func (Platform) Name() platform.Name { return platform.OpenWrtName }

// DefaultRole implements platform.Platform.
func (Platform) DefaultRole() config.Role { return config.Router }

// RunDir implements platform.Platform.
func (Platform) RunDir() string { return "/var/run/ds4relay" }

// NamesNetworks implements platform.Platform: tunlink may name an interface of netifd.
func (Platform) NamesNetworks() bool { return true }

// Networks implements platform.Platform.
func (Platform) Networks() (platform.Networks, error) {
	interfaces, err := Interfaces()
	if err != nil {
		return nil, err
	}
	return networks(interfaces), nil
}

// networks are netifd's interfaces.
type networks []Interface

// Uplink implements platform.Networks.
func (n networks) Uplink(r *config.Relay) *platform.Uplink {
	i := UplinkOf(r, n)
	if i == nil {
		return nil
	}
	return &platform.Uplink{Device: i.Device, Up: i.Up, Prefixes: i.Prefixes}
}

// Awaited implements platform.Networks.
func (n networks) Awaited(r *config.Relay) *message.Text {
	if r.Tunlink == "" {
		return message.New("a delegated IPv6 prefix, or a lasting public IPv6 address (`ifstatus wan6`)")
	}
	return message.New("a delegated IPv6 prefix, or a lasting public IPv6 address, on %s (`ifstatus %s`)", r.Tunlink,
		r.Tunlink)
}

// Free implements platform.Networks.
func (n networks) Free(relay string, tunnels []string) error { return Free(n, relay, tunnels) }

// UplinkOf returns the interface that carries a router's tunnel: the one that tunlink names (directly or by its
// device), otherwise the first one with a delegated prefix, or nil. WireGuard needs no prefix: the routing table
// decides.
func UplinkOf(r *config.Relay, interfaces []Interface) *Interface {
	switch {
	case r.Tunlink != "":
	case r.Transport == config.WireGuard:
		return nil
	default:
		return Uplink(interfaces)
	}
	if i := Find(interfaces, r.Tunlink); i != nil {
		return i
	}
	return delegating(interfaces, func(i *Interface) bool { return i.Device == r.Tunlink })
}
