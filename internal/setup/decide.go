//go:build !openwrt

package setup

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/transport"
	"github.com/ds4relay/ds4relay/internal/uci"
)

// Options are what the user has said.
type Options struct {
	Path      string           // of the file, for messages
	Relay     string           // its name
	Transport config.Transport // "" to choose one
	IPAddr    netip.Addr       // the public IPv4 address; not valid: it is to be found
	Standby   bool             // another VPS has the public address by turns
	Defaults  config.Defaults
}

// Plan is what setup would do.
type Plan struct {
	Text     []byte // of the file afterwards
	Relay    *config.Relay
	Rejoin   bool         // what the home has been told of the relay is not true any more: it must join again
	Choices  []netip.Addr // public addresses of the machine, if there are several and nobody has said which
	Kept     []Kept       // what stays on the VPS, and was not in the file
	Notes    []*message.Text
	Warnings config.Problems // of the file afterwards
}

// ErrAddress is returned if the public IPv4 address cannot be found out.
var ErrAddress = message.New("no network device has a public IPv4 address, and no cloud's metadata service names " +
	"one; find it in your provider's control panel, then run: ds4relay setup --ipaddr ADDRESS")

// ErrByHand is returned for a relay that setup has not made, and must not change.
var ErrByHand = message.New("was written by hand (it has no list allow), so setup leaves it alone; choose another " +
	"name: ds4relay setup --relay NAME")

// ErrHome is returned on a machine that is a home's end.
var ErrHome = message.New("this machine is a home's end (option role 'router'); run setup on the VPS, and here: " +
	"ds4relay join")

// ErrShared is returned without the address that two VPSs share: a card's address may be the VPS's own.
var ErrShared = message.New("setup --standby takes the public IPv4 address that the VPSs share, too: ds4relay setup " +
	"--standby --ipaddr ADDRESS")

// allowed is what a home may ask for: any port. What stays on the VPS is kept from it.
var allowed = []string{"tcp:1-65535", "udp:1-65535"}

// Decide returns what is to be written in place of former, which is nil without a file. Errors are config.Problems
// where the file has mistakes.
func Decide(m Machine, former []byte, o Options) (Plan, error) {
	file, err := uci.Parse(o.Path, former)
	if err != nil {
		return Plan{}, err
	}
	w := &writer{Machine: m, Options: o, file: file, text: former}
	if untouched(file) {
		w.file, w.text = &uci.File{}, []byte(header)
	} else if w.former, _, err = config.Parse(o.Path, former, o.Defaults); err != nil {
		return Plan{}, err
	}
	if i := slices.IndexFunc(w.file.Sections, func(s uci.Section) bool { return s.Name == o.Relay }); i >= 0 {
		w.section = &w.file.Sections[i]
	}
	if err := w.decide(); err != nil {
		return Plan{}, err
	}
	text, err := uci.Edit(w.text, w.changes...)
	if err != nil {
		return Plan{}, err
	}
	c, warnings, err := config.Parse(o.Path, text, o.Defaults)
	if err != nil {
		return Plan{}, message.New("nothing was written, because the new file would have a mistake: %v", err)
	}
	w.plan.Text, w.plan.Relay, w.plan.Warnings = text, c.Relay(o.Relay), warnings
	w.plan.Rejoin = w.section != nil && differs(w.former.Relay(o.Relay), w.plan.Relay)
	return w.plan, nil
}

// differs reports whether a home that knows a relay by its former invitation would not find it.
func differs(former, r *config.Relay) bool {
	return former.Transport != r.Transport || former.IPAddr != r.IPAddr || former.Local != r.Local ||
		former.WireGuard.Port != r.WireGuard.Port || former.Standby != r.Standby
}

// writer collects the changes of a file.
type writer struct {
	Machine
	Options
	file    *uci.File
	former  *config.Config // nil without relays
	section *uci.Section   // of the relay, if it is there
	text    []byte
	changes []uci.Change
	plan    Plan
}

func (w *writer) note(code string, args ...any) {
	w.plan.Notes = append(w.plan.Notes, message.New(code, args...))
}

// values returns the values of an option of the relay in the file.
func values(s *uci.Section, option string) (list []string) {
	if s == nil {
		return nil
	}
	for _, o := range s.Options {
		if o.Name == option {
			for _, v := range o.Values {
				list = append(list, v.Text)
			}
		}
	}
	return list
}

