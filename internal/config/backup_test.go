package config

import (
	"net/netip"
	"strings"
	"testing"
)

// TestBackup: which relay may stand in for which, in what order hosts' own connections take them, and behind which one
// the kill switch stands.
func TestBackup(t *testing.T) {
	relay := func(name, last, more string) string {
		return "config relay '" + name + "'\n\toption role 'router'\n\toption ipaddr '198.51.100." + last +
			"'\n\toption peeraddr '2001:db8:" + last + "::/64'\n\toption ip4table '" + last + "'\n" + more
	}
	forward := func(relay, egress string) string {
		return "config forward 'to_" + relay + "'\n\toption relay '" + relay + "'\n\toption src_dport '80'\n" +
			"\toption dest_ip '192.168.1.2'\n\toption egress '" + egress + "'\n"
	}
	const bBackup, cBackup, aBackup = "\toption backup 'b'\n", "\toption backup 'c'\n", "\toption backup 'a'\n"
	all := forward("a", "all") + forward("b", "all")
	for _, test := range []struct {
		name, text, want string // want: the mistake, or the ways in order
	}{
		{"one backs up the other", relay("a", "1", bBackup) + relay("b", "2", "") + all, "a b"},
		{"the other way round", relay("a", "1", "") + relay("b", "2", aBackup) + all, "b a"},
		{"three, in another order than in the file", relay("a", "1", "") + relay("b", "2", cBackup) +
			relay("c", "3", aBackup) + all + forward("c", "all"), "b c a"},
		{"only one of them has egress all, for another host", relay("a", "1", bBackup) + relay("b", "2", "") +
			forward("a", "replies") + forward("b", "all"), "b"},
		{"none", relay("a", "1", "") + relay("b", "2", "") + all, `192.168.1.2 sends its own connections through ` +
			`relay "a" already`},
		{"two have the same backup", relay("a", "1", cBackup) + relay("b", "2", cBackup) + relay("c", "3", "") + all +
			forward("c", "all"), `192.168.1.2 sends its own connections through relay "a" already`},
		{"unknown", relay("a", "1", cBackup) + forward("a", "all"), `option backup "c": there is no relay section of ` +
			`that name`},
		{"itself", relay("a", "1", aBackup) + forward("a", "all"), `option backup "a": leads back to this relay`},
		{"in a circle", relay("a", "1", bBackup) + relay("b", "2", aBackup) + all, `option backup "b": leads back to ` +
			`this relay`},
		{"no egress all there", relay("a", "1", bBackup) + relay("b", "2", "") + forward("a", "all") +
			forward("b", "replies"), `option backup "b": 192.168.1.2 has no forward with egress 'all' there`},
		{"a VPS's", relay("a", "1", bBackup) + strings.Replace(relay("b", "2", "\toption ip6addr '2001:db8::1'\n"),
			"router", "vps", 1) + forward("a", "all"), `option backup "b": is a relay of a VPS`},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, _, err := load(t, test.text)
			if err != nil {
				if !strings.Contains(err.Error(), test.want) {
					t.Errorf("got %v, want %s", err, test.want)
				}
				return
			}
			var names []string
			ways := OwnWays(c.Relays)[netip.MustParseAddr("192.168.1.2")]
			for _, r := range ways {
				names = append(names, r.Name)
			}
			if got := strings.Join(names, " "); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
			if place := KillPlace(ways); place != ways[0] {
				t.Errorf("equal priorities: the kill switch stands behind %s", place.Name)
			}
		})
	}
}
