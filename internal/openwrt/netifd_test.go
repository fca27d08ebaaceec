package openwrt

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// newNetifd puts a stand-in for ubus into PATH: a netifd with these interfaces, which brings up new ones. It returns a
// function that reads the calls that change something.
func newNetifd(t *testing.T, interfaces ...string) (calls func() []string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write("interfaces", strings.Join(interfaces, "\n")+"\n")
	write("ubus", `#!/bin/sh
cd "$NETIFD" || exit 1
if [ "$2 $3" = "network.interface dump" ]; then
	echo "{\"interface\":[$(paste -sd, interfaces)]}"
	exit
fi
shift
echo "$*" >>calls
case "$2" in
add_dynamic) echo "$3" | sed 's/"name"/"up":true,"dynamic":true,"interface"/' >>interfaces ;;
remove)
	[ ! -e stays ] || exit 4
	sed -i "/\"interface\":\"${1#network.interface.}\"/d" interfaces
	[ -z "$NETIFD_FIRST" ] || exit 4 ;;
esac
`)
	t.Setenv("NETIFD", dir)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() []string {
		data, _ := os.ReadFile(filepath.Join(dir, "calls"))
		_ = os.Remove(filepath.Join(dir, "calls"))
		return strings.FieldsFunc(string(data), func(r rune) bool { return r == '\n' })
	}
}

// dynamic is an interface as created by an earlier release.
func dynamic(name, proto, device string) string {
	return fmt.Sprintf(`{"interface":%q,"up":true,"dynamic":true,"proto":%q,"device":%q,"l3_device":%q}`,
		name, proto, device, device)
}

const lan = `{"interface":"lan","up":true,"dynamic":false,"proto":"static","device":"lo","l3_device":"lo"}`

// TestShow: our interfaces are created, changed and removed, also those of earlier releases; others are not touched.
func TestShow(t *testing.T) {
	users := strings.Replace(lan, `"lan"`, `"ds4_home"`, 1)
	add := func(relay, device string) string {
		return fmt.Sprintf(`network add_dynamic {"device":%q,"name":"ds4_%s","proto":"none"}`, device, relay)
	}
	remove := func(name string) string { return "network.interface." + name + " remove" }
	home, two := map[string]string{"home": "wrap1"}, map[string]string{"home": "wrap1", "office": "wrap2"}
	const network = "/etc/config/network"
	for _, c := range []struct {
		name       string
		interfaces []string
		tunnels    map[string]string
		want       []string
		refused    string
	}{
		{"a new tunnel", []string{lan}, home, []string{add("home", "wrap1")}, ""},
		{"as it is", []string{lan, dynamic("ds4_home", "none", "wrap1")}, home, nil, ""},
		{"another device", []string{dynamic("ds4_home", "none", "wrap0"), lan}, home,
			[]string{remove("ds4_home"), add("home", "wrap1")}, ""},
		{"another relay", []string{dynamic("ds4_old", "none", "wrap1"), lan}, home,
			[]string{remove("ds4_old"), add("home", "wrap1")}, ""},
		{"a tunnel that is gone", []string{dynamic("ds4_home", "none", "wrap1"), lan}, nil,
			[]string{remove("ds4_home")}, ""},
		{"a user's interface", []string{lan, users}, home, nil, "/etc/config/network: config interface 'ds4_home'"},
		{"a user's interface with our device", []string{strings.ReplaceAll(users, `"lo"`, `"wrap1"`)}, home, nil,
			network},
		{"a user's interface that is down", []string{strings.Replace(users, `"up":true`, `"up":false`, 1)}, home,
			nil, network},
		{"a user's interface, and another tunnel", []string{lan, users}, two, []string{add("office", "wrap2")},
			network},
		{"a user's interface when all are down", []string{lan, users}, nil, nil, ""},
		{"another program's", []string{lan, dynamic("ds4_home", "none", "lo")}, home, nil,
			"netifd has an interface ds4_home"},
		{"another protocol's", []string{lan, dynamic("ds4_home", "dslite", "")}, home, nil,
			"netifd has an interface ds4_home"},
		{"others' when all are down", []string{lan, dynamic("ds4_4", "dslite", ""), dynamic("ds4_6", "none", "lo")},
			nil, nil, ""},
	} {
		calls := newNetifd(t, c.interfaces...)
		tunnels := maps.Clone(c.tunnels)
		taken, err := Show(tunnels)
		if c.refused == "" && err != nil || c.refused != "" &&
			(err == nil || !strings.Contains(err.Error(), c.refused)) {
			t.Errorf("%s: %v", c.name, err)
		}
		got := calls()
		added := slices.ContainsFunc(c.want, func(call string) bool { return strings.Contains(call, "add_dynamic") })
		if !slices.Equal(got, c.want) || taken != added || !maps.Equal(tunnels, c.tunnels) {
			t.Errorf("%s: taken: %v; calls\n%s\nwant\n%s", c.name, taken, strings.Join(got, "\n"),
				strings.Join(c.want, "\n"))
		}
		if len(got) == 0 {
			continue
		}
		if taken, err := Show(c.tunnels); taken || (err == nil) != (c.refused == "") {
			t.Errorf("%s: once more: %v, %v", c.name, taken, err)
		}
	}
}

// TestShowRemoved: netifd removes an interface itself when its device disappears, perhaps just before we ask it to. An
// interface that stays is an error.
func TestShowRemoved(t *testing.T) {
	t.Setenv("NETIFD_FIRST", "1")
	two := []string{dynamic("ds4_home", "none", "wrap1"), dynamic("ds4_office", "none", "wrap2"), lan}
	calls := newNetifd(t, two...)
	if _, err := Show(nil); err != nil || len(calls()) != 2 {
		t.Errorf("netifd was first: %v", err)
	}
	newNetifd(t, two...)
	if err := os.WriteFile(filepath.Join(os.Getenv("NETIFD"), "stays"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Show(nil); err == nil {
		t.Error("netifd keeps the interfaces, and nobody says so")
	}
}

// TestFree: a relay is refused before anything is changed, but not because of its own interface, present or former.
func TestFree(t *testing.T) {
	for text, free := range map[string]bool{
		lan: true,
		strings.Replace(lan, "lan", "ds4_home", 1): false,
		dynamic("ds4_home", "none", "wrap1"):       true,
		dynamic("ds4_home", "none", "gone0"):       true,
		dynamic("ds4_home", "none", "lo"):          false,
		dynamic("ds4_home", "wireguard", "wrap1"):  false,
	} {
		interfaces, err := ParseInterfaces([]byte(`{"interface":[` + text + `]}`))
		if err != nil {
			t.Fatal(err)
		}
		if err := Free(interfaces, "home", []string{"wrap1"}); (err == nil) != free {
			t.Errorf("%s: %v", text, err)
		}
	}
}
