//go:build !openwrt

package setup

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/transport"
	"github.com/ds4relay/ds4relay/internal/uci"
)

var update = flag.Bool("update", false, "write the results in testdata anew")

// machineOf reads what ip(8) and ss(8) print on a machine: `ip -o address`, `ip route`, `ip -6 route`, `ss -Hlntup`.
func machineOf(t *testing.T, files map[string]string) Machine {
	t.Helper()
	m := Machine{WireGuard: true, IP6Tunnel: true, Session: strings.TrimSpace(files["SSH_CONNECTION"]),
		SSHD: files["sshd -T"]}
	for line := range strings.Lines(files["ip -o address"]) {
		words := strings.Fields(line) // NUMBER: DEVICE FAMILY ADDRESS/BITS …
		if len(words) < 4 {
			t.Fatalf("no line of ip: %s", line)
		}
		text, _, _ := strings.Cut(words[3], "/")
		m.Addrs = append(m.Addrs, Addr{Addr: netip.MustParseAddr(text), Device: words[1],
			Passing:  regexp.MustCompile(` (temporary|deprecated|tentative|dadfailed)\b`).MatchString(line),
			Lifetime: !strings.Contains(line, "valid_lft forever")})
	}
	device := func(routes string) string {
		if found := regexp.MustCompile(`(?m)^default .*\bdev (\S+)`).FindStringSubmatch(files[routes]); found != nil {
			return found[1]
		}
		return ""
	}
	m.IPv4, m.IPv6 = device("ip route"), device("ip -6 route")
	for line := range strings.Lines(files["ss -Hlntup"]) {
		words := strings.Fields(line) // PROTOCOL STATE N N ADDRESS:PORT PEER users:(("PROGRAM",…
		at := strings.LastIndexByte(words[4], ':')
		text, _, _ := strings.Cut(strings.Trim(words[4][:at], "[]"), "%")
		text = strings.Trim(text, "[]")
		if text == "*" {
			text = "::"
		}
		port, err := strconv.ParseUint(words[4][at+1:], 10, 16)
		if err != nil {
			t.Fatal(err)
		}
		s := Socket{Proto: map[string]uint8{"tcp": config.TCP, "udp": config.UDP}[words[0]],
			Addr: netip.MustParseAddr(text), Port: uint16(port)}
		if len(words) > 6 {
			s.Program = regexp.MustCompile(`"([^"]+)"`).FindStringSubmatch(words[6])[1]
		}
		m.Sockets = append(m.Sockets, s)
	}
	if cloud := strings.TrimSpace(files["cloud"]); cloud != "" {
		m.Cloud = netip.MustParseAddr(cloud)
	}
	if strings.Contains(files["kernel"], "no wireguard") {
		m.WireGuard = false
	}
	if strings.Contains(files["kernel"], "no ip6_tunnel") {
		m.IP6Tunnel = false
	}
	return m
}

// options reads words of the command line.
func options(line string) Options {
	o := Options{Path: "ds4relay", Relay: "home", Defaults: config.Defaults{Role: config.VPS}}
	words := strings.Fields(line)
	if i := slices.Index(words, "--standby"); i >= 0 {
		o.Standby, words = true, slices.Delete(words, i, i+1)
	}
	for i := 0; i+1 < len(words); i += 2 {
		switch words[i] {
		case "--relay":
			o.Relay = words[i+1]
		case "--transport":
			o.Transport = config.Transport(words[i+1])
		case "--ipaddr":
			o.IPAddr = netip.MustParseAddr(words[i+1])
		}
	}
	return o
}

// outcome is what setup would do on a machine, and whom the invitation would call.
func outcome(m Machine, former []byte, o Options) (string, []byte) {
	plan, err := Decide(m, former, o)
	if err != nil {
		return fmt.Sprintf("error: %v\n", err), former
	}
	var b strings.Builder
	if string(plan.Text) == string(former) {
		b.WriteString("nothing to change\n")
	} else {
		b.Write(plan.Text)
	}
	if len(plan.Choices) > 0 {
		fmt.Fprintf(&b, "choice: %v\n", plan.Choices)
	}
	for _, k := range plan.Kept {
		fmt.Fprintf(&b, "kept: %s\n", k)
	}
	for _, note := range plan.Notes {
		fmt.Fprintf(&b, "note: %v\n", note)
	}
	for _, warning := range plan.Warnings {
		fmt.Fprintf(&b, "warning: %v\n", warning)
	}
	if plan.Rejoin {
		b.WriteString("the home must join again\n")
	}
	i, err := Invitation(m, plan.Relay, Keys{}, time.Unix(0, 0))
	if err != nil {
		fmt.Fprintf(&b, "no invitation: %v\n", err)
	} else {
		if i.Standby {
			b.WriteString("one of several VPSs: ")
		}
		fmt.Fprintf(&b, "invitation: %v ssh %d %s %d\n", i.Hosts, i.SSHPort, i.Transport, i.Port)
	}
	return b.String(), plan.Text
}

