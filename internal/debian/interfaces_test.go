//go:build !openwrt

package debian

import (
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
)

// write creates files in a new directory and returns the directory.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestInterfaces(t *testing.T) {
	dir := write(t, map[string]string{
		"interfaces": `# comment
source interfaces.d/*.cfg
source-directory more

auto lo wrap1
iface lo inet loopback

iface wrap1 inet manual
    ds4relay home
    post-up ip route \
        add 192.0.2.0/24 dev wrap1
`,
		"interfaces.d/eth0.cfg": "allow-hotplug eth0\niface eth0 inet static\n\taddress 198.51.100.144/24\n",
		"interfaces.d/old.bak":  "iface old inet manual\n",
		"more/eth1":             "iface eth1 inet static\n address 203.0.113.5\n",
		"more/eth2.dpkg-old":    "iface eth2 inet dhcp\n",
	})
	stanzas, err := Interfaces(filepath.Join(dir, "interfaces"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range stanzas {
		names = append(names, s.Name)
	}
	if got := strings.Join(names, " "); got != "eth0 eth1 lo wrap1" {
		t.Fatalf("stanzas %s", got)
	}
	wrap := stanzas[3]
	if relay := wrap.Option("ds4relay"); len(relay) != 1 || relay[0] != "home" {
		t.Errorf("ds4relay %v", relay)
	}
	if line := wrap.Options[1]; line.Number != 10 || line.Text != "post-up ip route add 192.0.2.0/24 dev wrap1" {
		t.Errorf("%+v", line)
	}
	for _, other := range []string{"iface eth2 inet dhcp", "iface wrap2 inet manual"} {
		stanzas = append(stanzas, Stanza{Line: Line{Text: other}, Name: strings.Fields(other)[1],
			Options: []Line{{Text: "ds4relay home"}}})
	}
	if got := Devices(stanzas); !maps.Equal(got, map[string]string{"home": "wrap1"}) {
		t.Errorf("devices %v", got)
	}
	if got := Devices(stanzas[len(stanzas)-2:]); !maps.Equal(got, map[string]string{"home": "wrap2"}) {
		t.Errorf("the device of a stanza with DHCP counts: %v", got)
	}
	for address, want := range map[string]string{"198.51.100.144": "eth0", "203.0.113.5": "eth1", "198.51.100.14": ""} {
		if got := Uplink(&config.Relay{IPAddr: netip.MustParseAddr(address)}, stanzas); got != want {
			t.Errorf("the device with %s is %q, want %q", address, got, want)
		}
	}
	translated := &config.Relay{IPAddr: netip.MustParseAddr("192.0.2.7"), NICAddr: netip.MustParseAddr("203.0.113.5")}
	if got := Uplink(translated, stanzas); got != "eth1" {
		t.Errorf("the device with the address that a cloud translates to is %q", got)
	}
	if stanzas, err := Interfaces(filepath.Join(dir, "missing")); err != nil || len(stanzas) > 0 {
		t.Error(stanzas, err)
	}
	loop := write(t, map[string]string{"interfaces": "source interfaces\n"})
	if _, err := Interfaces(filepath.Join(loop, "interfaces")); err == nil {
		t.Error("a file that sources itself")
	}
}

func TestHook(t *testing.T) {
	for _, c := range []struct{ env, want string }{
		{"IFACE=wrap1 PHASE=pre-up METHOD=manual IF_DS4RELAY=home", ""},
		{"IFACE=wrap1 PHASE=pre-up IF_DS4RELAY=home,cabin",
			`iface wrap1: ds4relay home cabin: allowed is the name of one relay`},
		{"IFACE=wrap1 PHASE=pre-up", "iface wrap1: the line with the relay's name is missing"},
		{"IF_DS4RELAY=home", "this is for the scripts of ifupdown"},
	} {
		values := map[string]string{}
		for _, word := range strings.Fields(c.env) {
			name, value, _ := strings.Cut(word, "=")
			values[name] = strings.ReplaceAll(value, ",", " ")
		}
		h, err := NewHook(func(name string) string { return values[name] })
		if c.want == "" {
			if err != nil || h != (Hook{"home", "wrap1", "pre-up", true}) {
				t.Errorf("%s: %+v %v", c.env, h, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.env, err, c.want)
		}
	}
	for want, relay := range map[string]*config.Relay{
		"option device 'wrap1'": {Name: "home", Device: "ds4-home", Enabled: true},
		"option enabled '1'":    {Name: "home", Device: "wrap1"},
	} {
		if err := (Hook{Device: "wrap1"}).Check(relay); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
