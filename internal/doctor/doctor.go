package doctor

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
)

// State is the result of a check.
type State string

// The results of a check.
const (
	OK      State = "ok"
	Warning State = "warning" // it works, but something should be looked at
	Failed  State = "failed"
	Skipped State = "skipped" // it says nothing: something else has to be right first, or this machine cannot tell
)

// Check is one check of the doctor.
type Check struct {
	ID    string `json:"id"`
	Relay string `json:"relay"` // "" where it is about the whole machine
	Title string `json:"title"`
}

// Finding is the outcome of a Check.
type Finding struct {
	Check
	State    State  `json:"state"`
	Evidence string `json:"evidence"` // in English, as is the remedy
	Remedy   string `json:"remedy"`   // "" where nothing is to be done
	Codes    Codes  `json:"codes"`
	Parts    []Part `json:"-"` // of a check of each forward
}

// Codes are what English is made of in a Finding.
type Codes struct {
	Evidence *message.Text `json:"evidence"`
	Remedy   *message.Text `json:"remedy,omitzero"`
}

// NewFinding is one without its Check. remedy may be nil.
func NewFinding(state State, evidence, remedy *message.Text) Finding {
	return Finding{State: state, Evidence: evidence.Error(), Remedy: remedy.Error(), Codes: Codes{evidence, remedy}}
}

func ok(code string, args ...any) Finding {
	return NewFinding(OK, message.New(code, args...), nil)
}

func skipped(code string, args ...any) Finding {
	return NewFinding(Skipped, message.New(code, args...), nil)
}

// failed has the code of the remedy and its arguments, as has warning.
func failed(evidence *message.Text, code string, args ...any) Finding {
	return NewFinding(Failed, evidence, message.New(code, args...))
}

func warning(evidence *message.Text, code string, args ...any) Finding {
	return NewFinding(Warning, evidence, message.New(code, args...))
}

// examination is a kind of check; exactly one of machine and relay is set.
type examination struct {
	id, title string
	transport config.Transport // "" for relays of all transports
	needs     []string         // checks of the same relay or of the machine without which this one says nothing
	machine   func(*Doctor) Finding
	relay     func(*patient) Finding
}

// isFor reports whether a relay's transport has the check.
func (e *examination) isFor(r *config.Relay) bool {
	return e.transport == "" || e.transport == r.Transport
}

// examinations are all kinds of checks, in order: each may depend on earlier ones.
var examinations = []examination{
	{id: "config", title: "Configuration", machine: (*Doctor).configuration},
	{id: "system", title: "Kernel and programs", machine: (*Doctor).system},
	{id: "endpoints", title: "Endpoints are known", relay: (*patient).endpoints, needs: []string{"config"}},
	{id: "installed", title: "The kernel is as configured", machine: (*Doctor).installed,
		needs: []string{"config", "system"}},
	{id: "conntrack", title: "Room for connections", machine: (*Doctor).conntrack},
	{id: "peer", title: "The other end is reached over IPv6", transport: config.IPIP6, relay: (*patient).peer,
		needs: []string{"endpoints", "installed"}},
	{id: "peer", title: "The other end is reached", transport: config.WireGuard, relay: (*patient).peerOfWireGuard,
		needs: []string{"endpoints", "installed"}},
	{id: "routed", title: "This end's endpoint is routed to this machine", transport: config.IPIP6,
		relay: (*patient).routed, needs: []string{"peer"}},
	{id: "tunnel", title: "IPv4 in IPv6 (protocol 4) passes both ways", transport: config.IPIP6,
		relay: (*patient).tunnel, needs: []string{"peer", "routed"}},
	{id: "tunnel", title: "WireGuard's packets pass both ways", transport: config.WireGuard,
		relay: (*patient).tunnelOfWireGuard, needs: []string{"peer"}},
	{id: "mtu", title: "Packets of full size pass both ways", relay: (*patient).mtu, needs: []string{"tunnel"}},
	{id: "forward", title: "This machine forwards a client's packet", relay: (*patient).forward,
		needs: []string{"endpoints", "installed"}},
	{id: "host", title: "The hosts at home answer", relay: (*patient).hosts, needs: []string{"forward"}},
	{id: "answer", title: "The answer goes back through the tunnel", relay: (*patient).answer, needs: []string{"host"}},
	{id: "internet", title: "The public address is reached from the internet", relay: (*patient).internet,
		needs: []string{"tunnel", "answer"}},
	{id: "clock", title: "The clock is right", machine: (*Doctor).clock},
}

// Doctor examines one machine. It gathers evidence that several checks need only once.
type Doctor struct {
	prober   Prober
	config   *config.Config
	warnings config.Problems
	loadErr  error
	patients map[string]*patient
	known    *System
	port     uint16 // of the last test packet
}

// New reads the configuration.
func New(m Prober) *Doctor {
	d := &Doctor{prober: m, patients: map[string]*patient{}}
	d.config, d.warnings, d.loadErr = m.Config()
	return d
}

// Of is New for a configuration that was read already, without mistakes.
func Of(m Prober, c *config.Config) *Doctor {
	return &Doctor{prober: m, patients: map[string]*patient{}, config: c}
}

func (d *Doctor) sys() System {
	if d.known == nil {
		s := d.prober.System()
		d.known = &s
	}
	return *d.known
}

// nextPort returns a port for a test packet, so that no answer to an earlier one matches, not even of another run. Both
// ends may be examined at once, with packets of the same client to the same hosts: each role has ports of its own.
func (p *patient) nextPort() uint16 {
	const count = 20000
	first := uint16(20000)
	if p.Role == config.Router {
		first += count
	}
	d := p.Doctor
	if d.port < first || d.port >= first+count {
		d.port = first + uint16(d.sys().Now.UnixMilli()%count)
	}
	d.port = first + (d.port-first+1)%count
	return d.port
}

