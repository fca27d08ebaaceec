//go:build !openwrt

package debian

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/state"
)

// Neighbours are other programs that change the machine's network and may affect a relay.
type Neighbours struct {
	Stanzas        []Stanza // of ifupdown
	Scripts        []Line   // of people
	CloudInit      []string // files that cloud-init writes
	Networkd       bool     // systemd-networkd runs
	ForeignRules   bool     // networkd removes policy rules of others
	NetworkManager bool     // runs
	Drop           []state.DropChain
	Translations   []state.Translation // rules of NAT
	Self           map[netip.Addr]bool // hosts of relays that are this machine
}

// Observe looks at the machine whose root directory is root.
func Observe(root string) (n Neighbours, err error) {
	if n.Stanzas, err = Interfaces(filepath.Join(root, InterfacesPath)); err != nil {
		return n, err
	}
	for _, script := range scripts {
		paths, err := filepath.Glob(filepath.Join(root, script))
		if err != nil {
			return n, err
		}
		for _, path := range paths {
			lines, err := Script(path)
			if err != nil {
				return n, err
			}
			n.Scripts = append(n.Scripts, lines...)
		}
	}
	for _, s := range n.Stanzas {
		data, err := os.ReadFile(s.File)
		if err == nil && strings.Contains(string(data), "cloud-init") && strings.Contains(string(data), "generated") &&
			!slices.Contains(n.CloudInit, s.File) {
			n.CloudInit = append(n.CloudInit, s.File)
		}
	}
	n.Networkd = exists(root, "run/systemd/netif/state")
	n.NetworkManager = exists(root, "run/NetworkManager")
	n.ForeignRules, err = foreignRules(root)
	return n, err
}

func exists(root, path string) bool {
	_, err := os.Stat(filepath.Join(root, path))
	return err == nil
}

// foreignRules reads systemd-networkd's setting about other programs' rules (networkd.conf(5)): of files with the same
// name the one in /etc counts, and the last name wins.
func foreignRules(root string) (bool, error) {
	dropIns := map[string]string{}
	for _, dir := range []string{"usr/lib", "run", "etc"} {
		paths, err := filepath.Glob(filepath.Join(root, dir, "systemd/networkd.conf.d/*.conf"))
		if err != nil {
			return false, err
		}
		for _, path := range paths {
			dropIns[filepath.Base(path)] = path
		}
	}
	var names []string
	for name := range dropIns {
		names = append(names, name)
	}
	slices.Sort(names)
	paths := []string{filepath.Join(root, "etc/systemd/networkd.conf")}
	for _, name := range names {
		paths = append(paths, dropIns[name])
	}
	removes := true
	for _, path := range paths {
		lines, err := Script(path)
		if err != nil {
			return false, err
		}
		for _, line := range lines {
			key, value, _ := strings.Cut(line.Text, "=")
			if strings.TrimSpace(key) == "ManageForeignRoutingPolicyRules" {
				removes = !slices.Contains([]string{"no", "false", "off", "0"},
					strings.ToLower(strings.TrimSpace(value)))
			}
		}
	}
	return removes, nil
}

// Notes are what a person should know about the neighbours of enabled relays: each a sentence that says what to do.
func (n Neighbours) Notes(relays []*config.Relay) []*message.Text {
	notes := ByHand(relays, n.Stanzas, n.Scripts)
	for _, s := range n.Stanzas {
		if s.Option("ds4relay") != nil && slices.Contains(n.CloudInit, s.File) {
			notes = append(notes, message.New("%s: cloud-init writes this file anew, and would lose iface %s; move "+
				"its lines to /etc/network/interfaces.d/ds4relay", s.Where(), s.Name))
		}
		if words := s.Option("ds4relay"); len(words) == 1 && !slices.ContainsFunc(relays, func(r *config.Relay) bool {
			return r.Name == words[0]
		}) {
			notes = append(notes, message.New("%s: iface %s: there is no relay %s that is enabled: ifup %s will fail",
				s.Where(), s.Name, words[0], s.Name))
		}
	}
	if n.Networkd && n.ForeignRules && len(relays) > 0 {
		notes = append(notes, message.New("systemd-networkd removes policy rules that it did not make when it "+
			"starts; homes with the same addresses need some: "+
			"write ManageForeignRoutingPolicyRules=no into /etc/systemd/networkd.conf, section [Network], or remove "+
			"the line that sets it to yes"))
	}
	for i := range n.Translations {
		if note := n.Translations[i].Note(relays); note != nil {
			notes = append(notes, note)
		}
	}
	for _, r := range relays {
		link := state.Link{Name: r.Device, Relay: r.Name, Tunnel: state.TunnelOf(r, r.Local, r.Peer)}
		if n.NetworkManager && !strings.HasPrefix(link.Name, "ds4-") {
			notes = append(notes, message.New("NetworkManager may take %s for a device of its own: nmcli device set "+
				"%s managed no, or leave option device out (ds4-%s)",
				link.Name, link.Name, link.Relay))
		}
		for _, chain := range n.Drop {
			if r.PeerName != "" && chain.Hook == "input" {
				continue // no fixed rule is possible
			}
			if commands := chain.Lacking(r, link, n.Self); len(commands) > 0 {
				notes = append(notes, message.New("the chain %s of table %s %s drops what it does not know, and no "+
					"rule in it is about relay %q; write into its file, or type: %s",
					chain.Name, chain.Family, chain.Table, link.Relay, strings.Join(commands, "; ")))
			}
		}
	}
	return notes
}
