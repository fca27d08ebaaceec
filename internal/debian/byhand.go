//go:build !openwrt

package debian

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
)

// scripts are files, besides ifupdown's, in which people set up tunnels and NAT.
var scripts = []string{"/etc/rc.local", "/etc/nftables.conf", "/etc/iptables/rules.v4"}

// Script reads the lines of a file that may be missing.
func Script(path string) ([]Line, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return logicalLines(path, string(data)), err
}

// byHand says what a line sets up that ds4relay sets up for the relay: "" for nothing.
func byHand(r *config.Relay, line Line) string {
	words := line.Words()
	has := func(all ...string) bool {
		return !slices.ContainsFunc(all, func(word string) bool { return !slices.Contains(words, word) })
	}
	lower := strings.ToLower(line.Text)
	mentions := slices.ContainsFunc(words, func(word string) bool {
		word, _, _ = strings.Cut(strings.Trim(word, `"';,{}`), "/")
		if host, _, found := strings.Cut(word, ":"); found && strings.Count(word, ":") == 1 {
			word = host
		}
		addr, err := netip.ParseAddr(word)
		return word == r.Device || err == nil && (addr == r.IPAddr || addr == r.Local || addr == r.Peer ||
			slices.ContainsFunc(r.Forwards, func(f *config.Forward) bool { return f.DestIP == addr }))
	})
	switch {
	case !mentions || words[0] == "ds4relay" || words[0] == "address" || words[0] == "gateway":
		return ""
	case has("tunnel", "add"), has("tun", "add"), has("link", "add", "type", "ip6tnl"):
		return "makes the tunnel"
	case strings.Contains(lower, "dnat"), strings.Contains(lower, "snat"), strings.Contains(lower, "masquerade"):
		return "translates addresses"
	case slices.Contains(words, r.Device) || strings.Contains(line.Text, r.Local.String()) && r.Local.IsValid():
		return "is about the tunnel"
	}
	return ""
}

// ByHand returns the lines to delete because ds4relay does the same for a relay. Lines that only use the tunnel are
// additions to ours, unless the tunnel is made by hand too.
func ByHand(relays []*config.Relay, stanzas []Stanza, others []Line) []string {
	var lines []Line
	for _, s := range stanzas {
		lines = append(lines, s.Options...)
	}
	lines = append(lines, others...)
	var found []string
	for _, r := range relays {
		if r.Role != config.VPS {
			continue
		}
		does := make([]string, len(lines))
		for i, line := range lines {
			does[i] = byHand(r, line)
		}
		made := slices.Contains(does, "makes the tunnel")
		for i, line := range lines {
			if does[i] == "" || does[i] == "is about the tunnel" && !made {
				continue
			}
			found = append(found, fmt.Sprintf("%s: %s of relay %q by hand, which ds4relay does: delete this line: %s",
				line.Where(), does[i], r.Name, line.Text))
		}
		for _, s := range stanzas {
			if made && s.Name == r.Device && s.Option("ds4relay") == nil {
				found = append(found,
					fmt.Sprintf("%s: %s: in place of the lines that make the tunnel write: ds4relay %s", s.Where(),
						s.Text, r.Name))
			}
		}
	}
	return found
}