// TestMachines: what setup writes on machines as people have them, and that it has nothing to do when it runs again. A
// case is a txtar file: what programs print there, the file before, and the outcome. -update writes the outcomes.
func TestMachines(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) < 10 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files := map[string]string{}
			for _, f := range archive.Files {
				files[f.Name] = string(f.Data)
			}
			var former []byte
			if text, ok := files["file"]; ok {
				former = []byte(text)
			}
			m := machineOf(t, files)
			got, text := outcome(m, former, options(files["setup"]))
			if *update {
				for i := range archive.Files {
					if archive.Files[i].Name == "outcome" {
						archive.Files[i].Data = []byte(got)
					}
				}
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != files["outcome"] {
				t.Errorf("got\n%s\nwant\n%s", got, files["outcome"])
			}
			if strings.HasPrefix(got, "error") {
				return
			}
			if again, _ := outcome(m, text, options(files["setup"])); !strings.HasPrefix(again, "nothing to change\n") {
				t.Errorf("a second time:\n%s", again)
			}
		})
	}
}

// TestExample: the file of the package is recognised, also with other comments; one that somebody has begun is not.
func TestExample(t *testing.T) {
	data, err := os.ReadFile("../../files/debian/etc/config/ds4relay")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		string(data): true,
		strings.ReplaceAll(string(data), "#", "# x"): true,
		"":      true,
		"# x\n": true,
		strings.Replace(string(data), "192.168.1.210", "192.168.1.211", 1): false,
		strings.Replace(string(data), "enabled '0'", "enabled '1'", 1):     false,
		string(data) + "\nconfig forward\n":                                false,
	} {
		file, err := uci.Parse("F", []byte(text))
		if err != nil || untouched(file) != want {
			t.Errorf("%v, want %v for\n%s", err, want, text)
		}
	}
}

// TestDecideErrors: what the command line and files cannot have.
func TestDecideErrors(t *testing.T) {
	m := Machine{IPv4: "eth0", Addrs: []Addr{{Addr: netip.MustParseAddr("198.51.100.20"), Device: "eth0"}},
		WireGuard: true, IP6Tunnel: true}
	byHand := "config relay 'home'\n\toption ipaddr '198.51.100.20'\n\toption ip6addr '2001:db8::1'\n\toption peeraddr " +
		"'2001:db8:1::1'\n"
	const atHome = "config relay 'home'\n\toption role 'router'\n\toption ipaddr '198.51.100.144'\n\toption ip6addr " +
		"'2001:db8:2::1'\n\toption peeraddr '2001:db8:3::1'\n"
	for _, c := range []struct {
		machine       func(*Machine)
		former, setup string
		want          string
	}{
		{nil, "", "--ipaddr 198.51.100.21", "no network device has the address 198.51.100.21, and eth0 has no private " +
			"address to which a cloud could translate it; `ip -4 address` shows the addresses"},
		{func(m *Machine) { m.IPv4 = "" }, "", "--ipaddr 198.51.100.21", "no network device has the address " +
			"198.51.100.21, and there is no IPv4 default route by which a cloud could translate it; `ip -4 address` shows " +
			"the addresses"},
		{nil, "", "--transport ipip6", "transport ipip6 needs a global IPv6 address on the device with the IPv6 default " +
			"route, and this machine has none; use wireguard: ds4relay setup --transport wireguard"},
		{func(m *Machine) { m.WireGuard = false }, "", "--transport wireguard",
			"the kernel has no module wireguard, which transport wireguard needs"},
		{func(m *Machine) { m.WireGuard = false }, "", "", "this machine cannot load a kernel module for a tunnel " +
			"(wireguard or ip6_tunnel), as in most containers; if the home server has its own IPv6 address, use the proxy, " +
			"which needs none: man 5 ds4relay"},
		{func(m *Machine) { m.Addrs = nil }, "", "", ErrAddress.Error()},
		{nil, byHand, "", "ds4relay: relay \"home\" was written by hand (it has no list allow), so setup leaves it " +
			"alone; choose another name: ds4relay setup --relay NAME"},
		{nil, byHand + "config forward 'cabin'\n\toption src_dport 1\n\toption dest_ip 192.168.1.1\n", "--relay cabin",
			"ds4relay already has a section \"cabin\" (a forward); choose another name: ds4relay setup --relay NAME"},
		{nil, atHome, "", "ds4relay: " + ErrHome.Error()},
		{nil, atHome, "--relay cabin", "ds4relay: " + ErrHome.Error()},
		{nil, atHome + strings.ReplaceAll(byHand, "'home'", "'attic'"), "", "ds4relay: relay \"home\" is a home's end " +
			"(option role 'router'); choose another name: ds4relay setup --relay NAME"},
		{nil, "", "--standby", ErrShared.Error()},
		{nil, byHand + "config relay 'paired'\n\toption transport 'wireguard'\n\toption ipaddr '198.51.100.20'\n\tlist " +
			"allow 'tcp:80'\n", "--standby --relay paired", ErrShared.Error()},
		{func(m *Machine) { m.IPv4 = "" }, "", "--standby --ipaddr 198.51.100.144", "there is no IPv4 default route, so " +
			"it is not known by which device clients arrive while this VPS has the address; a VPS with standby needs one"},
		{func(m *Machine) {
			m.IPv6, m.Addrs = "he6", append(m.Addrs, Addr{Addr: netip.MustParseAddr("2001:db8::2"), Device: "he6"})
		}, "", "--standby --ipaddr 198.51.100.144 --transport ipip6", "with standby, clients and an ipip6 tunnel arrive by " +
			"one device, but the default routes of this machine are on two (IPv4: eth0, IPv6: he6); use wireguard: ds4relay " +
			"setup --transport wireguard"},
		{nil, "confg\n", "", `ds4relay:1: unknown word "confg"; a line begins with config, option or list`},
	} {
		machine := m
		if c.machine != nil {
			c.machine(&machine)
		}
		_, err := Decide(machine, []byte(c.former), options(c.setup))
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: %v\nwant %s", c.setup, err, c.want)
		}
	}
	if _, err := Decide(m, []byte(byHand), options("")); !errors.Is(err, ErrByHand) {
		t.Error("not ErrByHand:", err)
	}
	var problems config.Problems
	if _, err := Decide(m, []byte("config relay 'x'\n"), options("")); !errors.As(err, &problems) {
		t.Error("not the problems of the file:", err)
	}
}

