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
	enabled, forwards := 0, 0
	for _, r := range d.config.Relays {
		if r.Enabled {
			enabled++
			forwards += len(r.Forwards)
		}
	}
	switch {
	case d.proxiesOnly():
		return ok("%s: proxies: %d", d.config.Path, len(d.config.Proxies))
	case enabled == 0:
		return failed(message.New("%s has no relay that is enabled", d.config.Path),
			"add a section `config relay`, or set option enabled '1'")
	case forwards == 0:
		return failed(message.New("%s has no forward that is enabled: nothing is let through", d.config.Path),
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

func (d *Doctor) system() Finding {
	s := d.sys()
	install := map[bool][2]*message.Text{
		false: {message.New("`apt install nftables`"),
			message.New("`modprobe ip6_tunnel` says why; a container needs the module loaded on its host, " +
				"a kernel of the provider's may lack it")},
		true: {message.New("`opkg install nftables`"),
			message.New("`opkg install kmod-ip6-tunnel`, which has to be of this kernel's release")},
	}[s.OpenWrt]
	switch {
	case d.proxiesOnly():
		return ok("kernel %s", s.Kernel)
	case !s.Tunnels:
		return NewFinding(Failed, message.New("the module ip6_tunnel is not loaded, and the kernel %s cannot load it",
			s.Kernel), install[1])
	case s.NftErr != nil:
		return NewFinding(Failed, message.New("the program nft does not run: %v", s.NftErr), install[0])
	}
	return ok("kernel %s with ip6_tunnel, and nft", s.Kernel)
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

// firstYear is the earliest year that a correct clock can show.
const firstYear = 2026

func (d *Doctor) clock() Finding {
	s := d.sys()
	set := message.New("set the clock: `timedatectl set-ntp true`")
	if s.OpenWrt {
		set = message.New("set the clock: `service sysntpd restart`")
	}
	now := s.Now.UTC().Format("2006-01-02 15:04 UTC")
	switch {
	case s.Now.Year() < firstYear:
		return NewFinding(Failed, message.New("it is %s here: names that are signed and certificates are refused", now),
			set)
	case s.Unsynced:
		return ok("%s; nobody keeps it right (the relay itself needs no clock)", now)
	}
	return NewFinding(OK, message.Plain(now), nil)
}

func (p *patient) endpoints() Finding {
	if p.pathErr != nil {
		remedy := message.New("correct what it names in the relay's section, then run `ds4relay up`")
		if p.PeerName != "" && strings.Contains(p.pathErr.Error(), p.PeerName) {
			remedy = message.New("give %s an AAAA record, or write the other end's address into option peeraddr; "+
				"then run `ds4relay up`", p.PeerName)
		} else if state.Waits(p.pathErr) {
			remedy = message.New("ask the provider for a delegated IPv6 prefix (DHCPv6-PD), or give the endpoint " +
				"with option ip6addr")
		}
		return NewFinding(Failed, message.Of(p.pathErr), remedy)
	}
	if p.path.PeerNote != nil {
		return warning(p.path.PeerNote, "make the name resolve again; the relay goes on meanwhile")
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
