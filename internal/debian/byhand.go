//go:build !openwrt

package debian

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
)

// scripts are files, besides ifupdown's, in which people set up tunnels and NAT; wg-quick's are among them.
var scripts = []string{"/etc/rc.local", "/etc/nftables.conf", "/etc/iptables/rules.v4", "/etc/wireguard/*.conf"}

// secret recognises a line with a key of wg-quick(8), which is never shown.
var secret = regexp.MustCompile(`(?i)^\s*(private|preshared)key\s*=`)

// Script reads the lines of a file that may be missing.
func Script(path string) ([]Line, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return logicalLines(path, string(data)), err
}

// What a line may do for a relay, among others.
var (
	makesTunnel = message.New("makes the tunnel")
	aboutTunnel = message.New("is about the tunnel")
)

// byHand is what a line does that ds4relay does for a relay: nothing without a code.
func byHand(r *config.Relay, line Line) *message.Text {
	words := line.Words()
	if secret.MatchString(line.Text) {
		return nil
	}
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
		return word == r.Device || err == nil && (r.Has(addr) || addr == r.Local || addr == r.Peer ||
			slices.ContainsFunc(r.Forwards, func(f *config.Forward) bool { return f.DestIP == addr }))
	})
	switch {
	case r.Transport == config.WireGuard && strings.Contains(line.Text, r.WireGuard.PublicKey.String()):
		return makesTunnel
	case !mentions || words[0] == "ds4relay" || words[0] == "address" || words[0] == "gateway":
		return nil
	case has("tunnel", "add"), has("tun", "add"), has("link", "add", "type", "ip6tnl"):
		return makesTunnel
	case strings.Contains(lower, "dnat"), strings.Contains(lower, "snat"), strings.Contains(lower, "masquerade"):
		return message.New("translates addresses")
	case slices.Contains(words, r.Device) || strings.Contains(line.Text, r.Local.String()) && r.Local.IsValid():
		return aboutTunnel
	}
	return nil
}

// ByHand are the lines that set up what ds4relay sets up for a relay, to be deleted. What is only about the tunnel is
// somebody's addition to ours, unless the tunnel is made by hand too.
func ByHand(relays []*config.Relay, stanzas []Stanza, others []Line) []*message.Text {
	var lines []Line
	for _, s := range stanzas {
		lines = append(lines, s.Options...)
	}
	lines = append(lines, others...)
	var found []*message.Text
	for _, r := range relays {
		if r.Role != config.VPS {
			continue
		}
		does := make([]*message.Text, len(lines))
		for i, line := range lines {
			does[i] = byHand(r, line)
		}
		made := slices.ContainsFunc(does, func(t *message.Text) bool { return t.Is(makesTunnel) })
		for i, line := range lines {
			if does[i] == nil || does[i].Is(aboutTunnel) && !made {
				continue
			}
			found = append(found, message.New("%s: %s of relay %q by hand, which ds4relay does: delete this line: %s",
				line.Where(), does[i], r.Name, line.Text))
		}
		for _, s := range stanzas {
			if made && s.Name == r.Device && s.Option("ds4relay") == nil {
				found = append(found, message.New("%s: %s: in place of the lines that make the tunnel write: "+
					"ds4relay %s", s.Where(), s.Text, r.Name))
			}
		}
	}
	return found
}
