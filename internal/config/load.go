package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode"

	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/transport"
	"github.com/ds4relay/ds4relay/internal/uci"
)

// Defaults are values that the machine gives to options which a file leaves out.
type Defaults struct {
	Role    Role              // of `option role`
	Devices map[string]string // relay → `option device`; ds4-NAME for others
	Homes   map[string]*Home  // relay → what its home has told this VPS
	Asking  string            // a relay whose home's mistakes are mistakes; those of other homes are warnings
}

// Load reads the file at path. The error is of type Problems if the file was read and has mistakes; warnings are
// returned in any case.
func Load(path string, defaults Defaults) (*Config, Problems, error) {
	file, err := uci.Load(path)
	return loaded(file, err, defaults)
}

// Parse is like Load for a text that is not saved yet; messages call it path.
func Parse(path string, text []byte, defaults Defaults) (*Config, Problems, error) {
	file, err := uci.Parse(path, text)
	return loaded(file, err, defaults)
}

func loaded(file *uci.File, err error, defaults Defaults) (*Config, Problems, error) {
	var syntax uci.Errors
	if errors.As(err, &syntax) {
		problems := make(Problems, len(syntax))
		for i, e := range syntax {
			problems[i] = newProblem(e.Path, e.Line, "", "", "", e.Text)
		}
		return nil, nil, problems
	}
	if err != nil {
		return nil, nil, err
	}
	return New(file, defaults)
}

// New checks a parsed file. See Load.
func New(file *uci.File, defaults Defaults) (*Config, Problems, error) {
	if pairing && len(defaults.Homes) > 0 {
		return newPaired(file, defaults)
	}
	return read(file, defaults, nil)
}

// read checks a file together with what the homes of these relays have pushed.
func read(file *uci.File, defaults Defaults, pushes []string) (*Config, Problems, error) {
	r := &reader{file: file, config: &Config{Path: file.Path, Sum: sumOf(file)}, relays: map[string]*Relay{},
		unfinished: map[string]bool{}, lines: map[any]*section{}}
	r.sections(defaults)
	if pairing && len(r.problems.kept) == 0 {
		for _, name := range pushes {
			r.turns++
			r.pushed(r.relays[name])
		}
	}
	if len(r.problems.kept) == 0 {
		r.cross()
	}
	warnings := r.warnings.list(message.New("%d more warnings from here on", r.warnings.cut()))
	if len(r.problems.kept) > 0 {
		return nil, warnings, r.problems.list(message.New("%d more mistakes from here on", r.problems.cut()))
	}
	return r.config, warnings, nil
}

// Limits of a file, in addition to those of package uci.
const (
	maxRelays  = 1000
	maxProxies = 2000
	maxWords   = 5000   // of a list that is written as one option
	allWords   = 100000 // of all of them
)

type reader struct {
	file   *uci.File
	config *Config
	relays map[string]*Relay

	unfinished map[string]bool // names of relays that are disabled, and have mistakes
	problems   report
	warnings   report
	guesses    int // at what unknown words were meant for
	words      int // of lists that are written as one option
	turns      int // how many homes have pushed something
	forwards   []pending
	owned      []owned
	lines      map[any]*section // of owned, as far as lineOf was asked
}

// owned is a relay, forward or proxy, and its section.
type owned struct {
	by      any
	section *section
}

// lineOf returns the line of an option of a relay, forward or proxy.
func (r *reader) lineOf(owner any, option string) int {
	for _, o := range r.owned {
		r.lines[o.by] = o.section
	}
	r.owned = nil
	return r.lines[owner].lineOf(option)
}

// pending is a forward whose relay is looked up after all sections were read.
type pending struct {
	section *section
	forward *Forward
	enabled bool
}

// section is one section, with its options checked against the schema.
type section struct {
	r       *reader
	spec    *SectionSpec
	name    string
	line    int
	path    string // "" for the configuration itself
	options []optionValues

	disabled   bool
	unfinished bool // it is disabled, and has mistakes
}

type optionValues struct {
	name   string
	values []uci.Value
}

// values returns the values of an option, or none if it is missing.
func (s *section) values(option string) []uci.Value {
	for i := range s.options {
		if s.options[i].name == option {
			return s.options[i].values
		}
	}
	return nil
}

func (s *section) label() string { return label(s.spec.Type, s.name) }

