package state

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/transport"
	"github.com/ds4relay/ds4relay/internal/uci"
)

var update = flag.Bool("update", false, "write what is planned into the cases")

// TestPlan reads one case per file: the configuration, facts about the machine, the plan. With a part `from` the
// machine starts with what that configuration wants, otherwise with nothing.
func TestPlan(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			parts := map[string]*txtar.File{}
			for i := range archive.Files {
				parts[archive.Files[i].Name] = &archive.Files[i]
			}
			facts := parseFacts(t, string(parts["facts"].Data))
			have := Observed{SysctlValues: map[string]string{}}
			if from := parts["from"]; from != nil {
				former := facts
				former.Silent = nil // all VPSs were heard then
				have.State = compile(t, from.Data, former)
				for _, s := range have.Sysctls {
					have.SysctlValues[s.Key] = s.Value
					if s.Device == "" {
						have.SavedSysctls = append(have.SavedSysctls, Sysctl{Key: s.Key, Value: "0"})
					}
				}
			}
			want := compile(t, parts["ds4relay"].Data, facts)
			steps, err := Plan(have, want)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, step := range steps {
				for _, command := range step.Commands() {
					got.WriteString(command + "\n")
				}
			}
			if *update {
				parts["plan"].Data = []byte(got.String())
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got.String() != string(parts["plan"].Data) {
				t.Errorf("got\n%s", got.String())
			}
			checkUndo(t, steps)
		})
	}
}

func compile(t *testing.T, text []byte, facts Facts) State {
	t.Helper()
	file, err := uci.Parse("ds4relay", text)
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := config.New(file, config.Defaults{Role: config.VPS})
	if err != nil {
		t.Fatal(err)
	}
	var relays []*config.Relay
	for _, r := range c.Relays {
		if r.Enabled {
			relays = append(relays, r)
		}
	}
	return Compile(relays, facts)
}

// parseFacts reads lines: tunlink RELAY DEVICE, access RELAY DEVICE, mtu RELAY BYTES, peer RELAY ADDRESS, lan HOST
// DEVICE, self HOST, own TABLE HOST DEVICE, connected NETWORK, closed DEVICE, flowtables, mistaken, silent RELAY,
// onlink RELAY DEVICE, keys RELAY, iptables PROGRAM …
func parseFacts(t *testing.T, text string) Facts {
	t.Helper()
	f := Facts{Peer: map[string]netip.Addr{}, Tunlink: map[string]string{}, Access: map[string]string{},
		PathMTU: map[string]int{}, LAN: map[netip.Addr]string{}, Self: map[netip.Addr]bool{}, Silent: map[string]bool{}}
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch words[0] {
		case "tunlink":
			f.Tunlink[words[1]] = words[2]
		case "access":
			f.Access[words[1]] = words[2]
		case "card":
			f.Card = map[string]netip.Addr{words[1]: netip.MustParseAddr(words[2])}
		case "mtu":
			mtu, err := strconv.Atoi(words[2])
			if err != nil {
				t.Fatal(err)
			}
			f.PathMTU[words[1]] = mtu
		case "peer":
			f.Peer[words[1]] = netip.MustParseAddr(words[2])
		case "lan":
			f.LAN[netip.MustParseAddr(words[1])] = words[2]
		case "self":
			f.Self[netip.MustParseAddr(words[1])] = true
		case "connected":
			p := netip.MustParsePrefix(words[1])
			f.Inside, f.Connected = append(f.Inside, p), append(f.Connected, p)
		case "closed":
			f.Closed = map[string]bool{words[1]: true}
		case "flowtables":
			f.FlowTables = true
		case "silent":
			f.Silent[words[1]] = true
		case "mistaken":
			f.MistakenTunnels = true
		case "onlink":
			f.OnLink = map[string]string{words[1]: words[2]}
		case "keys":
			f.Keys = map[string]Keys{words[1]: {Private: transport.Secret{1}, Preshared: transport.Secret{2}}}
		case "iptables":
			f.IPTables = IPTables{}
			for _, program := range words[1:] {
				f.IPTables[strings.ReplaceAll(program, ",", " ")] = true
			}
		case "own":
			table, err := strconv.Atoi(words[1])
			if err != nil {
				t.Fatal(err)
			}
			f.Own = append(f.Own, Route{Table: uint32(table), Dst: netip.PrefixFrom(netip.MustParseAddr(words[2]), 32),
				Device: words[3]})
		default:
			t.Fatalf("unknown fact %q", line)
		}
	}
	return f
}

