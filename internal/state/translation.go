//go:build !openwrt

package state

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
)

// Translation is another program's rule that translates addresses, as far as it can be read.
type Translation struct {
	Where    string // the program or the table, and the chain
	Rule     string // as it is listed
	Source   bool   // the source address; otherwise the destination
	Priority int    // of the chain's hook

	ports   []config.PortSet // destination ports; empty: all
	proto   uint8            // 0: any
	to      netip.Prefix     // destination; not valid: any
	out     []string         // devices by which the packets leave; empty: any. A + at the end stands for anything
	notOut  bool             // all devices but out
	limited bool             // by something else, or to some sources
}

// Priorities of our chains of type nat (vps.nft), and of others' unless they say something else.
const (
	ourDNAT, ourSNAT     = -101, 99
	usualDNAT, usualSNAT = -100, 100
)

// IPTablesTranslations reads the output of `PROGRAM -t nat -S`.
func IPTablesTranslations(program, listing string) []Translation {
	var found []Translation
	for line := range strings.Lines(listing) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "-A" {
			continue
		}
		where := fmt.Sprintf("%s, table nat, chain %s", program, words[1])
		t := Translation{Where: where, Rule: strings.TrimSpace(line), Priority: usualDNAT}
		if t.iptables(words[2:]) {
			found = append(found, t)
		}
	}
	return found
}

// iptables reads the words of a rule behind its chain, and reports whether it translates addresses.
func (t *Translation) iptables(words []string) (translates bool) {
	not, ports := false, ""
	for i := 0; i < len(words); i++ {
		value := ""
		if i+1 < len(words) {
			value = words[i+1]
		}
		switch words[i] {
		case "!":
			not = true
			continue
		case "-p":
			t.proto, _ = config.ParseProto(value)
			t.limited = t.limited || not
			i++
		case "--dport", "--dports":
			ports = strings.ReplaceAll(value, ":", "-")
			t.limited = t.limited || not
			i++
		case "-d":
			t.to = network4(value)
			t.limited = t.limited || not
			i++
		case "-o":
			t.out, t.notOut = []string{value}, not
			i++
		case "-j", "-g":
			t.Source = value == "MASQUERADE" || value == "SNAT"
			translates = t.Source || value == "DNAT" || value == "REDIRECT"
			i = len(words)
		case "--comment", "-m", "-i", "--dst-type":
			i++ // a device by which packets come may be the relay's
		default: // -s, a mark, a state …
			t.limited = true
		}
		not = false
	}
	if t.Source {
		t.Priority = usualSNAT
	}
	return translates && t.setPorts(ports)
}

var (
	nftChain = regexp.MustCompile(`^\tchain (\S+) {`)
	nftHook  = regexp.MustCompile(`^\t\ttype nat hook \S+ (?:device \S+ )?priority ([a-z]*) ?([-+]? ?\d+)?;`)
	nftDest  = regexp.MustCompile(`\b(?:dnat|redirect)\b`)
	nftSrc   = regexp.MustCompile(`\b(?:snat|masquerade)\b`)
	nftPorts = regexp.MustCompile(`\b(tcp|udp|sctp|dccp|udplite|th) dport (!= )?(\{[^}]*\}|\S+)`)
	nftProto = regexp.MustCompile(`\b(?:l4proto|ip protocol) (\w+)`)
	nftTo    = regexp.MustCompile(`\bip daddr (!= )?(\{[^}]*\}|\S+)`)
	nftOut   = regexp.MustCompile(`\boif(?:name)? (!= )?(\{[^}]*\}|"[^"]*")`)
	// nftPlain is what does not limit a rule.
	nftPlain = regexp.MustCompile(`\bcounter( packets \d+ bytes \d+)?|comment "[^"]*"|\biif(name)? (!= )?"[^"]*"|` +
		`\bmeta nfproto ipv4|\bfib daddr type local|\bfully-random|\brandom|\bpersistent|# handle \d+`)
)

// nftPriorities are the names of priorities of the family ip (nft(8)).
var nftPriorities = map[string]int{"raw": -300, "mangle": -150, "dstnat": usualDNAT, "filter": 0, "security": 50,
	"srcnat": usualSNAT}

// NftTranslations reads the output of `nft list table FAMILY TABLE`.
func NftTranslations(family, table, listing string) []Translation {
	var found []Translation
	chain, priority, hooked := "", 0, false
	for line := range strings.Lines(listing) {
		if m := nftChain.FindStringSubmatch(line); m != nil {
			chain, hooked = m[1], false
			continue
		}
		if m := nftHook.FindStringSubmatch(line); m != nil {
			offset, _ := strconv.Atoi(strings.ReplaceAll(m[2], " ", ""))
			priority, hooked = nftPriorities[m[1]]+offset, true
			continue
		}
		rule := strings.TrimSpace(line)
		t := Translation{Where: fmt.Sprintf("nft, table %s %s, chain %s", family, table, chain), Rule: rule}
		// What follows says where to.
		if at := nftSrc.FindStringIndex(rule); at != nil {
			t.Source, t.Priority, rule = true, usualSNAT, rule[:at[0]]
		} else if at := nftDest.FindStringIndex(rule); at != nil {
			t.Priority, rule = usualDNAT, rule[:at[0]]
		} else {
			continue
		}
		if hooked {
			t.Priority = priority
		}
		if chain != "" && t.nft(rule) {
			found = append(found, t)
		}
	}
	return found
}