func label(typ, name string) string { return fmt.Sprintf("%s %q", typ, short(name)) }

// guess is the candidate that somebody may have meant, or "".
func (r *reader) guess(word string, candidates []string) string {
	if r.guesses++; r.guesses > maxProblems {
		return ""
	}
	return nearest(word, candidates)
}

func (r *reader) sections(defaults Defaults) {
	var types []string
	for _, spec := range Schema {
		types = append(types, spec.Type)
	}
	anonymous := map[string]int{}
	sections, options := make([]section, len(r.file.Sections)), 0
	for i := range r.file.Sections {
		options += len(r.file.Sections[i].Options)
	}
	room := make([]optionValues, options) // in one piece for all sections
	r.forwards = make([]pending, 0, len(sections))
	for i := range r.file.Sections {
		raw := &r.file.Sections[i]
		name := raw.Name
		if raw.Anonymous {
			name = fmt.Sprintf("%s[%d]", raw.Type, anonymous[raw.Type])
			anonymous[raw.Type]++
		}
		spec := sectionSpec(raw.Type)
		if spec == nil {
			text := message.New("unknown section type %q is ignored", short(raw.Type))
			if near := r.guess(raw.Type, types); near != "" {
				text = message.New("unknown section type %q is ignored; did you mean %q?", short(raw.Type), near)
			}
			r.warnings.add(r.at(raw.Line, "", "", "", text))
			continue
		}
		s, n := &sections[i], len(raw.Options)
		*s = section{r: r, spec: spec, name: name, line: raw.Line, options: room[:0:n]}
		room = room[n:]
		s.disabled = disabled(raw)
		s.collect(raw)
		switch raw.Type {
		case "relay":
			if raw.Anonymous || !RelayName(name) {
				s.problem("", "a relay needs a name of 1 to 11 characters out of a-z 0-9 _, as in: config relay 'home'")
			}
			if len(r.config.Relays) == maxRelays {
				s.problem("", "more than %d relays", maxRelays)
				continue
			}
			relay := s.relay(name, defaults)
			if s.unfinished {
				r.unfinished[name] = true
				continue
			}
			r.relays[name] = relay
			r.config.Relays = append(r.config.Relays, relay)
		case "forward":
			r.forwards = append(r.forwards, s.forward(name))
		case "proxy":
			if len(r.config.Proxies) == maxProxies {
				s.problem("", "more than %d proxies", maxProxies)
				continue
			}
			if p, enabled := s.proxy(name); enabled {
				r.config.Proxies = append(r.config.Proxies, p)
			}
		}
	}
	names := listed(r.config.Relays, maxListed, func(relay *Relay) string { return short(relay.Name) })
	for _, p := range r.forwards {
		if p.section.unfinished || r.withoutRelay(p.section) {
			continue
		}
		for i, relay := range p.section.relaysOf(names) {
			forward := p.forward
			if i > 0 {
				again := *forward
				forward = &again
				r.owned = append(r.owned, owned{forward, p.section})
			}
			p.section.takeDefaults(forward, relay)
			if p.enabled {
				relay.Forwards = append(relay.Forwards, forward)
			}
		}
	}
}

// takeDefaults gives a forward what its relay says about it, where the forward itself does not.
func (s *section) takeDefaults(f *Forward, relay *Relay) {
	if !s.has("egress") {
		f.Egress = relay.Egress
	}
	switch all := f.Egress == All; {
	case !s.has("killswitch"):
		f.KillSwitch = relay.KillSwitch && all
	case f.KillSwitch && !all:
		s.problem("killswitch", "is for hosts whose own connections go through the tunnel; allowed is 0, "+
			"or egress all beside it")
	}
	if !s.has("masq") {
		f.Masq = relay.Masq
	} else {
		s.masq(relay, f.Masq)
	}
}

// withoutRelay reports whether a forward belongs to a relay that is disabled and unfinished.
func (r *reader) withoutRelay(forward *section) bool {
	if forward.has("relay") {
		return slices.ContainsFunc(forward.values("relay"), func(v uci.Value) bool { return r.unfinished[v.Text] })
	}
	return len(r.config.Relays) == 0 && len(r.unfinished) > 0
}

