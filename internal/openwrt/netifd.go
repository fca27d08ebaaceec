package openwrt

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ds4relay/ds4relay/internal/message"
)

// Interface is an interface of netifd, as its method dump has it.
type Interface struct {
	Name     string
	Up       bool
	Dynamic  bool // made by add_dynamic
	Proto    string
	Device   string         // of layer 3; "" while it has none
	IPv4     []netip.Prefix // addresses, with the network's length
	Prefixes []netip.Prefix // delegated IPv6 prefixes
}

// Interfaces asks netifd for all of its interfaces.
func Interfaces() ([]Interface, error) {
	data, err := Call("network.interface", "dump", "")
	if err != nil {
		return nil, err
	}
	return ParseInterfaces(data)
}

type address struct {
	Address string `json:"address"`
	Mask    int    `json:"mask"`
}

func prefixes(list []address) []netip.Prefix {
	var result []netip.Prefix
	for _, a := range list {
		if addr, err := netip.ParseAddr(a.Address); err == nil {
			if p := netip.PrefixFrom(addr, a.Mask); p.IsValid() {
				result = append(result, p)
			}
		}
	}
	return result
}

// ParseInterfaces reads what `ubus call network.interface dump` prints.
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
		interfaces = append(interfaces, Interface{i.Interface, i.Up, i.Dynamic, i.Proto, device,
			prefixes(i.IPv4), prefixes(i.Prefix)})
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

// Uplink is the interface that a tunnel rides on where the configuration does not say: the first one that is up and has a
// delegated prefix.
func Uplink(interfaces []Interface) *Interface {
	i := slices.IndexFunc(interfaces, func(i Interface) bool { return i.Up && len(i.Prefixes) > 0 })
	if i < 0 {
		return nil
	}
	return &interfaces[i]
}

// dynamicPrefix begins the names of the interfaces that stand for tunnels, so that they show in LuCI and in `ifstatus`.
const dynamicPrefix = "ds4_"

// deviceDir has an entry for each device of the kernel.
const deviceDir = "/sys/class/net"

// ours tells whether an interface of such a name stands for a tunnel of ours, or for one that is gone. A user's
// interface has a section in NetworkPath; other programs make dynamic ones too: DS-Lite on the interface ds4 is ds4_4.
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

// NetworkPath is the configuration of netifd.
const NetworkPath = "/etc/config/network"

// Free is an error where somebody else has the interface that would stand for a relay: netifd would put ours in its
// place, and have neither afterwards. tunnels are our devices, those that are there and those to be made.
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

// dynamicTime bounds how long netifd may take to bring up an interface that it was told of.
const dynamicTime = 5 * time.Second

// Show makes the tunnels interfaces of netifd, by relay and device, and removes those of tunnels that are gone. It
// tells whether netifd has taken a device into use: it then has removed the device's addresses. Interfaces of others
// are left as they are; where one has the name that a tunnel needs, that tunnel has none, and the error says so.
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

// show has all of the tunnels shown; devices are those of ours.
func show(interfaces []Interface, tunnels map[string]string, devices []string) (taken bool, err error) {
	for _, i := range interfaces {
		relay, _ := cutPrefix(i.Name)
		if device := tunnels[relay]; !i.ours(devices) || device == i.Device && device != "" {
			continue
		}
		if _, err := Call("network.interface."+i.Name, "remove", ""); err != nil {
			// netifd may have removed it by itself meanwhile.
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