// nft reads the part of a rule that says which packets it is about, and reports whether that can be compared.
func (t *Translation) nft(rule string) bool {
	take := func(pattern *regexp.Regexp) []string {
		m := pattern.FindStringSubmatch(rule)
		if m != nil {
			rule = strings.Replace(rule, m[0], "", 1)
		}
		return m
	}
	ports := ""
	if m := take(nftPorts); m != nil {
		t.proto, _ = config.ParseProto(m[1])
		t.limited = t.limited || m[2] != ""
		ports = strings.Trim(m[3], "{ }")
	}
	if m := take(nftProto); m != nil {
		t.proto, _ = config.ParseProto(m[1])
	}
	if m := take(nftTo); m != nil {
		t.to = network4(strings.Trim(m[2], "{ }"))
		t.limited = t.limited || m[1] != "" || !t.to.IsValid()
	}
	if m := take(nftOut); m != nil {
		t.notOut = m[1] != ""
		for name := range strings.SplitSeq(strings.Trim(m[2], "{ }"), ",") {
			name = strings.Trim(name, ` "`)
			if before, found := strings.CutSuffix(name, "*"); found {
				name = before + "+"
			}
			t.out = append(t.out, name)
		}
	}
	rule = strings.TrimSpace(strings.ReplaceAll(nftPlain.ReplaceAllString(rule, ""), "meta", ""))
	t.limited = t.limited || rule != ""
	return t.setPorts(ports)
}

// network4 reads an address or a network; it is not valid if it is none, or all of them.
func network4(text string) netip.Prefix {
	if !strings.Contains(text, "/") {
		text += "/32"
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Bits() == 0 {
		return netip.Prefix{}
	}
	return p
}

// setPorts reads ports and ranges with commas between them, and reports whether they can be compared.
func (t *Translation) setPorts(text string) bool {
	if text == "" {
		return true
	}
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			last = first
		}
		from, err := strconv.ParseUint(first, 10, 16)
		to, lastErr := strconv.ParseUint(last, 10, 16)
		if err != nil || lastErr != nil {
			return false
		}
		t.ports = append(t.ports, config.PortSet{Proto: t.proto, First: uint16(from), Last: uint16(to)})
	}
	return true
}

// Note is what a person should know about the rule, on a VPS with these relays; nil if it does not concern them.
func (t *Translation) Note(relays []*config.Relay) *message.Text {
	if t.Source {
		return t.hides(relays)
	}
	for _, r := range relays {
		if r.Role != config.VPS || t.to.IsValid() && !t.to.Contains(r.IPAddr) && !t.to.Contains(r.Card()) {
			continue
		}
		forward, ports := t.taken(r, relays)
		switch {
		case forward == nil:
		case t.Priority < ourDNAT:
			return message.New("%s: a rule gets packets of %s (%s) before forward %q of relay %q; remove it, or give "+
				"its chain a priority above %d: %s", t.Where, r.IPAddr, ports, forward.Section, r.Name, ourDNAT,
				t.Rule)
		default:
			return message.New("%s: a rule is about packets of %s (%s) that forward %q of relay %q gets, because the "+
				"forward comes first; if the rule is to have them, write: list keep '%s' (in the relay section); "+
				"else remove it (of a container: publish another port, or at 127.0.0.1): %s", t.Where, r.IPAddr, ports,
				forward.Section, r.Name, ports, t.Rule)
		}
	}
	return nil
}

// taken returns the first forward of a relay that gets packets which the rule is about, and their ports.
func (t *Translation) taken(r *config.Relay, relays []*config.Relay) (*config.Forward, config.PortSet) {
	for _, f := range r.Forwards {
		client := netip.IPv4Unspecified()
		if len(f.Clients) > 0 {
			client = f.Clients[0].Addr()
		}
		for _, m := range f.Mappings() {
			for _, both := range t.common(m) {
				if of, got := config.Takes(relays, r.IPAddr, client, both.Proto, both.First); of == r && got == f {
					return f, both
				}
			}
		}
	}
	return nil, config.PortSet{}
}

// common returns what both the rule and the mapping are about.
func (t *Translation) common(m config.Mapping) []config.PortSet {
	public := m.Public
	if m.All {
		public = config.PortSet{Proto: t.proto}
	}
	if public.Proto == 0 && m.All {
		public.Proto = config.TCP // of all protocols the likeliest
	}
	if t.proto != 0 && t.proto != public.Proto {
		return nil
	}
	if len(t.ports) == 0 {
		return []config.PortSet{public}
	}
	var both []config.PortSet
	for _, p := range t.ports {
		p.Proto = public.Proto
		if public.HasPorts() {
			p.First, p.Last = max(p.First, public.First), min(p.Last, public.Last)
		}
		if p.First <= p.Last {
			both = append(both, p)
		}
	}
	return both
}

// hides is the Note about a rule that translates sources.
func (t *Translation) hides(relays []*config.Relay) *message.Text {
	for _, r := range relays {
		matches := len(t.out) == 0 || slices.ContainsFunc(t.out, func(device string) bool {
			before, any := strings.CutSuffix(device, "+")
			return device == r.Device || any && strings.HasPrefix(r.Device, before)
		}) != t.notOut
		host := slices.ContainsFunc(r.Forwards, func(f *config.Forward) bool { return t.to.Contains(f.DestIP) })
		if r.Role != config.VPS || t.limited || !matches || t.to.IsValid() && !host || len(r.Forwards) == 0 {
			continue
		}
		if t.Priority < ourSNAT {
			return message.New("%s: a rule hides the clients' addresses from the hosts of relay %q: limit it to the "+
				"device that it is for, or give its chain a priority above %d: %s", t.Where, r.Name, ourSNAT, t.Rule)
		}
		return message.New("%s: a rule would hide the clients' addresses from the hosts of relay %q, if ds4relay's "+
			"own did not come first; limit it to the device that it is for: %s", t.Where, r.Name, t.Rule)
	}
	return nil
}