// RelayName reports whether a section of type relay may have the name.
func RelayName(s string) bool {
	return s != "" && len(s) <= 11 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

// disabled reports whether a section is disabled.
func disabled(raw *uci.Section) bool {
	for _, option := range raw.Options {
		if option.Name == "enabled" && len(option.Values) > 0 {
			enabled, ok := boolean(option.Values[0].Text)
			return ok && !enabled
		}
	}
	return false
}

// collect takes the options that the schema knows, and warns about others.
func (s *section) collect(raw *uci.Section) {
	for _, option := range raw.Options {
		spec := s.spec.option(option.Name)
		if spec == nil {
			text := message.New("unknown option is ignored")
			if near := s.r.guess(option.Name, s.spec.names()); near != "" {
				text = message.New("unknown option is ignored; did you mean %s?", near)
			}
			s.r.warnings.add(s.r.at(option.Line, s.label(), short(option.Name), "", text))
			continue
		}
		values := option.Values
		if !spec.List && len(values) > 1 {
			s.problemAt(values[1], option.Name, "is given %d times as a list; allowed is one option", len(values))
			values = values[:1]
		}
		if spec.List && !option.List {
			values = s.split(option.Name, values)
		}
		s.options = append(s.options, optionValues{option.Name, values})
	}
	for _, spec := range s.spec.Options {
		if spec.Required && !s.has(spec.Name) {
			s.missing(spec.Name)
		}
	}
}

// split turns an option's words into a list.
func (s *section) split(option string, whole []uci.Value) []uci.Value {
	value := whole[0]
	if value.Text != "" && !strings.ContainsFunc(value.Text, unicode.IsSpace) && s.r.words < allWords {
		s.r.words++
		return whole
	}
	var values []uci.Value
	for word := range strings.FieldsSeq(value.Text) {
		if s.r.words++; len(values) == maxWords || s.r.words > allWords {
			s.problemAt(value, option, "has too many words; allowed are at most %d, and %d in all such options",
				maxWords, allWords)
			break
		}
		values = append(values, uci.Value{Text: word, Line: value.Line})
	}
	return values
}

func (s *section) has(option string) bool { return len(s.values(option)) > 0 }

func (s *section) lineOf(option string) int {
	if values := s.values(option); len(values) > 0 {
		return values[0].Line
	}
	return s.line
}

// at is a problem at a line of the file.
func (r *reader) at(line int, section, option, value string, text *message.Text) Problem {
	return newProblem(r.file.Path, line, section, option, value, text)
}

func (s *section) problem(option, code string, args ...any) {
	value := uci.Value{Line: s.line}
	if values := s.values(option); len(values) > 0 {
		value = values[0]
	}
	s.problemAt(value, option, code, args...)
}

// problemAt tells of a mistake. In a section that is disabled it is a warning: such a section stops nothing.
func (s *section) problemAt(value uci.Value, option, code string, args ...any) {
	p := s.r.at(value.Line, s.label(), option, value.Text, message.New(code, args...))
	if s.path != "" {
		p.File = s.path
	}
	if s.disabled {
		if !s.unfinished {
			s.r.warnings.add(s.r.at(s.line, s.label(), "", "",
				message.New("the section is disabled, and has mistakes: it is left out")))
		}
		s.unfinished = true
		s.r.warnings.add(p)
		return
	}
	s.r.problems.add(p)
}

// refuse reports a value that is not what the schema allows.
func (s *section) refuse(value uci.Value, option string) {
	s.problemAt(value, option, "allowed is %s", allowed(s.spec.option(option).Allowed))
}

// parse reads a single option, or its default, with f. If f refuses it, parse reports a problem and returns zero.
func parse[T any](s *section, option string, f func(string) (T, bool)) T {
	var zero T
	var value uci.Value
	if values := s.values(option); len(values) > 0 {
		value = values[0]
	} else if value = (uci.Value{Text: s.spec.option(option).Default, Line: s.line}); value.Text == "" {
		return zero
	}
	result, ok := f(value.Text)
	if !ok {
		s.refuse(value, option)
		return zero
	}
	return result
}

func number(low, high int64) func(string) (int, bool) {
	return func(s string) (int, bool) {
		n, err := strconv.ParseInt(s, 10, 64)
		return int(n), err == nil && plainNumber(s) && n >= low && n <= high
	}
}

// numberOr reads a number, or a word that means the value instead.
func numberOr(word string, instead int, low, high int64) func(string) (int, bool) {
	return func(s string) (int, bool) {
		if s == word {
			return instead, true
		}
		return number(low, high)(s)
	}
}

// encapLimit takes netifd's word for none, too (its protocol handlers 4in6 and ds-lite).
func encapLimit(s string) (int, bool) {
	if s == "ignore" {
		s = "none"
	}
	return numberOr("none", transport.NoEncapLimit, 0, 255)(s)
}

func oneOf[T ~string](allowed ...T) func(string) (T, bool) {
	return func(s string) (T, bool) { return T(s), slices.Contains(allowed, T(s)) }
}

// boolean accepts what OpenWrt's scripts accept as a boolean (config_get_bool).
func boolean(s string) (bool, bool) {
	switch s {
	case "1", "on", "true", "yes", "enabled":
		return true, true
	case "0", "off", "false", "no", "disabled":
		return false, true
	}
	return false, false
}

func deviceName(s string) (string, bool) {
	ok := s != "" && len(s) <= 15 && s != "." && s != ".." && s != "all" && s != "default"
	for _, c := range s {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			strings.ContainsRune("_.-", c))
	}
	return s, ok && s[0] != '-'
}