// first is the value of an option in the file, or "".
func (w *writer) first(option string) string {
	if list := values(w.section, option); len(list) > 0 {
		return list[0]
	}
	return ""
}

func (w *writer) set(option, value string) {
	if w.first(option) != value {
		w.changes = append(w.changes, uci.Set(w.Relay, option, value))
	}
}

// unset deletes an option that is of no use any more.
func (w *writer) unset(option string) {
	if w.first(option) != "" {
		w.changes = append(w.changes, uci.Delete(w.Relay, option))
	}
}

// isHome reports whether the file is that of a home's end.
func (w *writer) isHome() bool {
	isVPS := func(r *config.Relay) bool { return r.Role == config.VPS }
	return w.former != nil && len(w.former.Relays) > 0 && !slices.ContainsFunc(w.former.Relays, isVPS)
}

func (w *writer) decide() error {
	if w.isHome() {
		return message.New("%s: %v", w.Path, ErrHome)
	}
	if w.section != nil {
		if w.section.Type != "relay" {
			return message.New("%s already has a section %q (a %s); choose another name: ds4relay setup --relay NAME",
				w.Path, w.Relay, w.section.Type)
		}
		if r := w.former.Relay(w.Relay); r.Role != config.VPS {
			return message.New("%s: relay %q is a home's end (option role 'router'); choose another name: ds4relay setup "+
				"--relay NAME", w.Path, w.Relay)
		} else if r.Allow == nil {
			return message.New("%s: relay %q %v", w.Path, w.Relay, ErrByHand)
		}
	}
	w.standby()
	ipaddr, err := w.address()
	if err != nil {
		return err
	}
	carrier, err := w.transport()
	if err != nil {
		return err
	}
	if w.section == nil {
		w.nameRelays()
		w.changes = append(w.changes, uci.AddSection("relay", w.Relay))
	}
	if w.section != nil && !w.former.Relay(w.Relay).Enabled {
		w.set("enabled", "1")
	}
	w.set("role", string(config.VPS))
	w.set("transport", string(carrier))
	w.set("ipaddr", ipaddr.String())
	if w.Standby && !w.isStandby() {
		w.set("standby", "1")
	}
	if private := w.private(); !w.Standby && len(private) > 1 && !w.has(ipaddr) && w.first("nicaddr") == "" {
		w.set("nicaddr", private[0].String())
		w.note("%s has several private addresses; setup assumes that the cloud translates %s to %s (option nicaddr)",
			w.IPv4, ipaddr, private[0])
	}
	port := uint16(0)
	if carrier == config.WireGuard {
		port = w.port()
		w.unset("ip6addr")
		if w.first("tunlink") == w.IPv6 && w.IPv6 != w.IPv4 { // as endpoint has set it
			w.unset("tunlink")
		}
	} else {
		w.endpoint()
		w.unset("listen_port")
	}
	w.keep(ipaddr, port)
	if w.section == nil {
		for _, value := range allowed {
			w.changes = append(w.changes, uci.AddList(w.Relay, "allow", value))
		}
	}
	w.firewalls(carrier, port)
	return nil
}

// nameRelays makes forwards name their relay, which they need not as long as there is only one.
func (w *writer) nameRelays() {
	var relays []string
	for _, s := range w.file.Sections {
		if s.Type == "relay" {
			relays = append(relays, s.Name)
		}
	}
	if len(relays) != 1 {
		return
	}
	n := 0
	for i := range w.file.Sections {
		s := &w.file.Sections[i]
		if s.Type != "forward" {
			continue
		}
		if len(values(s, "relay")) == 0 {
			w.changes = append(w.changes, uci.Set(fmt.Sprintf("@forward[%d]", n), "relay", relays[0]))
		}
		n++
	}
}

// standby finds out whether another VPS has the public address by turns: the file says so of this relay, or of another
// one with the address that was given.
func (w *writer) standby() {
	if w.former == nil {
		return
	}
	for _, r := range w.former.Relays {
		w.Standby = w.Standby || r.Standby && (r.Name == w.Relay || r.IPAddr == w.IPAddr)
	}
}

// isStandby reports whether the file says it of the relay.
func (w *writer) isStandby() bool { return w.section != nil && w.former.Relay(w.Relay).Standby }

