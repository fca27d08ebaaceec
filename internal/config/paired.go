package config

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"

	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/transport"
	"github.com/ds4relay/ds4relay/internal/uci"
)

// An Allowance is what the home of a VPS's relay may ask for (list allow). Such a relay is paired: the home says what
// the VPS's file leaves open.
type Allowance struct {
	Ports  []PortSet
	All    bool // every protocol and port, and forwards of all
	Egress bool // hosts with egress all
}

// A Home is what a VPS has been told by the home of a paired relay. It is kept beside the file.
type Home struct {
	PublicKey transport.Key // of its WireGuard; not valid with another transport
	Peer      netip.Addr    // its endpoint, with the transport IPIP6
	Enrolled  int64         // seconds since 1970; 0: none has ever been
	From      string        // the address that it enrolled from
	Reused    *Reuse        // somebody has tried its invitation once more; nil for nobody
	Damaged   *message.Text // why what is kept of it cannot be used; nil if it can
	File      string        // what messages call Push
	Push      []byte        // the forwards that it has asked for, as text; nil for none
	LeftOut   *message.Text // why they are left out; nil if they are not
}

// A Reuse is an attempt to enrol with an invitation that has been used.
type Reuse struct {
	From string `json:"from"`
	At   int64  `json:"at"` // seconds since 1970
}

// PushHeader is the first line of what a home pushes.
const PushHeader = "ds4relay-push 1\n"

// Bounds of what a home may push.
const (
	MaxPush         = 64 << 10 // bytes
	MaxPushForwards = 500
)

// pushOptions are the options of a forward that a home may push.
var pushOptions = []string{"name", "enabled", "relay", "proto", "src_dport", "dest_ip", "dest_port", "src_ip", "egress"}

// allowWords are the values of list allow that are no ports.
const (
	allowAll    = "all"
	allowEgress = "egress"
)

// Awaited reports whether the relay waits for its home to enrol: nothing is known of that yet.
func (r *Relay) Awaited() bool {
	switch {
	case !pairing || r.Allow == nil:
		return false
	case r.Transport == WireGuard:
		return !r.WireGuard.PublicKey.Valid()
	}
	return !r.Peer.IsValid() && r.PeerName == ""
}

// allows reports whether the home may ask for ports.
func (a *Allowance) allows(set PortSet) bool {
	if a.All {
		return true
	}
	var spans []span
	for _, p := range a.Ports {
		if p.Proto == set.Proto {
			spans = append(spans, span{p.First, p.Last, 0})
		}
	}
	if !set.HasPorts() {
		return len(spans) > 0
	}
	return !slices.ContainsFunc(gaps(disjoint(spans), 0), func(gap span) bool {
		return gap.first <= set.Last && gap.last >= set.First
	})
}

// allow reads what the home of a relay may ask for, and takes what it has said about itself.
func (s *section) allow(relay *Relay, home *Home) {
	if !s.has("allow") {
		return
	}
	if relay.Role != VPS || !pairing {
		s.unused(message.New("is ignored: it is for a VPS with Debian"), "allow")
		return
	}
	relay.Allow = &Allowance{}
	for _, value := range s.values("allow") {
		set, ok := portSet(value.Text)
		switch {
		case value.Text == allowAll:
			relay.Allow.All = true
		case value.Text == allowEgress:
			relay.Allow.Egress = true
		case ok:
			relay.Allow.Ports = append(relay.Allow.Ports, set)
		default:
			s.refuse(value, "allow")
		}
	}
	if home != nil {
		relay.Home = *home
		if home.Damaged != nil {
			s.r.warnings.add(newProblem(home.File, 1, s.label(), "", "", message.New("what is kept of the home is "+
				"damaged, and left out: %s", home.Damaged)))
		}
		s.r.config.told(home.PublicKey.String() + home.Peer.String())
	}
	if s.has("peer") && relay.Transport == WireGuard {
		s.problem("allow", "is for a home with ds4relay, and peer plain for one without; allowed is one of the two")
	}
}