// linkName is laxer than deviceName: an existing device may have any name that the kernel accepts.
func linkName(s string) (string, bool) {
	return s, s != "" && len(s) <= 15 && s != "." && s != ".." && !strings.ContainsFunc(s, func(c rune) bool {
		return unicode.IsSpace(c) || unicode.IsControl(c) || c == '/' || c == ':' || c == '"'
	})
}

// fileName reads a path. It goes into commands that a person may type, so it has no blanks or quotes.
func fileName(s string) (string, bool) {
	return s, len(s) > 1 && len(s) <= 255 && s[0] == '/' && !strings.ContainsFunc(s, func(c rune) bool {
		return unicode.IsSpace(c) || unicode.IsControl(c) || strings.ContainsRune("\"'\\$`;&|<>()*?[]#~!{}", c)
	})
}

func table(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && plainNumber(s) && n > 0 && (n < 253 || n > 255)
}

// shared is the address space of carriers (RFC 6598), which some clouds use.
var shared = netip.MustParsePrefix("100.64.0.0/10")

// reserved are networks that cannot contain a VPS's public address (RFC 6890), except the documentation networks.
var reserved = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), shared,
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("224.0.0.0/3"),
}

// ReservedNetworks returns the networks that Reserved checks.
func ReservedNetworks() []netip.Prefix { return slices.Clone(reserved) }

// Reserved reports whether a network contains no public address (RFC 6890).
func Reserved(p netip.Prefix) bool {
	return slices.ContainsFunc(reserved, func(r netip.Prefix) bool {
		return r.Bits() <= p.Bits() && r.Contains(p.Addr())
	})
}

// Translatable reports whether an IPv4 address is one that a cloud translates a public one to.
func Translatable(addr netip.Addr) bool {
	return addr.Is4() && (addr.IsPrivate() || shared.Contains(addr))
}

// hostAddr reads an address, also with the length of its network's prefix, as `ip address` prints it and OpenWrt's
// interfaces take it. A network's own address is no host's.
func hostAddr(s string) (netip.Addr, bool) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		return a, err == nil
	}
	p, err := netip.ParsePrefix(s)
	return p.Addr(), err == nil && (p.IsSingleIP() || p != p.Masked())
}

func public4(s string) (netip.Addr, bool) {
	a, ok := hostAddr(s)
	return a, ok && a.Is4() && !slices.ContainsFunc(reserved, func(p netip.Prefix) bool { return p.Contains(a) })
}

func unicast4(s string) (netip.Addr, bool) {
	a, ok := hostAddr(s)
	return a, ok && a.Is4() && a.As4()[0] != 0 && a.As4()[0] < 224 && !a.IsLoopback()
}

// network4 reads an address, or a network without host bits.
func network4(s string) (netip.Prefix, bool) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || !a.Is4() {
			return netip.Prefix{}, false
		}
		return netip.PrefixFrom(a, 32), true
	}
	p, err := netip.ParsePrefix(s)
	return p, err == nil && p.Addr().Is4() && p == p.Masked()
}

