package openwrt

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ds4relay/ds4relay/internal/message"
)

// Interface is an interface of netifd, as returned by its method dump.
type Interface struct {
	Name      string
	Up        bool
	Dynamic   bool // created by add_dynamic
	Proto     string
	Device    string         // of layer 3; "" while it has none
	IPv4      []netip.Prefix // addresses, with the network's length
	Prefixes  []netip.Prefix // delegated IPv6 prefixes, the one to use first
	Preferred bool           // the first prefix is public and not deprecated
}

// Interfaces asks netifd for all interfaces.
func Interfaces() ([]Interface, error) {
	data, err := Call("network.interface", "dump", "")
	if err != nil {
		return nil, err
	}
	return ParseInterfaces(data)
}

type address struct {
	Address   string `json:"address"`
	Mask      int    `json:"mask"`
	Preferred *int64 `json:"preferred"` // lifetime in seconds, 0 once it is deprecated; nil: for ever
}

// renewed, in seconds, is more than prefixes that are renewed together differ in their lifetimes.
const renewed = 60

// prefixes returns valid ones. The first is the public IPv6 one that stays preferred for the longest time, if there is
// any, which preferred reports. If the provider gives a home another prefix, a router in between (such as a FRITZ!Box)
// delegates both, and no longer renews the former one.
func prefixes(list []address) (result []netip.Prefix, preferred bool) {
	most := int64(0)
	for _, a := range list {
		addr, err := netip.ParseAddr(a.Address)
		p := netip.PrefixFrom(addr, a.Mask)
		if err != nil || !p.IsValid() {
			continue
		}
		life := int64(math.MaxInt64)
		if a.Preferred != nil {
			life = *a.Preferred
		}
		if addr.Is6() && !addr.IsPrivate() && life > 0 && (most == 0 || life-renewed > most) {
			most = life
			result = append([]netip.Prefix{p}, result...)
		} else {
			result = append(result, p)
		}
	}
	return result, most > 0
}

// ParseInterfaces reads the output of `ubus call network.interface dump`.
func ParseInterfaces(data []byte) ([]Interface, error) {
	var dump struct {
		Interface []struct {
			Interface string    `json:"interface"`
			Up        bool      `json:"up"`
			Dynamic   bool      `json:"dynamic"`
			Proto     string    `json:"proto"`
			Device    string    `json:"device"`
			L3Device  string    `json:"l3_device"`
			IPv4      []address `json:"ipv4-address"`
			Prefix    []address `json:"ipv6-prefix"`
		} `json:"interface"`
	}
	if err := json.Unmarshal(data, &dump); err != nil {
		return nil, message.New("the interfaces of netifd: %v", err)
	}
	var interfaces []Interface
	for _, i := range dump.Interface {
		device := i.L3Device
		if device == "" {
			device = i.Device
		}
		addresses, _ := prefixes(i.IPv4)
		delegated, preferred := prefixes(i.Prefix)
		interfaces = append(interfaces, Interface{i.Interface, i.Up, i.Dynamic, i.Proto, device, addresses, delegated,
			preferred})
	}
	return interfaces, nil
}

// Find returns the interface of that name, or nil.
func Find(interfaces []Interface, name string) *Interface {
	i := slices.IndexFunc(interfaces, func(i Interface) bool { return i.Name == name })
	if i < 0 {
		return nil
	}
	return &interfaces[i]
}

// Uplink is the interface that carries a tunnel if the configuration does not say: the first one that is up and has a
// delegated prefix, if possible one that is not deprecated.
func Uplink(interfaces []Interface) *Interface {
	return delegating(interfaces, func(i *Interface) bool { return i.Up })
}

// delegating returns the first of some interfaces with a delegated prefix, if possible one that is not deprecated.
func delegating(interfaces []Interface, of func(*Interface) bool) *Interface {
	var best *Interface
	for i := range interfaces {
		one := &interfaces[i]
		if of(one) && len(one.Prefixes) > 0 && (best == nil || one.Preferred && !best.Preferred) {
			best = one
		}
	}
	return best
}

// dynamicPrefix is the prefix of the interfaces for our tunnels, which make them visible in LuCI and `ifstatus`.
const dynamicPrefix = "ds4_"

// deviceDir has an entry for each device of the kernel.
const deviceDir = "/sys/class/net"

