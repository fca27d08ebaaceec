// Package platform says what differs between the systems that run a machine's network: OpenWrt with netifd and its
// firewall, Debian with ifupdown and systemd. What a relay is (its role) does not depend on it.
package platform

import (
	"net/netip"
	"os"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
)

// Name is a platform's name, for people.
type Name string

// The platforms.
const (
	OpenWrtName Name = "OpenWrt"
	DebianName  Name = "Debian"
)

// Platform is what the network of this machine is run by.
type Platform interface {
	Name() Name
	// DefaultRole is that of a relay without `option role`.
	DefaultRole() config.Role
	// RunDir is a directory that does not outlive a reboot.
	RunDir() string
	// NamesNetworks tells whether `option tunlink` may name a network instead of a device.
	NamesNetworks() bool
	// Networks asks for those of this moment; nil where only the kernel knows them.
	Networks() (Networks, error)
}

// Networks are what the platform has configured, beyond what the kernel knows of it.
type Networks interface {
	// Uplink is the network that the tunnel of a router rides on; nil where there is none.
	Uplink(r *config.Relay) *Uplink
	// Awaited says what a relay waits for that has no endpoint without an uplink.
	Awaited(r *config.Relay) *message.Text
	// Free is an error where somebody else has the name that a relay's tunnel would have on this platform. tunnels are
	// our devices, those that are there and those to be made.
	Free(relay string, tunnels []string) error
}

// Uplink is a network that leads to the internet.
type Uplink struct {
	Device   string // "" while it has none
	Up       bool
	Prefixes []netip.Prefix // delegated to this machine
}

// IsOpenWrt tells whether this machine runs OpenWrt.
func IsOpenWrt() bool {
	_, err := os.Stat("/etc/openwrt_release")
	return err == nil
}

// Debian is every machine that is no OpenWrt.
type Debian struct{}

// Name implements Platform.
func (Debian) Name() Name { return DebianName }

// DefaultRole implements Platform.
func (Debian) DefaultRole() config.Role { return config.VPS }

// RunDir implements Platform.
func (Debian) RunDir() string { return "/run/ds4relay" }

// NamesNetworks implements Platform.
func (Debian) NamesNetworks() bool { return false }

// Networks implements Platform.
func (Debian) Networks() (Networks, error) { return nil, nil }