// Outermost drops networks that lie within another one, and sorts the rest. It returns nil for everybody (0.0.0.0/0).
func Outermost(networks []netip.Prefix) []netip.Prefix {
	sort.SliceStable(networks, func(i, j int) bool {
		a, b := networks[i], networks[j]
		return a.Addr().Less(b.Addr()) || a.Addr() == b.Addr() && a.Bits() < b.Bits()
	})
	var outer []netip.Prefix
	for _, p := range networks {
		if n := len(outer); n == 0 || !outer[n-1].Overlaps(p) {
			outer = append(outer, p)
		}
	}
	if len(outer) == 1 && outer[0].Bits() == 0 {
		return nil
	}
	return outer
}

func unicast6(a netip.Addr) bool {
	return a.Is6() && !a.Is4In6() && a.Zone() == "" && a.IsGlobalUnicast()
}

// endpoint reads an address, also with the length of its prefix, or a prefix, which is combined with ipaddr (see
// Derive) if that is valid.
func (s *section) endpoint(option string, ipaddr netip.Addr) netip.Addr {
	if !s.has(option) {
		return netip.Addr{}
	}
	value := s.values(option)[0]
	if a, ok := hostAddr(value.Text); ok {
		if !unicast6(a) {
			s.refuse(value, option)
			return netip.Addr{}
		}
		return a
	}
	prefix, err := netip.ParsePrefix(value.Text)
	switch {
	case err != nil || !unicast6(prefix.Addr()):
		s.refuse(value, option)
	case !ipaddr.IsValid():
	default:
		if a := transport.Derive(prefix, ipaddr); prefix.Contains(a) {
			return a
		}
		s.problemAt(value, option, "the endpoint %s made of it and ipaddr lies outside; allowed is a prefix of at "+
			"most 64 bits, or an address",
			transport.Derive(prefix, ipaddr))
	}
	return netip.Addr{}
}

// dnsName accepts at least two labels of letters, digits and hyphens (RFC 1123).
func dnsName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	labels := strings.Split(s, ".")
	if len(s) > 253 || len(labels) < 2 {
		return false
	}
	letter := false
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range label {
			isLetter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
			if !isLetter && c != '-' && c != '_' && (c < '0' || c > '9') {
				return false
			}
			letter = letter || isLetter
		}
	}
	return letter
}

// portSet reads protocol:port, protocol:first-last or protocol.
func portSet(s string) (PortSet, bool) {
	name, ports, hasPorts := strings.Cut(s, ":")
	proto, ok := ParseProto(strings.ToLower(name))
	if !ok || !hasPorts || !HasPorts(proto) {
		// A bare number is more likely a port whose protocol was forgotten than a protocol.
		return PortSet{Proto: proto}, ok && !hasPorts && !HasPorts(proto) && !plainNumber(name)
	}
	first, last, ok := portRange(ports)
	return PortSet{proto, first, last}, ok
}

// firewallPorts takes first:last too, as OpenWrt's firewall does in src_dport and dest_port.
func firewallPorts(s string) (first, last uint16, ok bool) {
	return portRange(strings.Replace(s, ":", "-", 1))
}

func portRange(s string) (first, last uint16, ok bool) {
	low, high, isRange := strings.Cut(s, "-")
	if !isRange {
		high = low
	}
	a, err1 := strconv.ParseUint(low, 10, 16)
	b, err2 := strconv.ParseUint(high, 10, 16)
	return uint16(a), uint16(b), err1 == nil && err2 == nil && a > 0 && a <= b && plainNumber(low) && plainNumber(high)
}