// newPaired is New for a VPS with homes. What a home has pushed never makes the file wrong: it is left out where it
// does not go together with that.
func newPaired(file *uci.File, defaults Defaults) (*Config, Problems, error) {
	var names []string
	for name, home := range defaults.Homes {
		if home.Push != nil && name != defaults.Asking {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if home := defaults.Homes[defaults.Asking]; home != nil && home.Push != nil {
		names = append(names, defaults.Asking)
	}
	c, warnings, err := read(file, defaults, names)
	if err == nil || len(names) == 0 {
		return c, warnings, err
	}
	if c, warnings, err = read(file, defaults, nil); err != nil {
		return c, warnings, err
	}
	var taken []string
	var left Problems
	reasons := map[string]*message.Text{}
	for _, name := range names {
		next, warned, wrong := read(file, defaults, append(slices.Clone(taken), name))
		problems, _ := wrong.(Problems)
		switch {
		case wrong == nil:
			c, warnings, taken = next, warned, append(taken, name)
		case name == defaults.Asking:
			return nil, warned, wrong
		case len(problems) > 0:
			reasons[name] = problems[0].AsText()
			left = append(left, newProblem(defaults.Homes[name].File, 1, label("relay", name), "", "",
				message.New("what the home has asked for is left out: %s", reasons[name])))
		}
	}
	for _, r := range c.Relays {
		r.Home.LeftOut = reasons[r.Name]
	}
	return c, append(warnings, left...), nil
}

// pushed reads what the home of a relay has pushed.
func (r *reader) pushed(relay *Relay) {
	if relay == nil || relay.Allow == nil {
		return
	}
	home := &relay.Home
	bad := func(line int, section, option, value string, text *message.Text) {
		r.problems.add(newProblem(home.File, line, section, option, value, text))
	}
	body, ok := bytes.CutPrefix(home.Push, []byte(PushHeader))
	switch {
	case len(home.Push) > MaxPush:
		bad(1, "", "", "", message.New("the VPS reads at most %d bytes", MaxPush))
		return
	case !ok:
		bad(1, "", "", "", message.New("this push is of no version that the VPS knows; upgrade ds4relay here or there"))
		return
	}
	file, err := uci.Parse(home.File, append([]byte("\n"), body...)) // with the same numbers of lines
	if err != nil {
		bad(1, "", "", "", message.New("the push is no UCI: %v", err))
		return
	}
	r.config.told(string(home.Push))
	count := 0
	for i := range file.Sections {
		raw := &file.Sections[i]
		name := label(raw.Type, raw.Name)
		switch {
		case raw.Type == "home":
			continue
		case raw.Type != "forward" || raw.Anonymous:
			bad(raw.Line, name, "", "", message.New("is not for a home to say; allowed are forwards with names"))
			return
		}
		if count++; count > MaxPushForwards {
			bad(raw.Line, name, "", "", message.New("there are more than %d forwards", MaxPushForwards))
			return
		}
		if r.named(relay, raw.Name) {
			bad(raw.Line, name, "", "", message.New("the VPS's own file has a forward of that name; remove one of the "+
				"two, or rename it"))
			continue
		}
		r.pushedForward(relay, raw, bad)
	}
}

// named reports whether the file itself has a forward of that name.
func (r *reader) named(relay *Relay, name string) bool {
	return slices.ContainsFunc(relay.Forwards, func(f *Forward) bool { return f.Section == name && f.Pushed == "" })
}

func (r *reader) pushedForward(relay *Relay, raw *uci.Section, bad func(int, string, string, string, *message.Text)) {
	s := &section{r: r, spec: sectionSpec("forward"), name: raw.Name, line: raw.Line, path: relay.Home.File}
	for _, option := range raw.Options {
		value := ""
		if len(option.Values) > 0 {
			value = option.Values[0].Text
		}
		switch {
		case !slices.Contains(pushOptions, option.Name):
			bad(option.Line, s.label(), short(option.Name), value, message.New("is not for a home to say; allowed are %s",
				strings.Join(pushOptions, ", ")))
			return
		case option.Name == "relay" && value != relay.Name:
			bad(option.Line, s.label(), option.Name, value, message.New("is another relay; this home's is %q",
				relay.Name))
			return
		}
	}
	s.collect(raw)
	p := s.forward(raw.Name)
	f := p.forward
	f.Pushed, f.turn, f.Masq = relay.Home.File, r.turns, relay.Masq
	if !s.has("egress") {
		f.Egress = Replies
		if relay.Allow.Egress {
			f.Egress = relay.Egress
		}
	}
	s.permitted(relay, f)
	if p.enabled {
		relay.Forwards = append(relay.Forwards, f)
	}
}

// permitted reports what a pushed forward has and its home may not ask for.
func (s *section) permitted(relay *Relay, f *Forward) {
	may := relay.Allow
	if f.DestIP.IsValid() && !f.DestIP.IsPrivate() {
		s.problem("dest_ip", "is no private address; allowed is one out of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16")
	}
	if f.Egress == All && !may.Egress {
		s.problem("egress", "the VPS does not allow it; allowed is replies, or at the VPS: list allow 'egress'")
	}
	if f.All && !may.All {
		s.problem("proto", "the VPS does not allow it; allowed are ports, or at the VPS: list allow 'all'")
	}
	for _, set := range f.Ports {
		if may.allows(set) {
			continue
		}
		option := "src_dport"
		if !set.HasPorts() {
			option = "proto"
		}
		s.problemAt(s.valueOf(option, set), option, "the VPS does not allow %s; allowed is %s, or more at the VPS (list "+
			"allow)", set, may)
	}
}

// valueOf is the value that a set of ports is from, or the section's line.
func (s *section) valueOf(option string, set PortSet) uci.Value {
	for _, value := range s.values(option) {
		if first, last, ok := firewallPorts(value.Text); ok && first == set.First && last == set.Last {
			return value
		}
	}
	return uci.Value{Text: set.String(), Line: s.lineOf(option)}
}

// String lists what is allowed.
func (a *Allowance) String() string {
	words := []string{}
	if len(a.Ports) > 0 {
		words = append(words, listed(a.Ports, maxListed, PortSet.String))
	}
	if a.Egress {
		words = append(words, allowEgress)
	}
	if len(words) == 0 {
		return "nothing"
	}
	return strings.Join(words, ", ")
}