// patient is one relay of the machine.
type patient struct {
	*Doctor
	*config.Relay
	path    Path
	pathErr error
	tried   []*attempt
	untried int                   // mappings of forwards that are left out
	asked   map[netip.Addr]string // hosts → result of Neighbour
	via     entry                 // what packets through the tunnel are made of
	passes  bool                  // packets through the tunnel
	blocked bool                  // so that there is nothing to wait for
}

func (d *Doctor) patient(r *config.Relay) *patient {
	p := d.patients[r.Name]
	if p == nil {
		p = &patient{Doctor: d, Relay: r, asked: map[netip.Addr]string{}}
		p.path, p.pathErr = d.prober.Path(r)
		d.patients[r.Name] = p
	}
	return p
}

// Checks lists the checks, in order, for the named relays or all enabled ones.
func (d *Doctor) Checks(names ...string) ([]Check, error) {
	var relays []*config.Relay
	if d.config != nil {
		for _, name := range names {
			if d.config.Relay(name) == nil {
				return nil, message.New("unknown relay %q", name)
			}
		}
		for _, r := range d.config.Relays {
			if slices.Contains(names, r.Name) || len(names) == 0 && r.Enabled {
				relays = append(relays, r)
			}
		}
	}
	var checks []Check
	for _, e := range examinations {
		if e.machine != nil {
			checks = append(checks, Check{e.id, "", e.title})
			continue
		}
		for _, r := range relays {
			if e.isFor(r) {
				checks = append(checks, Check{e.id, r.Name, e.title})
			}
		}
	}
	return checks, nil
}

// Run does one check, whatever the results of others.
func (d *Doctor) Run(id, relay string) (Finding, error) {
	i := slices.IndexFunc(examinations, func(e examination) bool { return e.id == id })
	if i < 0 {
		var ids []string
		for _, e := range examinations {
			if !slices.Contains(ids, e.id) {
				ids = append(ids, e.id)
			}
		}
		return Finding{}, message.New("there is no check %q; there are: %s", id, strings.Join(ids, ", "))
	}
	e := examinations[i]
	check := Check{e.id, "", e.title}
	if e.machine != nil {
		f := e.machine(d)
		f.Check = check
		return f, nil
	}
	if d.config == nil {
		return Finding{}, message.New("the configuration has mistakes; see the check config")
	}
	if relay == "" && len(d.config.Relays) == 1 {
		relay = d.config.Relays[0].Name
	}
	r := d.config.Relay(relay)
	if r == nil {
		return Finding{}, message.New("unknown relay %q", relay)
	}
	if j := slices.IndexFunc(examinations, func(e examination) bool { return e.id == id && e.isFor(r) }); j >= 0 {
		e = examinations[j]
	}
	check.Title, check.Relay = e.title, r.Name
	var f Finding
	switch p := d.patient(r); {
	case !r.Enabled:
		f = skipped("the relay is disabled (option enabled)")
	case !e.isFor(r):
		f = skipped("there is no such check with transport %s", string(r.Transport))
	case p.pathErr != nil && e.id != "endpoints":
		f = skipped("%v", p.pathErr)
	case len(r.Forwards) == 0 && e.id != "endpoints":
		f = skipped("the relay has no forward that is enabled: there is nothing to try")
	default:
		f = e.relay(p)
	}
	f.Check = check
	return f, nil
}

// RunAll does the checks in order and calls done with each finding. It skips checks that are meaningless after one that
// failed, and reports whether none failed.
func (d *Doctor) RunAll(checks []Check, done func(Finding)) (bool, error) {
	broken := map[[2]string]Check{} // id and relay → what failed first
	well := true
	for _, c := range checks {
		first, blocked := needs(c, broken)
		f := skipped("needs: %s", &message.Text{Code: first.Title})
		f.Check = c
		if !blocked {
			var err error
			if f, err = d.Run(c.ID, c.Relay); err != nil {
				return false, err
			}
			first = c
		}
		if blocked || f.State == Failed {
			broken[[2]string{c.ID, c.Relay}] = first
		}
		well = well && f.State != Failed
		done(f)
	}
	return well, nil
}

// needs finds a failed check that c depends on.
func needs(c Check, broken map[[2]string]Check) (Check, bool) {
	for _, e := range examinations {
		if e.id != c.ID || e.title != c.Title {
			continue
		}
		for _, need := range e.needs {
			for _, relay := range []string{"", c.Relay} {
				if first, ok := broken[[2]string{need, relay}]; ok {
					return first, true
				}
			}
		}
	}
	return Check{}, false
}

// Answered is a Finding as the answer on a bus.
type Answered struct {
	Version int `json:"version"` // message.AnswersVersion
	Finding
}

// Listed is a Check in the list of all: Needs are the checks of the same relay or of the machine without which it says
// nothing. Whoever runs one after the other skips it if one of them has failed, as RunAll does.
type Listed struct {
	Check
	Needs []string `json:"needs"`
}

// Answer is the method doctor of ubus and D-Bus: without a check the list of all, else the finding of one.
func Answer(m Prober, check, relay string) (any, error) {
	d := New(m)
	if check != "" {
		finding, err := d.Run(check, relay)
		return Answered{message.AnswersVersion, finding}, err
	}
	checks, err := d.Checks()
	list := make([]Listed, len(checks))
	for i, c := range checks {
		list[i] = Listed{c, []string{}}
		for _, e := range examinations {
			if e.id == c.ID && e.title == c.Title {
				list[i].Needs = append(list[i].Needs, e.needs...)
			}
		}
	}
	return struct {
		Version int      `json:"version"`
		Checks  []Listed `json:"checks"`
	}{message.AnswersVersion, list}, err
}