func (s *section) relay(name string, defaults Defaults) *Relay {
	relay := &Relay{
		Name:       name,
		Line:       s.line,
		Enabled:    parse(s, "enabled", boolean),
		Role:       defaults.Role,
		Transport:  parse(s, "transport", oneOf(IPIP6, WireGuard)),
		IPAddr:     parse(s, "ipaddr", public4),
		Tunlink:    parse(s, "tunlink", linkName),
		Device:     "ds4-" + name,
		MTU:        parse(s, "mtu", numberOr("auto", 0, 576, 65000)),
		EncapLimit: parse(s, "encaplimit", encapLimit),
		TTL:        parse(s, "ttl", number(1, 255)),
		Table:      parse(s, "ip4table", table),
		Priority:   parse(s, "priority", number(1, 32000)),
		Egress:     Replies,
		Offloading: parse(s, "flow_offloading", boolean),

		Standby:     parse(s, "standby", boolean),
		TargetLocal: parse(s, "target_local", boolean),

		EgressPrivate: parse(s, "egress_private", boolean),
		KillSwitch:    parse(s, "killswitch", boolean),
		Masq:          parse(s, "masq", boolean),
	}
	if s.has("role") {
		relay.Role = parse(s, "role", oneOf(Router, VPS))
	}
	if device, ok := deviceName(defaults.Devices[name]); ok {
		relay.Device = device
	}
	if s.has("device") {
		relay.Device = parse(s, "device", deviceName)
	}
	if relay.Role == VPS {
		relay.NICAddr = parse(s, "nicaddr", unicast4)
		s.unused(message.New("is ignored: it is for the router"), "backup")
	} else {
		s.unused(message.New("is ignored: it is for the VPS"), "nicaddr", "standby")
		if s.has("backup") {
			relay.Backup = s.values("backup")[0].Text
		}
	}
	if s.has("egress") {
		relay.Egress = parse(s, "egress", oneOf(Replies, All))
	}
	s.allow(relay, defaults.Homes[name])
	if relay.Transport == WireGuard {
		s.wireguard(relay)
	} else {
		s.ipip6(relay)
	}
	if s.has("masq") {
		s.masq(relay, relay.Masq)
	}
	relay.Masq = relay.Masq && relay.Role == Router || relay.WireGuard.Plain
	if s.has("tunlink") && relay.Tunlink == relay.Device {
		s.problem("device", "%s is also the tunlink; allowed is a name of its own for the tunnel", relay.Device)
	}
	for _, value := range s.values("keep") {
		if set, ok := portSet(value.Text); ok {
			relay.Keep = append(relay.Keep, set)
		} else {
			s.refuse(value, "keep")
		}
	}
	if port, ok := relay.KeptPort(); ok && !slices.Contains(relay.Keep, port) {
		relay.Keep = append(relay.Keep, port)
	}
	s.r.owned = append(s.r.owned, owned{relay, s})
	return relay
}

// ipip6 reads the options of the transport IPIP6.
func (s *section) ipip6(relay *Relay) {
	ip6addr := "auto"
	if s.has("ip6addr") {
		ip6addr = s.values("ip6addr")[0].Text
	}
	switch {
	case ip6addr != "auto":
		relay.Local = s.endpoint("ip6addr", relay.IPAddr)
	case relay.Role == Router:
		relay.Auto = true
	case s.has("ip6addr"):
		s.problem("ip6addr", "is for routers; on a VPS allowed is %s", allowed(addrWords))
	default:
		s.missing("ip6addr")
	}
	s.unused(message.New("is ignored: it is for transport %s", WireGuard), "public_key", "private_key_file",
		"preshared_key_file", "listen_port", "endpoint_port", "persistent_keepalive", "peer")
	if !s.has("peeraddr") && relay.Allow == nil {
		s.missing("peeraddr")
	}
	if !s.has("peeraddr") && relay.Allow != nil {
		relay.Peer = relay.Home.Peer
	} else if s.has("peeraddr") && dnsName(s.values("peeraddr")[0].Text) {
		relay.PeerName = s.values("peeraddr")[0].Text
	} else {
		relay.Peer = s.endpoint("peeraddr", relay.IPAddr)
	}
	if relay.Local.IsValid() && relay.Local == relay.Peer {
		s.problem("peeraddr", "both endpoints are %s; ip6addr is this end's, peeraddr the other end's", relay.Local)
	}
}

// wireguard reads the options of the transport WireGuard.
func (s *section) wireguard(relay *Relay) {
	s.unused(message.New("is ignored: it is for transport %s", IPIP6), "ip6addr", "encaplimit", "ttl")
	w := &relay.WireGuard
	w.PublicKey = parse(s, "public_key", transport.ParseKey)
	switch {
	case s.has("public_key"):
	case relay.Allow != nil:
		w.PublicKey = relay.Home.PublicKey
	default:
		s.missing("public_key")
	}
	w.PrivateFile = KeyDir + relay.Name
	if s.has("private_key_file") {
		w.PrivateFile = parse(s, "private_key_file", fileName)
	}
	w.PresharedFile = parse(s, "preshared_key_file", fileName)
	if w.PresharedFile == w.PrivateFile {
		s.problem("preshared_key_file", "%s has the private key; allowed is a file of its own", w.PrivateFile)
	}
	port := "endpoint_port"
	if relay.Role == VPS {
		port = "listen_port"
		s.unused(message.New("is ignored: with transport wireguard it is for the router"), "endpoint_port",
			"persistent_keepalive", "peeraddr")
		w.Plain = s.has("peer") && parse(s, "peer", oneOf(plainPeer)) == plainPeer
	} else {
		s.unused(message.New("is ignored: with transport wireguard it is for the VPS"), "listen_port", "peer")
		w.Keepalive = parse(s, "persistent_keepalive", number(0, 65535))
		s.peer(relay)
	}
	w.Port = uint16(parse(s, port, number(1, 65535)))
}