// ours reports whether an interface with such a name is for one of our tunnels, present or removed. A user's interface
// has a section in NetworkPath, but other programs create dynamic ones too: DS-Lite on the interface ds4 is ds4_4.
func (i *Interface) ours(tunnels []string) bool {
	if _, ok := cutPrefix(i.Name); !ok || !i.Dynamic || i.Proto != "none" {
		return false
	}
	if i.Device == "" || slices.Contains(tunnels, i.Device) {
		return true
	}
	_, err := os.Stat(filepath.Join(deviceDir, i.Device))
	return errors.Is(err, fs.ErrNotExist)
}

// NetworkPath is netifd's configuration.
const NetworkPath = "/etc/config/network"

// Free returns an error if somebody else owns the interface name that a relay needs: netifd would replace theirs by
// ours, and have neither afterwards. tunnels are our devices, existing and planned.
func Free(interfaces []Interface, relay string, tunnels []string) error {
	name := dynamicPrefix + relay
	i := Find(interfaces, name)
	switch {
	case i == nil || i.ours(tunnels):
		return nil
	case i.Dynamic:
		return message.New("netifd has an interface %s that ds4relay did not make (proto %s, device %s), by the name "+
			"that "+
			"the tunnel would have there; nothing of it is changed: give the relay's section another name",
			name, i.Proto, i.Device)
	}
	return message.New("%s: config interface '%s' has the name that the tunnel would have in netifd; "+
		"nothing of it is changed: give that section another name, or the relay's", NetworkPath, name)
}

// dynamicTime limits how long netifd may take to bring up a new interface.
const dynamicTime = 5 * time.Second

// Show makes the tunnels (relay → device) interfaces of netifd, and removes those of tunnels that are gone. It reports
// whether netifd has started to use a device: netifd then has removed the device's addresses. It does not change other
// interfaces; if one has the name that a tunnel needs, that tunnel gets none, and the error says so.
func Show(tunnels map[string]string) (taken bool, err error) {
	interfaces, err := Interfaces()
	if err != nil {
		return false, err
	}
	devices := slices.Collect(maps.Values(tunnels))
	tunnels = maps.Clone(tunnels)
	var refused []error
	for _, relay := range slices.Sorted(maps.Keys(tunnels)) {
		if err := Free(interfaces, relay, devices); err != nil {
			refused = append(refused, message.New("relay %q: %v", relay, err))
			delete(tunnels, relay)
		}
	}
	taken, err = show(interfaces, tunnels, devices)
	return taken, errors.Join(append(refused, err)...)
}

// show does this for all tunnels; devices are our devices.
func show(interfaces []Interface, tunnels map[string]string, devices []string) (taken bool, err error) {
	for _, i := range interfaces {
		relay, _ := cutPrefix(i.Name)
		if device := tunnels[relay]; !i.ours(devices) || device == i.Device && device != "" {
			continue
		}
		if _, err := Call("network.interface."+i.Name, "remove", ""); err != nil {
			// netifd may have removed it itself meanwhile.
			if left, again := Interfaces(); again != nil || Find(left, i.Name) != nil {
				return taken, err
			}
		}
	}
	for relay, device := range tunnels {
		name := dynamicPrefix + relay
		if i := Find(interfaces, name); i != nil && i.Device == device {
			if !i.Up {
				taken = true
				if _, err := Call("network.interface."+name, "up", ""); err != nil {
					return taken, err
				}
			}
			continue
		}
		arguments, err := json.Marshal(map[string]any{"name": name, "proto": "none", "device": device})
		if err != nil {
			return taken, err
		}
		if _, err := Call("network", "add_dynamic", string(arguments)); err != nil {
			return taken, err
		}
		taken = true
	}
	if !taken {
		return false, nil
	}
	for deadline := time.Now().Add(dynamicTime); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if interfaces, err = Interfaces(); err != nil {
			return taken, err
		}
		up := 0
		for relay := range tunnels {
			if i := Find(interfaces, dynamicPrefix+relay); i != nil && i.Up {
				up++
			}
		}
		if up == len(tunnels) {
			return taken, nil
		}
	}
	return taken, message.New("netifd did not bring up the tunnels' interfaces within %v", dynamicTime)
}

func cutPrefix(name string) (relay string, ours bool) {
	if len(name) > len(dynamicPrefix) && name[:len(dynamicPrefix)] == dynamicPrefix {
		return name[len(dynamicPrefix):], true
	}
	return "", false
}