// TestInvitation: it has the keys, and is good for a day.
func TestInvitation(t *testing.T) {
	m := Machine{Session: "203.0.113.9 50000 198.51.100.20 2222"}
	r := &config.Relay{Name: "home", Transport: config.WireGuard, IPAddr: netip.MustParseAddr("198.51.100.20")}
	r.WireGuard.Port = 51846
	keys := Keys{Host: []byte{1}, OneTime: [64]byte{2}, Public: transport.Key{3}}
	now := time.Unix(1000, 5)
	i, err := Invitation(m, r, keys, now)
	if err != nil || i.SSHPort != 2222 || !i.Expires.Equal(time.Unix(1000+86400, 0)) || i.Key != keys.OneTime ||
		string(i.HostKey) != "\x01" || i.PublicKey != keys.Public.String() {
		t.Errorf("%v, %+v", err, i)
	}
	if _, err := Invitation(Machine{}, r, keys, now); err == nil || !strings.Contains(err.Error(), "openssh-server") {
		t.Error(err)
	}
	tunnel := &config.Relay{Name: "home", Transport: config.IPIP6, IPAddr: r.IPAddr,
		Local: netip.MustParseAddr("2001:db8::5")}
	for addr, want := range map[string]string{"::": "[2001:db8::5 198.51.100.20]", "2001:db8::9": "[2001:db8::5 2001:db8::9]",
		"0.0.0.0": "[]"} {
		m := Machine{Sockets: []Socket{{config.TCP, netip.MustParseAddr(addr), 22, "sshd"}}}
		i, err := Invitation(m, tunnel, keys, now)
		if got := fmt.Sprint(i.Hosts); got != want || (err != nil) != (want == "[]") {
			t.Errorf("ssh at %s: %s, %v; want %s", addr, got, err, want)
		}
	}
	// With standby the home needs an address that stays here, for ssh and for the tunnel.
	alone := Machine{IPv4: "eth0", Addrs: []Addr{{Addr: r.IPAddr, Device: "eth0"}}, Sockets: []Socket{{config.TCP, r.IPAddr,
		22, "sshd"}}}
	standby := *r
	standby.Standby = true
	if _, err := Invitation(alone, &standby, keys, now); err == nil || !strings.Contains(err.Error(), "(option standby)") {
		t.Error(err)
	}
	alone.Addrs = append(alone.Addrs, Addr{Addr: netip.MustParseAddr("198.51.100.21"), Device: "eth0"})
	alone.Sockets[0].Addr = netip.IPv4Unspecified()
	if i, err := Invitation(alone, &standby, keys, now); err != nil || fmt.Sprint(i.Hosts) != "[198.51.100.21]" || !i.Standby {
		t.Errorf("%v, %+v", err, i)
	}
	vpn := Machine{Addrs: []Addr{{Addr: r.IPAddr, Device: "eth0"}}, Sockets: []Socket{{config.TCP,
		netip.MustParseAddr("10.8.0.1"), 22, "sshd"}}}
	if _, err := Invitation(vpn, r, keys, now); err == nil || !strings.Contains(err.Error(), "ListenAddress") {
		t.Error(err)
	}
}