// masq judges the option masq of a relay's section, or of one of its forwards.
func (s *section) masq(relay *Relay, on bool) {
	switch {
	case relay.WireGuard.Plain && !on:
		s.problem("masq", "with peer plain the home answers only to %s, which hosts see instead of the clients; "+
			"allowed is 1, or no option masq", PlainAddr)
	case relay.Role == VPS && on && !relay.WireGuard.Plain:
		s.unused(message.New("is ignored: it is for the router, or for a VPS with peer plain"), "masq")
	}
}

// plainPeer is the value of option peer.
const plainPeer = "plain"

// peer reads where a router finds the VPS.
func (s *section) peer(relay *Relay) {
	if !s.has("peeraddr") {
		s.problem("", "option %s is missing; it takes %s", "peeraddr",
			message.New("the VPS's IPv4 or IPv6 address, or its DNS name"))
		return
	}
	value := s.values("peeraddr")[0]
	if dnsName(value.Text) {
		relay.PeerName = value.Text
		return
	}
	addr, ok := hostAddr(value.Text)
	if !ok || !unicast6(addr) && !(addr.Is4() && addr.IsGlobalUnicast()) {
		s.problemAt(value, "peeraddr", "with transport wireguard allowed is an IPv4 address such as 198.51.100.144, "+
			"an IPv6 address such as 2001:db8::1, or a DNS name")
		return
	}
	relay.Peer = addr
}

// missing reports that a required option is missing.
func (s *section) missing(option string) {
	s.problem("", "option %s is missing; it takes %s", option, allowed(s.spec.option(option).Allowed))
}

// unused warns about options that the section has and that do nothing there.
func (s *section) unused(why *message.Text, options ...string) {
	for _, option := range options {
		if s.has(option) {
			s.r.warnings.add(s.r.at(s.lineOf(option), s.label(), option, s.values(option)[0].Text, why))
		}
	}
}

func (s *section) forward(name string) pending {
	f := &Forward{
		Section: name,
		Name:    parse(s, "name", title),
		Line:    s.line,
		DestIP:  parse(s, "dest_ip", unicast4),
		Egress:  parse(s, "egress", oneOf(Replies, All)),

		KillSwitch: s.has("killswitch") && parse(s, "killswitch", boolean),
		Masq:       s.has("masq") && parse(s, "masq", boolean),
	}
	protos := s.values("proto")
	if !s.has("proto") {
		for _, word := range strings.Fields(s.spec.option("proto").Default) {
			protos = append(protos, uci.Value{Text: word, Line: s.line})
		}
	}
	s.ports(f, protos)
	for _, value := range s.values("src_ip") {
		if network, ok := network4(value.Text); ok {
			f.Clients = append(f.Clients, network)
		} else {
			s.refuse(value, "src_ip")
		}
	}
	f.Clients = Outermost(f.Clients)
	s.r.owned = append(s.r.owned, owned{f, s})
	return pending{s, f, parse(s, "enabled", boolean)}
}

func title(s string) (string, bool) {
	return s, len([]rune(s)) <= 64 && !strings.ContainsFunc(s, unicode.IsControl)
}