// checkUndo: undoing an undo gives the step again.
func checkUndo(t *testing.T, steps []Step) {
	t.Helper()
	for _, step := range steps {
		switch s := step.(type) {
		case EndFlows:
			continue
		case SetMTU:
			if s.From == 0 {
				continue
			}
		case SetPeer:
			if s.From == (transport.WireGuard{}) { // the tunnel is new, and is removed
				continue
			}
		}
		undo := step.Undo()
		if len(undo) == 0 {
			t.Errorf("%s cannot be undone", step.Commands()[0])
			continue
		}
		if again := undo[0].Undo(); len(again) == 0 || again[0].Commands()[0] != step.Commands()[0] {
			t.Errorf("%s is undone to %s", step.Commands()[0], again[0].Commands()[0])
		}
	}
}

func TestTunnelMTU(t *testing.T) {
	for _, c := range []struct{ mtu, limit, path, want int }{
		{0, transport.NoEncapLimit, 1500, 1460}, {0, 4, 1500, 1452}, {0, transport.NoEncapLimit, 1492, 1452},
		{0, transport.NoEncapLimit, 0, 1460}, {1400, 4, 1280, 1400}, {0, transport.NoEncapLimit, 9000, 1460},
		{8960, transport.NoEncapLimit, 9000, 8960},
	} {
		facts := Facts{PathMTU: map[string]int{}, Narrow: map[string]int{}}
		if c.path != 0 {
			facts.PathMTU["r"] = c.path
		}
		if got := TunnelMTU(&config.Relay{Name: "r", MTU: c.mtu, EncapLimit: c.limit}, facts); got != c.want {
			t.Errorf("mtu %d, encaplimit %d, path %d: %d, want %d", c.mtu, c.limit, c.path, got, c.want)
		}
		facts.Narrow["r"] = 1360 // does not replace what the configuration says
		if c.mtu == 0 {
			c.want = 1360
		}
		if got := TunnelMTU(&config.Relay{Name: "r", MTU: c.mtu, EncapLimit: c.limit}, facts); got != c.want {
			t.Errorf("mtu %d, a narrow path: %d, want %d", c.mtu, got, c.want)
		}
	}
}

// TestNames: nft 1.0.2 (OpenWrt 22.03, Ubuntu 22.04) takes no word of its language as a name, such as mss. Names of one
// word are those that it has been seen to take; others have an underscore, which few of its words have.
func TestNames(t *testing.T) {
	taken := strings.Fields("card dstnat egress endpoint established fence fenced forward forwards hairpin host input " +
		"inside masq member opened output peer slot source srcnat unmarked")
	name := regexp.MustCompile(`(?m)^\t(?:chain|map|set|flowtable) (\S+) \{`)
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range name.FindAllSubmatch(data, -1) {
			if word := string(m[1]); !strings.Contains(word, "_") && !slices.Contains(taken, word) {
				t.Errorf("%s: is %q a word of nft? Try it on nft 1.0.2", file, word)
			}
		}
	}
}

// TestSilence: whichever VPSs are silent, a host's own connections leave by exactly one relay, by one that is heard if
// there is one, and of those with one public address at least one carries the answers.
func TestSilence(t *testing.T) {
	relay := func(name, last, more string) string {
		return "config relay '" + name + "'\n\toption role 'router'\n\toption ipaddr '198.51.100." + last +
			"'\n\toption ip6addr '2001:db8:fdd2::/64'\n\toption peeraddr '2001:db8:" + name + "::/64'\n\toption ip4table '" +
			name + "'\n\toption device 'wrap" + name + "'\n" + more
	}
	text := []byte(relay("1", "1", "\toption backup '2'\n") + relay("2", "1", "\toption backup '3'\n") +
		relay("3", "3", "") + "config forward 'all'\n\tlist relay '1'\n\tlist relay '2'\n\toption src_dport '80'\n" +
		"\toption dest_ip '192.168.1.210'\n\toption egress 'all'\nconfig forward 'third'\n\toption relay '3'\n" +
		"\toption src_dport '80'\n\toption dest_ip '192.168.1.210'\n\toption egress 'all'\n")
	for silent := range 8 {
		facts := Facts{Silent: map[string]bool{}, LAN: map[netip.Addr]string{}}
		for i := range 3 {
			if silent&(1<<i) != 0 {
				facts.Silent[strconv.Itoa(i+1)] = true
			}
		}
		s := compile(t, text, facts)
		var tables []uint32
		for _, rule := range s.Rules {
			if rule.Mark != 0 && rule.From.IsValid() && !rule.NoDefault {
				tables = append(tables, rule.Table)
			}
		}
		if len(tables) != 1 || silent != 7 && facts.Silent[strconv.Itoa(int(tables[0]))] {
			t.Errorf("silent %v: own connections by tables %v", facts.Silent, tables)
		}
		if !strings.Contains(s.table("ip").Ruleset, "_turn {\n\t\tip saddr") {
			t.Errorf("silent %v: no tunnel carries the answers", facts.Silent)
		}
	}
}
