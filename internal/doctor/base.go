package doctor

import (
	"errors"
	"slices"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/state"
)

func (d *Doctor) configuration() Finding {
	var problems config.Problems
	switch {
	case errors.As(d.loadErr, &problems):
		evidence := problems[0].AsText()
		if len(problems) > 1 {
			evidence = message.New("%v (and %d more)", evidence, len(problems)-1)
		}
		return failed(evidence, "correct line %d of %s; `ds4relay check` names every mistake", problems[0].Line,
			problems[0].File)
	case d.loadErr != nil:
		if d.sys().OpenWrt {
			return failed(message.Of(d.loadErr), "write the configuration in LuCI (Services → DS4Relay), or correct "+
				"the file; `ds4relay check` names mistakes")
		}
		return failed(message.Of(d.loadErr),
			"write the configuration: `man 5 ds4relay` has every option, `ds4relay check` names mistakes")
	}
	var relays []*config.Relay
	paired, awaited := false, false
	for _, r := range d.config.Relays {
		if r.Enabled {
			relays = append(relays, r)
			paired, awaited = paired || r.Allow != nil, awaited || r.Awaited()
		}
	}
	enabled, forwards := len(relays), config.Sections(relays)
	switch {
	case d.proxiesOnly():
		return ok("%s: proxies: %d", d.config.Path, len(d.config.Proxies))
	case enabled == 0:
		return failed(message.New("%s has no relay that is enabled", d.config.Path),
			"add a section `config relay`, or set option enabled '1'")
	case forwards == 0 && paired && !awaited: // a home that is awaited tells them later
		return warning(message.New("%s has no forward that is enabled, and the home has told none", d.config.Path),
			"add a forward at home")
	case forwards == 0 && !awaited:
		return warning(message.New("%s has no forward that is enabled: nothing is let through", d.config.Path),
			"add a section `config forward`, or set option enabled '1'")
	case len(d.warnings) > 0:
		warnings := make([]*message.Text, len(d.warnings))
		for i := range d.warnings {
			warnings[i] = d.warnings[i].AsText()
		}
		return warning(message.Join("; ", warnings...), "correct what the warning names")
	}
	return ok("%s: relays: %d, forwards: %d", d.config.Path, enabled, forwards)
}

// proxiesOnly reports that there is no relay, so nothing that only a relay needs can be missing.
func (d *Doctor) proxiesOnly() bool {
	return d.config != nil && len(d.config.Proxies) > 0 &&
		!slices.ContainsFunc(d.config.Relays, func(r *config.Relay) bool { return r.Enabled })
}

// The kernel's modules of the transports.
const (
	ModuleIPIP6     = "ip6_tunnel"
	ModuleWireGuard = "wireguard"
)

// packages are OpenWrt's packages of the modules.
var packages = map[string]string{ModuleIPIP6: "kmod-ip6-tunnel", ModuleWireGuard: "kmod-wireguard"}

// modules returns what the kernel needs for the relays.
func (d *Doctor) modules() (names []string) {
	of := map[config.Transport]string{config.IPIP6: ModuleIPIP6, config.WireGuard: ModuleWireGuard}
	for _, kind := range []config.Transport{config.IPIP6, config.WireGuard} {
		if d.config != nil && slices.ContainsFunc(d.config.Relays, func(r *config.Relay) bool {
			return r.Enabled && r.Transport == kind
		}) {
			names = append(names, of[kind])
		}
	}
	if len(names) == 0 {
		names = []string{ModuleIPIP6}
	}
	return names
}

// serves reports whether this machine is a VPS for one of its relays: there a proxy may take the place of a relay.
func (d *Doctor) serves() bool {
	return d.config != nil && slices.ContainsFunc(d.config.Relays, func(r *config.Relay) bool {
		return r.Enabled && r.Role == config.VPS
	})
}

// Lacks is what to do about a module that the kernel neither has nor can load; nil if it has it.
func (s *System) Lacks(module string) *Finding {
	if s.Modules[module] {
		return nil
	}
	remedy := message.New("`modprobe %s` says why; a container needs the module loaded on its host, a kernel of "+
		"the provider's may lack it", module)
	if s.OpenWrt {
		remedy = message.New("`opkg install %s` (from 25.12 on `apk add %s`), which has to be of this kernel's "+
			"release", packages[module], packages[module])
	}
	f := NewFinding(Failed, message.New("the module %s is not loaded, and the kernel %s cannot load it", module,
		s.Kernel), remedy)
	return &f
}

func (d *Doctor) system() Finding {
	s := d.sys()
	if d.proxiesOnly() {
		return ok("kernel %s", s.Kernel)
	}
	for _, name := range d.modules() {
		f := s.Lacks(name)
		if f == nil {
			continue
		}
		if !s.OpenWrt && d.serves() {
			return NewFinding(Failed, f.Codes.Evidence, message.New("%v; without it, use a proxy instead of the relay: write "+
				"a section `config proxy` (`man 5 ds4relay` has an example), then run `systemctl enable --now "+
				"ds4relay-proxy`", f.Codes.Remedy))
		}
		return *f
	}
	if s.NftErr != nil {
		remedy := message.New("`apt install nftables`")
		if s.OpenWrt {
			remedy = message.New("`opkg install nftables` (from 25.12 on `apk add nftables`)")
		}
		return NewFinding(Failed, message.New("the program nft does not run: %v", s.NftErr), remedy)
	}
	return ok("kernel %s with %s, and nft", s.Kernel, strings.Join(d.modules(), ", "))
}