// address returns the public IPv4 address: the one that was given, the one in the file as long as it can be, or one
// that is found.
func (w *writer) address() (netip.Addr, error) {
	switch {
	case w.Standby:
		return w.shared()
	case w.IPAddr.IsValid() && w.IPv4 == "" && !w.has(w.IPAddr):
		return netip.Addr{}, message.New("no network device has the address %s, and there is no IPv4 default route by "+
			"which a cloud could translate it; `ip -4 address` shows the addresses", w.IPAddr)
	case w.IPAddr.IsValid() && !w.has(w.IPAddr) && len(w.private()) == 0:
		return netip.Addr{}, message.New("no network device has the address %s, and %s has no private address to which a "+
			"cloud could translate it; `ip -4 address` shows the addresses", w.IPAddr, w.IPv4)
	case w.IPAddr.IsValid():
		return w.IPAddr, nil
	}
	public := w.public()
	former, err := netip.ParseAddr(w.first("ipaddr"))
	if err == nil && (w.has(former) || len(public) == 0 && (!w.Cloud.IsValid() || w.Cloud == former)) {
		return former, nil
	}
	var found netip.Addr
	switch {
	case len(public) > 0:
		found = public[0]
		if len(public) > 1 {
			w.plan.Choices = public
		}
	case w.Cloud.IsValid() && len(w.private()) > 0:
		found = w.Cloud
	default:
		return found, ErrAddress
	}
	if former.IsValid() {
		w.note("this machine no longer has the address %s (option ipaddr); the relay gets %s", former, found)
	}
	return found, nil
}

// shared returns the public IPv4 address that this VPS has by turns: the one that was given, else the one in the file.
func (w *writer) shared() (netip.Addr, error) {
	former, err := netip.ParseAddr(w.first("ipaddr"))
	switch {
	case w.IPv4 == "" && w.first("tunlink") == "":
		return former, message.New("there is no IPv4 default route, so it is not known by which device clients arrive " +
			"while this VPS has the address; a VPS with standby needs one")
	case w.IPAddr.IsValid():
		return w.IPAddr, nil
	case err == nil && w.isStandby():
		return former, nil
	}
	return former, ErrShared
}

// transport chooses WireGuard: it passes any home's NAT and firewall, needs no IPv6 there, and nobody on the way reads
// along. IPv4 in IPv6 is faster, but whether a home's line and its router let it in is not known here.
func (w *writer) transport() (config.Transport, error) {
	noIPv6 := !w.ipv6().IsValid()
	asked := w.Transport
	if asked == "" {
		asked = config.Transport(w.first("transport"))
	}
	if asked == "" && w.section != nil {
		asked = config.IPIP6
	}
	switch {
	case asked == config.IPIP6 && noIPv6 && w.first("ip6addr") == "":
		return "", message.New("transport ipip6 needs a global IPv6 address on the device with the IPv6 default route, " +
			"and this machine has none; use wireguard: ds4relay setup --transport wireguard")
	case asked == config.IPIP6 && w.Standby && w.IPv6 != w.IPv4 && w.first("tunlink") == "":
		return "", message.New("with standby, clients and an ipip6 tunnel arrive by one device, but the default routes of "+
			"this machine are on two (IPv4: %s, IPv6: %s); use wireguard: ds4relay setup --transport wireguard", w.IPv4,
			w.IPv6)
	case asked == config.IPIP6 && !w.IP6Tunnel:
		return "", message.New("the kernel has no module ip6_tunnel, which transport ipip6 needs")
	case asked == config.WireGuard && !w.WireGuard:
		return "", message.New("the kernel has no module wireguard, which transport wireguard needs")
	case asked != "":
		return asked, nil
	case w.WireGuard:
		return config.WireGuard, nil
	case w.IP6Tunnel && !noIPv6:
		w.note("the kernel has no module wireguard, so the tunnel is IPv4 in IPv6, which needs IPv6 at home too")
		return config.IPIP6, nil
	}
	return "", message.New("this machine cannot load a kernel module for a tunnel (wireguard or ip6_tunnel), as in most " +
		"containers; if the home server has its own IPv6 address, use the proxy, which needs none: man 5 ds4relay")
}

// port returns the UDP port of WireGuard: that in the file, or the first one that is free from the default on.
func (w *writer) port() uint16 {
	if w.section != nil {
		port, err := strconv.ParseUint(w.first("listen_port"), 10, 16)
		if err == nil {
			return uint16(port)
		}
		if r := w.former.Relay(w.Relay); r.Transport == config.WireGuard {
			return r.WireGuard.Port
		}
	}
	taken := w.own()
	for _, s := range w.Sockets {
		taken = append(taken, config.PortSet{Proto: s.Proto, First: s.Port, Last: s.Port})
	}
	port := uint16(transport.DefaultPort)
	for slices.Contains(taken, config.PortSet{Proto: config.UDP, First: port, Last: port}) && port < 65535 {
		port++
	}
	if port != transport.DefaultPort {
		w.set("listen_port", fmt.Sprint(port))
	}
	return port
}