// ports combines the options proto, src_dport and dest_port.
func (s *section) ports(f *Forward, protos []uci.Value) {
	ranges, ok := s.publicPorts()
	withPorts, withoutPorts := false, ""
	for _, value := range protos {
		word := strings.ToLower(value.Text)
		if word == "all" || word == "any" {
			f.All = true
			continue
		}
		if word == "tcpudp" {
			f.Ports = appendPorts(appendPorts(f.Ports, TCP, ranges), UDP, ranges)
			withPorts = true
			continue
		}
		proto, ok := ParseProto(word)
		switch {
		case !ok:
			s.refuse(value, "proto")
			withPorts = true
		case HasPorts(proto):
			f.Ports = appendPorts(f.Ports, proto, ranges)
			withPorts = true
		default:
			f.Ports = append(f.Ports, PortSet{Proto: proto})
			withoutPorts = cmp.Or(withoutPorts, value.Text)
		}
	}
	switch {
	case f.All && len(protos) > 1:
		s.problem("proto", "all cannot stand beside other protocols; allowed is all alone, or a list without it")
	case f.All && s.has("src_dport"):
		s.problem("src_dport", "proto all has no ports; allowed is no src_dport, or a protocol with ports such as tcp")
	case withoutPorts != "" && s.has("src_dport"):
		s.problem("src_dport", "proto %s has no ports; allowed is no src_dport, or a forward of its own for that "+
			"protocol", withoutPorts)
	case withPorts && !s.has("src_dport"):
		s.problem("", "option src_dport is missing; it takes %s (or set proto to all: every protocol and port)",
			allowed(portWords))
	}
	if !s.has("dest_port") {
		if s.has("src_dport") && len(ranges) == 1 {
			f.DestPort = ranges[0].First
		}
		return
	}
	first, last, destOK := firewallPorts(s.values("dest_port")[0].Text)
	switch {
	case !destOK:
		s.refuse(s.values("dest_port")[0], "dest_port")
	case !s.has("src_dport"):
		s.problem("dest_port", "needs a src_dport, the public port that it stands for")
	case len(ranges) > 1:
		s.problem("dest_port", "stands for one src_dport, not for %d; allowed is no dest_port, or a forward of "+
			"its own for each", len(ranges))
	case ok && int(last)-int(first) != int(ranges[0].Last)-int(ranges[0].First):
		s.problem("dest_port", "has %d ports, src_dport has %d; allowed is as many, mapped one to one",
			int(last)-int(first)+1, int(ranges[0].Last)-int(ranges[0].First)+1)
	}
	f.DestPort = first
}

// publicPorts reads src_dport. It returns at least one range, in the order of the file, and whether all are right: none
// overlaps another.
func (s *section) publicPorts() (ranges []PortSet, ok bool) {
	ok = true
	for _, value := range s.values("src_dport") {
		first, last, valid := firewallPorts(value.Text)
		if !valid {
			s.refuse(value, "src_dport")
			ok = false
			continue
		}
		i := slices.IndexFunc(ranges, func(r PortSet) bool { return first <= r.Last && last >= r.First })
		if i >= 0 {
			s.problemAt(value, "src_dport", "overlaps with %s of the same forward; remove one of the two",
				rangeText(ranges[i].First, ranges[i].Last-ranges[i].First))
			ok = false
			continue
		}
		ranges = append(ranges, PortSet{First: first, Last: last})
	}
	if len(ranges) == 0 {
		ranges = []PortSet{{First: 1, Last: 1}}
	}
	return ranges, ok
}

// appendPorts appends the ranges as ports of a protocol.
func appendPorts(sets []PortSet, proto uint8, ranges []PortSet) []PortSet {
	for _, r := range ranges {
		sets = append(sets, PortSet{proto, r.First, r.Last})
	}
	return sets
}

// relaysOf finds the relays that a forward belongs to, or reports why there is none; names are the existing relays.
// Several are the ways from one public address to a router.
func (s *section) relaysOf(names string) (relays []*Relay) {
	if !s.has("relay") {
		switch len(s.r.config.Relays) {
		case 0:
			s.problem("", "there is no relay section for it; add one: config relay 'home'")
		case 1:
			return s.r.config.Relays
		default:
			s.problem("", "option relay is missing; with several relays it takes one of: %s", names)
		}
		return nil
	}
	for _, value := range s.values("relay") {
		relay := s.r.relays[value.Text]
		switch {
		case relay == nil && names == "":
			s.problemAt(value, "relay", "there is no relay section of that name")
		case relay == nil:
			s.problemAt(value, "relay", "there is no relay section of that name; allowed is %s", names)
		case slices.Contains(relays, relay):
			s.problemAt(value, "relay", "is given twice; remove one of the two")
		case len(relays) > 0 && (relay.Role != Router || relays[0].Role != Router || relay.IPAddr != relays[0].IPAddr):
			s.problemAt(value, "relay", "has another public address than relay %q, or is at its VPS; allowed are "+
				"several relays of a router with the same ipaddr", relays[0].Name)
		default:
			relays = append(relays, relay)
		}
	}
	return relays
}