func (d *Doctor) conntrack() Finding {
	s := d.sys()
	if s.MaxTracked == 0 {
		return skipped("the kernel tracks no connections now")
	}
	evidence := message.New("%d connections of at most %d are tracked", s.Tracked, s.MaxTracked)
	switch used := s.Tracked * 100 / s.MaxTracked; {
	case used >= 95:
		return failed(message.New("%v: new ones are dropped", evidence),
			"allow more with `sysctl -w net.netfilter.nf_conntrack_max=%d`, "+
				"and find out who opens so many (conntrack -L)", 4*s.MaxTracked)
	case used >= 80:
		return warning(evidence, "allow more with `sysctl -w net.netfilter.nf_conntrack_max=%d`", 4*s.MaxTracked)
	}
	return NewFinding(OK, evidence, nil)
}

// minutes is how times are written.
const minutes = "2006-01-02 15:04 UTC"

// setClock is what to do about a wrong clock.
func (d *Doctor) setClock() *message.Text {
	if d.sys().OpenWrt {
		return message.New("set the clock: `service sysntpd restart`")
	}
	return message.New("set the clock: `timedatectl set-ntp true`")
}

// firstYear is the earliest year that a correct clock can show.
const firstYear = 2026

func (d *Doctor) clock() Finding {
	s, set := d.sys(), d.setClock()
	now := s.Now.UTC().Format(minutes)
	handshakes := slices.Contains(d.modules(), ModuleWireGuard)
	switch {
	case s.Now.Year() < firstYear:
		return NewFinding(Failed, message.New("it is %s here: names that are signed and certificates are refused", now),
			set)
	case s.Unsynced && handshakes:
		return ok("%s; no time synchronisation is running (WireGuard needs a clock that does not go back)", now)
	case s.Unsynced:
		return ok("%s; nobody keeps it right (the relay itself needs no clock)", now)
	}
	return NewFinding(OK, message.Plain(now), nil)
}

func (p *patient) endpoints() Finding {
	encrypted := p.Transport == config.WireGuard
	if p.Awaited() && state.Waits(p.pathErr) {
		return warning(message.Of(p.pathErr), "paste the invitation at home: into LuCI, or into `ds4relay join`")
	}
	if p.pathErr != nil {
		remedy := message.New("correct what it names in the relay's section, then run `ds4relay up`")
		if p.PeerName != "" && strings.Contains(p.pathErr.Error(), p.PeerName) && encrypted {
			remedy = message.New("give %s an A or AAAA record, or write the VPS's address into option peeraddr; then "+
				"run `ds4relay up`", p.PeerName)
		} else if encrypted {
			remedy = message.New("do what it says, then run `ds4relay up`")
		} else if p.PeerName != "" && strings.Contains(p.pathErr.Error(), p.PeerName) {
			remedy = message.New("give %s an AAAA record, or write the other end's address into option peeraddr; "+
				"then run `ds4relay up`", p.PeerName)
		} else if state.Waits(p.pathErr) {
			remedy = message.New("turn on IPv6 on the Internet interface, or ask the provider for a delegated prefix " +
				"(DHCPv6-PD); or use transport wireguard, which needs no IPv6")
			if !p.sys().OpenWrt {
				remedy = message.New("turn on IPv6 in your router, and check that this machine gets an address (`ip -6 " +
					"address`); or use transport wireguard, which needs no IPv6")
			}
		}
		return NewFinding(Failed, message.Of(p.pathErr), remedy)
	}
	if p.path.PeerNote != nil {
		return warning(p.path.PeerNote, "make the name resolve again; the relay goes on meanwhile")
	}
	switch {
	case encrypted && p.Role == config.Router:
		return ok("%s, UDP port %d (the VPS); the home's address may be any", p.path.Peer, p.WireGuard.Port)
	case encrypted:
		return ok("UDP port %d (here); the home's address may be any", p.WireGuard.Port)
	}
	return ok("%s (here), %s (the other end)", p.path.Local, p.path.Peer)
}

func (d *Doctor) installed() Finding {
	if d.config == nil {
		return skipped("the configuration has mistakes")
	}
	i, err := d.prober.Installed(d.config)
	switch {
	case err != nil:
		return failed(message.Of(err), "run doctor as root")
	case len(i.Blocked) > 0:
		return failed(i.Blocked[0], "do what it says, then run `ds4relay up`")
	case len(i.Differs) > 0:
		evidence := message.New("missing or changed: %s", shorten(i.Differs[0]))
		if len(i.Differs) > 1 {
			evidence = message.New("%v (and %d more steps)", evidence, len(i.Differs)-1)
		}
		return failed(evidence, "run `ds4relay up`; if it comes back, another program takes it away")
	}
	return ok("links, addresses, routes, rules, sysctls and nft tables are as configured")
}

// shorten reduces a command to one line.
func shorten(command string) string {
	first, _, more := strings.Cut(command, "\n")
	if more {
		first += " …"
	}
	return first
}