// own returns the ports that the relays of the file use themselves.
func (w *writer) own() (ports []config.PortSet) {
	if w.former == nil {
		return nil
	}
	for _, r := range w.former.Relays {
		if port, ok := r.KeptPort(); ok {
			ports = append(ports, port)
		}
	}
	return ports
}

// endpoint sets the relay's IPv6 endpoint: the machine's own address, so that ssh and the tunnel have the same.
func (w *writer) endpoint() {
	addr := w.ipv6()
	former, err := netip.ParseAddr(w.first("ip6addr"))
	if !addr.IsValid() || w.first("ip6addr") != "" && (err != nil || w.has(former)) {
		return // a prefix, or an address that is there
	}
	w.set("ip6addr", addr.String())
	if w.IPv6 != w.IPv4 && w.first("tunlink") == "" {
		w.set("tunlink", w.IPv6)
	}
}

// keep keeps on the VPS what waits there for clients: as long as the file does not say that the home gets it.
func (w *writer) keep(ipaddr netip.Addr, port uint16) {
	own := append(w.own(), config.PortSet{Proto: config.UDP, First: port, Last: port})
	var elsewhere []string // relays of one address keep for each other
	all := false
	var forwarded []config.PortSet
	if w.former != nil {
		for _, r := range w.former.Relays {
			if r.Role != config.VPS || r.IPAddr != ipaddr || !r.Enabled {
				continue
			}
			for _, set := range r.Keep {
				elsewhere = append(elsewhere, set.String())
			}
			for _, f := range r.Forwards {
				all, forwarded = all || f.All, append(forwarded, f.Ports...)
			}
		}
	}
	var stay, given []Kept
	for _, k := range w.Listeners(own, append(w.private(), ipaddr)...) {
		switch {
		case covered(k.PortSet, values(w.section, "keep")):
		case !k.SSH && !covered(k.PortSet, elsewhere) && (all || slices.ContainsFunc(forwarded, k.overlaps)):
			given = append(given, k)
		default:
			stay = append(stay, k)
		}
	}
	for _, k := range ranges(given) {
		w.note("%s is already forwarded to a home, and stays forwarded", k)
	}
	w.plan.Kept = ranges(stay)
	for _, k := range w.plan.Kept {
		w.changes = append(w.changes, uci.AddList(w.Relay, "keep", k.PortSet.String()))
	}
}

// who names the programs that wait.
func who(k Kept) string {
	if len(k.Programs) == 0 {
		return "unknown program"
	}
	return strings.Join(k.Programs, ", ")
}

// String writes it as `tcp:22 (sshd)`.
func (k Kept) String() string { return k.PortSet.String() + " (" + who(k) + ")" }

func (k Kept) overlaps(set config.PortSet) bool {
	return k.Proto == set.Proto && k.First <= set.Last && set.First <= k.Last
}

// covered reports whether one of the values of list keep has all ports of a set.
func covered(set config.PortSet, list []string) bool {
	return slices.ContainsFunc(list, func(value string) bool {
		name, ports, _ := strings.Cut(value, ":")
		first, last, isRange := strings.Cut(ports, "-")
		if !isRange {
			last = first
		}
		low, err := strconv.Atoi(first)
		high, err2 := strconv.Atoi(last)
		proto, ok := config.ParseProto(strings.ToLower(name))
		return ok && err == nil && err2 == nil && proto == set.Proto && low <= int(set.First) && int(set.Last) <= high
	})
}

// firewalls says what has to be let in.
func (w *writer) firewalls(carrier config.Transport, port uint16) {
	what := message.New("UDP port %d (the tunnel)", int(port))
	if carrier == config.IPIP6 {
		what = message.New("IP protocol 4 from the home's IPv6 prefix (the tunnel)")
	}
	ssh := int(w.sshOrDefault()[0])
	if w.Translated() {
		w.note("open in the cloud's firewall (security group, security list): TCP port %d (ssh), %v, and each port that "+
			"you forward", ssh, what)
	} else {
		w.note("if your provider's control panel has a firewall, open there: TCP port %d (ssh), %v, and each port that you "+
			"forward", ssh, what)
	}
}
