// Package pushed judges what the home of a paired relay asks its VPS for: text and facts of the machine → an accepted
// configuration, or problems with codes.
package pushed

import (
	"encoding/json"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// Bounds of what comes from a home, and of what it is answered, in bytes.
const (
	MaxEnrolment = 4 << 10
	MaxAnswer    = 16 << 10
	maxProblems  = 100
	maxValue     = 300
)

// A Problem is one reason why something is refused. The home puts it into words.
type Problem struct {
	Code    string `json:"code"` // of package message
	Args    []any  `json:"args,omitempty"`
	Section string `json:"section,omitempty"` // as `forward "web"`
	Option  string `json:"option,omitempty"`
	Value   string `json:"value,omitempty"`
}

// Refuse makes a Problem that is about no section.
func Refuse(text *message.Text) Problem { return Problem{Code: text.Code, Args: text.Args} }

// Text is the problem as the VPS's own log has it.
func (p Problem) Text() *message.Text {
	text := &message.Text{Code: p.Code, Args: p.Args}
	switch {
	case p.Section == "":
		return text
	case p.Option == "":
		return message.New("%s: %s", p.Section, text)
	}
	return message.New("%s: option %s %q: %s", p.Section, p.Option, p.Value, text)
}

// An Answer is what a home is told.
type Answer struct {
	Version  int       `json:"version"` // 1
	State    string    `json:"state"`   // OK or Refused
	Problems []Problem `json:"problems,omitempty"`
}

// The states of an Answer.
const (
	OK      = "ok"
	Refused = "refused"
)

// NewAnswer says that something was taken, or, with problems, that it was refused.
func NewAnswer(problems ...Problem) Answer {
	if len(problems) == 0 {
		return Answer{Version: 1, State: OK}
	}
	return Answer{Version: 1, State: Refused, Problems: problems}
}

// JSON is the answer in at most MaxAnswer bytes: the first problems.
func (a Answer) JSON() []byte {
	a.Problems = slices.Clone(a.Problems[:min(len(a.Problems), maxProblems)])
	for i := range a.Problems {
		p := &a.Problems[i]
		p.Section, p.Value, p.Option = cut(p.Section), cut(p.Value), cut(p.Option)
	}
	for {
		data, err := json.Marshal(a)
		if err == nil && len(data) < MaxAnswer {
			return append(data, '\n')
		}
		if len(a.Problems) < 2 {
			return []byte(`{"version":1,"state":"refused"}` + "\n")
		}
		a.Problems = a.Problems[:len(a.Problems)-1]
	}
}

func cut(text string) string {
	if len(text) <= maxValue {
		return text
	}
	return strings.ToValidUTF8(text[:maxValue], "") + "…"
}

// A Listener is a socket of the VPS that waits for clients.
type Listener struct {
	Addr netip.Addr // the unspecified one: all of the VPS
	Set  config.PortSet
}

// Facts are what a push is judged by besides the configuration.
type Facts struct {
	Networks  []netip.Prefix // that the VPS is in or has routes to, without those of the relays
	Listeners []Listener
	Cards     map[netip.Addr]netip.Addr // public address → the one on the network card, where a cloud translates
	Session   string                    // SSH_CONNECTION (ssh(1)) of the session that the push came by
}

// Relay finds a relay that homes may enrol for.
func Relay(c *config.Config, name string) (*config.Relay, *Problem) {
	r := c.Relay(name)
	switch {
	case r == nil || r.Role != config.VPS || r.Allow == nil:
		p := Refuse(message.New("the VPS has no relay %q with list allow", name))
		return nil, &p
	case !r.Enabled:
		p := Refuse(message.New("relay %q is disabled at the VPS", name))
		return nil, &p
	}
	return r, nil
}

// Check judges a push of a relay's home, together with a configuration and the text that it was made of. defaults have
// what homes have told so far. from is the home's address that comes with the push; not valid if it stays as it is.
// Forwards that the home has already are not judged again: its address is followed whatever else has changed.
func Check(c *config.Config, text []byte, defaults config.Defaults, relay string, push []byte, from netip.Addr,
	facts Facts) []Problem {
	r, problem := Relay(c, relay)
	if problem == nil {
		problem = Peer(c, r, from)
	}
	if len(push) > config.MaxPush {
		problem = tooLong(config.MaxPush)
	}
	if problem != nil {
		return []Problem{*problem}
	}
	homes := maps.Clone(defaults.Homes)
	home := r.Home
	home.Push, home.Damaged = push, nil
	if from.IsValid() {
		home.Peer = from
	}
	if home.File == "" {
		home.File = relay
	}
	if homes == nil {
		homes = map[string]*config.Home{}
	}
	homes[relay] = &home
	defaults.Homes, defaults.Asking = homes, relay
	next, _, err := config.Parse(c.Path, text, defaults)
	if err != nil {
		return problemsOf(err, home.File)
	}
	after := next.Relay(relay)
	if config.Pushed(after, "") == config.Pushed(r, "") {
		return nil
	}
	return facts.judge(next, after)
}

func tooLong(most int) *Problem {
	p := Refuse(message.New("the VPS reads at most %d bytes", most))
	return &p
}

// problemsOf tells a home of mistakes in what it has pushed. What the VPS's own file says is not for its eyes.
func problemsOf(err error, file string) (list []Problem) {
	var problems config.Problems
	if errors.As(err, &problems) {
		for _, p := range problems {
			if p.File == file {
				list = append(list, Problem{p.Code, p.Args, p.Section, p.Option, p.Value})
			}
		}
	}
	if len(list) == 0 {
		list = append(list, Refuse(message.New("it does not go together with the VPS's own configuration; there "+
			"`ds4relay check` says more")))
	}
	return list
}

// Peer refuses an address of a home that is somebody else's.
func Peer(c *config.Config, r *config.Relay, from netip.Addr) *Problem {
	if !from.IsValid() {
		return nil
	}
	for _, other := range c.Relays {
		if from == other.Local || other != r && from == other.Peer {
			p := Refuse(message.New("%s is the address of another end of a relay", from))
			return &p
		}
	}
	return nil
}

// judge finds what pushed forwards would take from the VPS.
func (facts Facts) judge(c *config.Config, r *config.Relay) (problems []Problem) {
	listeners := facts.Listeners
	if session, ok := sessionOf(facts.Session); ok {
		listeners = append(slices.Clone(listeners), session)
	}
	kept := func(l Listener) bool {
		return slices.ContainsFunc(c.Relays, func(other *config.Relay) bool {
			return other.Enabled && other.IPAddr == r.IPAddr && slices.ContainsFunc(other.Keep,
				func(keep config.PortSet) bool { return keep.Contains(l.Set.Proto, l.Set.First) })
		})
	}
	open := slices.DeleteFunc(slices.Clone(listeners), func(l Listener) bool {
		reached := l.Addr.IsUnspecified() || r.Has(l.Addr) || l.Addr == facts.Cards[r.IPAddr]
		return !reached || kept(l)
	})
	for _, f := range r.Forwards {
		if f.Pushed == "" {
			continue
		}
		section := `forward ` + strconv.Quote(f.Section)
		for _, network := range facts.Networks {
			if network.Contains(f.DestIP) {
				text := message.New("is an address of the VPS's own network %s; allowed is one that only the home has",
					network)
				problems = append(problems, Problem{text.Code, text.Args, section, "dest_ip", f.DestIP.String()})
				break
			}
		}
		for _, l := range open {
			option, value := "src_dport", l.Set.String()
			switch {
			case f.All:
				option, value = "proto", "all"
			case !slices.ContainsFunc(f.Ports, func(set config.PortSet) bool {
				return set.Contains(l.Set.Proto, l.Set.First)
			}):
				continue
			}
			text := message.New("the VPS itself listens on %s; allowed are other ports", l.Set)
			problems = append(problems, Problem{text.Code, text.Args, section, option, value})
			break
		}
	}
	return problems
}

// sessionOf is the end of an ssh session at the VPS: the third and the fourth word of SSH_CONNECTION.
func sessionOf(connection string) (Listener, bool) {
	words := strings.Fields(connection)
	if len(words) != 4 {
		return Listener{}, false
	}
	addr, err := netip.ParseAddr(words[2])
	port, portErr := strconv.ParseUint(words[3], 10, 16)
	set := config.PortSet{Proto: config.TCP, First: uint16(port), Last: uint16(port)}
	return Listener{addr.Unmap().WithZone(""), set}, err == nil && portErr == nil && port > 0
}

// Endpoint is the address that a relay's home has, by the source address of its ssh session; not valid if the relay
// does not learn it that way.
func Endpoint(r *config.Relay, from netip.Addr) netip.Addr {
	from = from.Unmap()
	told := r.PeerName == "" && (!r.Peer.IsValid() || r.Peer == r.Home.Peer)
	if r.Transport != config.IPIP6 || !told || !from.Is6() || from.Zone() != "" || !from.IsGlobalUnicast() {
		return netip.Addr{}
	}
	return from
}

// An Enrolment is what a home says of itself, once.
type Enrolment struct {
	SSH       string // its ssh key, as in a .pub file
	PublicKey transport.Key
}

// ParseEnrolment reads what a home says, with the key that the transport needs.
func ParseEnrolment(text []byte, need config.Transport) (e Enrolment, problem *Problem) {
	refuse := func(text *message.Text) (Enrolment, *Problem) {
		p := Refuse(text)
		return e, &p
	}
	var said struct {
		Version   int    `json:"version"`
		SSH       string `json:"ssh"`
		PublicKey string `json:"public_key"`
	}
	if len(text) > MaxEnrolment {
		return e, tooLong(MaxEnrolment)
	}
	if json.Unmarshal(text, &said) != nil || said.Version != 1 {
		return refuse(message.New("this enrolment is of no version that the VPS knows; upgrade ds4relay here or there"))
	}
	e.SSH = said.SSH
	if need != config.WireGuard {
		return e, nil
	}
	var ok bool
	if e.PublicKey, ok = transport.ParseKey(said.PublicKey); !ok || !e.PublicKey.Valid() {
		return refuse(message.New("the VPS's relay has transport wireguard, and the home has sent no public key for it"))
	}
	return e, nil
}
