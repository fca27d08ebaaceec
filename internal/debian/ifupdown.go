//go:build !openwrt

package debian

import (
	"fmt"
	"strings"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/program"
)

// Hook is a call of a script by ifupdown or ifupdown-ng, read from its environment (interfaces(5),
// ifupdown-executor(7)).
type Hook struct {
	Relay  string // the option `ds4relay` of the interface's stanza
	Device string // the interface
	Phase  string // depend, pre-up, up, post-up, pre-down, down, post-down
	Nested bool   // the script may call ifup; ifupdown-ng asks for dependencies instead
}

// NewHook reads the environment; the error says what is missing.
func NewHook(env func(string) string) (Hook, error) {
	h := Hook{Relay: env("IF_DS4RELAY"), Device: env("IFACE"), Phase: env("PHASE"), Nested: env("METHOD") != "none"}
	switch {
	case h.Device == "" || h.Phase == "":
		return h, fmt.Errorf("this is for the scripts of ifupdown, which set IFACE and PHASE; to bring a relay up: " +
			"ds4relay up, or ifup DEVICE")
	case h.Relay == "":
		return h, fmt.Errorf("iface %s: the line with the relay's name is missing: ds4relay RELAY", h.Device)
	case len(strings.Fields(h.Relay)) != 1:
		return h, fmt.Errorf("iface %s: ds4relay %s: allowed is the name of one relay", h.Device, h.Relay)
	}
	return h, nil
}

// Check compares the stanza with the relay that it names.
func (h Hook) Check(r *config.Relay) error {
	if !r.Enabled {
		return fmt.Errorf("iface %s: ds4relay %s: this relay is off; write in its section: option enabled '1'",
			h.Device, r.Name)
	}
	if r.Device != h.Device {
		return fmt.Errorf("iface %s: ds4relay %s: the tunnel of this relay is %s; write: iface %s inet manual, or in "+
			"the relay's section: option device '%s'", h.Device, r.Name, r.Device, r.Device, h.Device)
	}
	return nil
}

// Devices returns the tunnel device of each relay that ifupdown brings up: its stanza's name. Stanzas with a method
// other than manual are about other devices.
func Devices(stanzas []Stanza) map[string]string {
	devices := map[string]string{}
	for _, s := range stanzas {
		words, relay := s.Words(), s.Option("ds4relay")
		if len(words) > 3 && words[3] != "manual" || len(relay) != 1 || devices[relay[0]] != "" {
			continue
		}
		devices[relay[0]] = s.Name
	}
	return devices
}

// Uplink returns the interface that carries the relay's tunnel according to the configuration files; "" if they do not
// say.
func Uplink(r *config.Relay, stanzas []Stanza) string {
	if r.Tunlink != "" {
		return r.Tunlink
	}
	return DeviceOf(stanzas, r.Card().String())
}

// queryTime limits one query to ifupdown, raiseTime one ifup: DHCP gives up after a minute, and IPv6 waits for its
// address too.
const (
	queryTime = 10 * time.Second
	raiseTime = 3 * time.Minute
)

// Raise brings up an interface that has a stanza and is not up yet.
func Raise(device string) error {
	query := func(args ...string) error {
		_, _, err := program.Command{Name: "ifquery", Args: args, Limit: queryTime}.Run()
		return err
	}
	if query("--state", device) == nil || query(device) != nil {
		return nil
	}
	if out, problems, err := (program.Command{Name: "ifup", Args: []string{device},
		Limit: raiseTime}).Run(); err != nil {
		return fmt.Errorf("ifup %s: %w: %s", device, err, strings.TrimSpace(out+problems))
	}
	return nil
}
