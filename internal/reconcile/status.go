package reconcile

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/ds4relay/ds4relay/internal/alive"
	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/doctor"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/plain"
	"github.com/ds4relay/ds4relay/internal/state"
	"github.com/ds4relay/ds4relay/internal/transport"
	"github.com/ds4relay/ds4relay/internal/units"
)

// StatusVersion increases with each incompatible change of Status.
const StatusVersion = 1

// Status is the output of `status --json`; docs/status.md describes it.
type Status struct {
	Version     int                 `json:"version"` // StatusVersion
	Relays      []RelayStatus       `json:"relays"`
	Connections *kernel.Connections `json:"connections,omitempty"` // that this machine keeps track of, and may
	Notes       []string            `json:"notes,omitempty"`       // what does not differ, but will make trouble
	// The commands that would make the kernel match the configuration.
	Differs []string    `json:"differs"`
	Blocked []string    `json:"blocked,omitempty"`  // what of others is in the way of that
	Warning []string    `json:"warnings,omitempty"` // about the configuration
	Codes   StatusCodes `json:"codes,omitzero"`     // of Notes, Blocked and Warning, which are English

	// Unseen is what could not be compared, because the kernel shows it to root only.
	Unseen []*message.Text `json:"-"`

	down bool // nothing of ours is in the kernel
}

// StatusCodes are what English is made of in a Status, in the same order.
type StatusCodes struct {
	Blocked  []*message.Text `json:"blocked,omitempty"`
	Notes    []*message.Text `json:"notes,omitempty"`
	Warnings []*message.Text `json:"warnings,omitempty"`
}

// say adds texts to a list of a Status and to their codes.
func say(english *[]string, codes *[]*message.Text, texts ...*message.Text) {
	for _, text := range texts {
		*english = append(*english, text.Error())
	}
	*codes = append(*codes, texts...)
}

func (s *Status) block(texts ...*message.Text) { say(&s.Blocked, &s.Codes.Blocked, texts...) }

func (s *Status) note(texts ...*message.Text) { say(&s.Notes, &s.Codes.Notes, texts...) }

// Warn adds what is to be said about the configuration.
func (s *Status) Warn(warnings config.Problems) {
	for i := range warnings {
		say(&s.Warning, &s.Codes.Warnings, warnings[i].AsText())
	}
}

// RelayStatus is one relay seen from this end.
type RelayStatus struct {
	Name    string      `json:"name"`
	Enabled bool        `json:"enabled"`
	Role    config.Role `json:"role"`
	Up      bool        `json:"up"`
	Waiting string      `json:"waiting,omitempty"` // for what
	IPAddr  string      `json:"ipaddr"`            // the public IPv4 address
	NICAddr string      `json:"nicaddr,omitempty"` // what a cloud translates it to, on a VPS
	// On a VPS with standby: it has the public address now. On a router with several relays in each other's place: what
	// leaves goes by this one now.
	Active     *bool            `json:"active,omitempty"`
	Device     string           `json:"device"`
	Transport  config.Transport `json:"transport"`
	Tunlink    string           `json:"tunlink,omitempty"`
	Local      string           `json:"local"` // endpoints
	Peer       string           `json:"peer"`
	MTU        int              `json:"mtu"`        // bytes
	EncapLimit *int             `json:"encaplimit"` // nil for none
	KeysStatus                  // with the transport WireGuard
	Counters   *kernel.Counters `json:"counters,omitempty"`
	HeardS     *int64           `json:"heard_s,omitempty"`   // seconds since the other end was last heard of, at most
	OtherEnd   alive.State      `json:"other_end,omitempty"` // "" unless the relay is up
	Served     *bool            `json:"served,omitempty"`    // a router's host has answered a client at some time
	Joined     bool             `json:"joined,omitempty"`    // a home that is paired with its VPS
	Push       *kernel.Push     `json:"push,omitempty"`      // of such a home, the last one
	Forwards   []ForwardStatus  `json:"forwards"`
	Keep       []Ports          `json:"keep,omitempty"`
	Paired     *PairedStatus    `json:"paired,omitempty"` // on a VPS, if homes may enrol
	Codes      RelayCodes       `json:"codes,omitzero"`
}

// KeysStatus is what only a tunnel of WireGuard has. No secret is in it.
type KeysStatus struct {
	Port          uint16 `json:"port,omitempty"`            // UDP port of the VPS
	PublicKey     string `json:"public_key,omitempty"`      // of this end; "" where only root may know it
	PeerPublicKey string `json:"peer_public_key,omitempty"` // of the other end
	Endpoint      string `json:"endpoint,omitempty"`        // where the kernel sends packets for the other end
	HandshakeS    *int64 `json:"handshake_s,omitempty"`     // seconds since the last handshake; nil for none
}

// RelayCodes are what English is made of in a RelayStatus.
type RelayCodes struct {
	Waiting *message.Text `json:"waiting,omitzero"`
}

// ForwardStatus is one forward.
type ForwardStatus struct {
	Section  string          `json:"section"`
	Name     string          `json:"name,omitempty"`
	Mappings []MappingStatus `json:"mappings"`
	DestIP   string          `json:"dest_ip"`
	Host     string          `json:"host,omitempty"`    // kernel.HostUp and so on; "" where it cannot be known
	Clients  []string        `json:"clients,omitempty"` // addresses and networks; none: everybody
	Egress   config.Egress   `json:"egress"`
	Flows    *Flows          `json:"flows,omitempty"` // nil if the kernel does not list them

	text string // for a person
}

// Ports are a protocol and, where it has some, a range of its ports.
type Ports struct {
	Proto string `json:"proto"` // by name if it has one; all: every protocol
	First uint16 `json:"first,omitempty"`
	Last  uint16 `json:"last,omitempty"`

	text string
}

// MappingStatus is what is open at the public address, and the host's port for the first public one.
type MappingStatus struct {
	Ports
	Port uint16 `json:"port,omitempty"`
}

func portsOf(set config.PortSet) Ports {
	return Ports{Proto: config.ProtoName(set.Proto), First: set.First, Last: set.Last, text: set.String()}
}

func forwardStatus(f *config.Forward) ForwardStatus {
	s := ForwardStatus{Section: f.Section, Name: f.Name, DestIP: f.DestIP.String(), Egress: f.Egress, text: f.String()}
	for _, m := range f.Mappings() {
		if m.All {
			s.Mappings = append(s.Mappings, MappingStatus{Ports: Ports{Proto: "all"}})
		} else {
			s.Mappings = append(s.Mappings, MappingStatus{portsOf(m.Public), m.Port})
		}
	}
	for _, client := range f.Clients {
		s.Clients = append(s.Clients, strings.TrimSuffix(client.String(), "/32"))
	}
	return s
}

// Flows are the open connections of a forward.
type Flows struct {
	Open int `json:"open"`
	// Of these, those that the host has answered, without the doctor's.
	Answered int `json:"answered"`
	// From the clients, sum over the open connections; nil if the kernel does not count.
	In  *state.Traffic `json:"in,omitempty"`
	Out *state.Traffic `json:"out,omitempty"` // to the clients
}

func (f *Flows) add(flow state.Flow) {
	f.Open++
	if flow.Answered && flow.Src != doctor.TestClient {
		f.Answered++
	}
	if !flow.Counted {
		return
	}
	if f.In == nil {
		f.In, f.Out = &state.Traffic{}, &state.Traffic{}
	}
	f.In.Add(flow.In)
	f.Out.Add(flow.Out)
}

// fullPercent is the level at which the table of connections counts as full: early eviction keeps it just below its
// limit.
const fullPercent = 95

// OK reports whether the kernel is as the configuration says.
func (s *Status) OK() bool { return len(s.Differs) == 0 && len(s.Blocked) == 0 }

// Silent reports whether the other end of a relay that is up does not answer.
func (s *Status) Silent() bool {
	for i := range s.Relays {
		if s.Relays[i].OtherEnd == alive.Silent {
			return true
		}
	}
	return false
}

// onlyForRoot reports whether a step changes something that the kernel shows only to root.
func onlyForRoot(step state.Step) bool {
	switch step.(type) {
	case state.LoadTables, state.AddAllowance, state.DelAllowance, state.EndFlows, state.SetPeer:
		return true
	}
	return false
}

// Status compares the kernel with the configuration: all enabled relays up, nothing else. With names it compares with
// the result of Up for these names, and shows only these relays.
func (m *End) Status(names ...string) (*Status, error) { return m.status(names, false) }

// Blocked returns what keeps relays from coming up: the codes of Blocked in Status, without all else.
func (m *End) Blocked() ([]*message.Text, error) {
	status, err := m.status(nil, true)
	if err != nil {
		return nil, err
	}
	return status.Codes.Blocked, nil
}

func (m *End) status(names []string, onlyBlocked bool) (*Status, error) {
	relays, err := m.wantUp(names)
	if err != nil {
		return nil, err
	}
	facts, factsErr := m.Kernel.Facts(relays)
	status := &Status{Version: StatusVersion, Relays: []RelayStatus{}, Differs: []string{}}
	if factsErr != nil { // what keeps relays from coming up is a state to report, not a failure to report it
		status.block(message.Lines(factsErr)...)
	}
	for _, r := range relays {
		if reason := facts.Failed[r.Name]; reason != nil {
			status.block(message.Lines(reason)...)
		}
		switch reason, waits := facts.Waiting[r.Name]; {
		case waits && r.Awaited(): // as it is meant to be
			status.note(state.Waiting(r.Name, reason))
		case waits:
			status.block(state.Waiting(r.Name, reason))
		}
	}
	want := state.Compile(relays, facts)
	have, err := m.Kernel.Observe(want)
	if err != nil {
		return nil, err
	}
	status.down = len(have.Links)+len(have.Addrs)+len(have.Routes)+len(have.Rules)+len(have.Tables)+
		len(have.Allowances) == 0
	status.Unseen = have.Unseen
	w := way{relays: relays, facts: facts, have: have, want: want, failed: facts.Failed}
	if factsErr == nil && w.unchanged() == nil {
		steps, err := state.Plan(have, want)
		if err != nil {
			status.block(message.Lines(err)...)
		}
		for _, step := range steps {
			if onlyBlocked || len(status.Unseen) > 0 && onlyForRoot(step) {
				continue
			}
			status.Differs = append(status.Differs, step.Commands()...)
		}
	}
	if onlyBlocked {
		return status, nil
	}
	status.note(facts.Notes...)
	status.note(have.Notes...)
	if m.Neighbours != nil {
		status.note(m.Neighbours(relays)...)
	}
	if len(status.Unseen) > 0 {
		status.note(message.New("the kernel shows %s and open connections to root only: they are not compared",
			message.Join(", ", status.Unseen...)))
	}
	status.Connections = kernel.CountConnections()
	if c := status.Connections; c != nil && c.Count*100 >= c.Max*fullPercent {
		status.note(message.New("the kernel keeps track of %d connections of at most %d: when there is no room, new "+
			"ones are dropped and those that are open go on; find out who opens so many (conntrack -L), or allow "+
			"more: sysctl -w net.netfilter.nf_conntrack_max=%d", c.Count, c.Max, 4*c.Max))
	}
	flows, watched, hosts := openFlows(onCards(m.Config.Relays, facts)), m.Kernel.Watched(), hostStates(m.Config.Relays)
	if watched.Repairs.Rival() {
		status.note(message.New("another program removes or changes what ds4relay installs, again and again: it is " +
			"put back every ten minutes only; the log has the step"))
	}
	active := actives(m.Config.Relays, facts, have)
	for _, r := range m.Config.Relays {
		if len(names) == 0 || slices.Contains(names, r.Name) {
			s := relayStatus(r, facts, have, flows, watched, hosts)
			if r.Role == config.Router {
				s.Active = active[r.Name]
			}
			s.Served = m.served(r, flows)
			s.Joined = r.Role == config.Router && m.Joined != nil && m.Joined(r.Name)
			s.Push = m.pushed(r)
			status.Relays = append(status.Relays, s)
		}
	}
	return status, nil
}

// actives says of a router's relays that are up, and may be in each other's place, by which of them what leaves goes
// now. Those with one public address are left out until one of their VPSs has announced itself.
func actives(relays []*config.Relay, facts state.Facts, have state.Observed) map[string]*bool {
	up := slices.DeleteFunc(slices.Clone(relays), func(r *config.Relay) bool {
		return !slices.ContainsFunc(have.Links, func(l state.Link) bool { return l.Relay == r.Name })
	})
	active := map[string]*bool{}
	for name, is := range state.Leaving(up, facts) {
		active[name] = &is
	}
	for _, r := range up {
		turns := slices.DeleteFunc(slices.Clone(up), func(other *config.Relay) bool {
			return r.Role != config.Router || other.Role != config.Router || other.IPAddr != r.IPAddr
		})
		here := slices.IndexFunc(turns, func(other *config.Relay) bool { return kernel.Announced(other.Device) })
		if len(turns) > 1 && here >= 0 {
			is := turns[here] == r
			active[r.Name] = &is
		}
	}
	return active
}

// onCards returns the relays with the addresses of network cards that clouds translate theirs to, as far as these are
// known.
func onCards(relays []*config.Relay, facts state.Facts) (known []*config.Relay) {
	for _, r := range relays {
		known = append(known, state.OnCard(r, facts.Card[r.Name]))
	}
	return known
}

// openFlows returns the open connections of each forward, or nil if the kernel does not list them.
func openFlows(relays []*config.Relay) map[*config.Forward]*Flows {
	forwarded := state.NewForwarded(relays)
	var flows map[*config.Forward]*Flows
	err := kernel.Flows(func(flow state.Flow) {
		if forward := forwarded.Of(flow); forward != nil {
			if flows[forward] == nil {
				flows[forward] = &Flows{}
			}
			flows[forward].add(flow)
		}
	}, func() { flows = map[*config.Forward]*Flows{} })
	if err != nil {
		return nil
	}
	return flows
}

// hostStates returns what is known about the hosts of a router's relays.
func hostStates(relays []*config.Relay) map[netip.Addr]string {
	hosts := map[netip.Addr]string{}
	for _, r := range relays {
		for _, f := range r.Forwards {
			if r.Role == config.Router {
				hosts[f.DestIP] = kernel.HostUnknown
			}
		}
	}
	if len(hosts) > 0 {
		_ = kernel.Hosts(hosts) // else they stay unknown
	}
	return hosts
}

func relayStatus(r *config.Relay, facts state.Facts, have state.Observed, flows map[*config.Forward]*Flows,
	watched alive.Watch, hosts map[netip.Addr]string) RelayStatus {
	local := r.Local
	if r.Auto {
		local = facts.Local[r.Name]
	}
	waiting := facts.Waiting[r.Name]
	s := RelayStatus{Waiting: waiting.Error(), Codes: RelayCodes{waiting}, Name: r.Name, Enabled: r.Enabled,
		Role: r.Role, IPAddr: r.IPAddr.String(), Device: r.Device,
		Transport: r.Transport, Tunlink: facts.Tunlink[r.Name], Local: addrText(local),
		Peer: addrText(state.PeerOf(r, facts)), MTU: state.TunnelMTU(r, facts), Forwards: []ForwardStatus{},
		Active: kernel.Active(r)}
	if onCard := state.OnCard(r, facts.Card[r.Name]); onCard.Translated() {
		s.NICAddr = onCard.NICAddr.String()
	}
	if r.Transport == config.WireGuard {
		s.KeysStatus = KeysStatus{Port: r.WireGuard.Port}
		if !r.Awaited() {
			s.PeerPublicKey = r.WireGuard.PublicKey.String()
		}
	} else {
		s.EncapLimit = limitOf(r.EncapLimit)
	}
	for _, link := range have.Links {
		if link.Name == r.Device && link.Relay == r.Name {
			s.Up, s.MTU = link.Up, link.MTU
			if tunnel, ok := link.Tunnel.(transport.IPIP6); ok {
				s.Local, s.Peer = tunnel.Local.String(), tunnel.Remote.String()
				s.EncapLimit = limitOf(tunnel.EncapLimit)
			} else {
				s.readKeys(link.Name)
			}
			if counters, err := kernel.LinkCounters(link.Name); err == nil {
				s.Counters = &counters
				var ago int64
				s.OtherEnd, ago = watched.Relays[r.Name].Judge(kernel.TunnelOf(&link, &counters), kernel.Uptime())
				if ago >= 0 {
					s.HeardS = &ago
				}
			}
		}
	}
	if keys := facts.Keys[r.Name]; s.PublicKey == "" && keys.Private.Valid() {
		s.PublicKey = keys.Private.Public().String()
	}
	for _, f := range r.Forwards {
		forward := forwardStatus(f)
		if s.OtherEnd != "" && r.Role == config.Router {
			forward.Host = hosts[f.DestIP]
		}
		if flows != nil && r.Enabled {
			if forward.Flows = flows[f]; forward.Flows == nil {
				forward.Flows = &Flows{}
			}
		}
		s.Forwards = append(s.Forwards, forward)
	}
	for _, keep := range r.Keep {
		s.Keep = append(s.Keep, portsOf(keep))
	}
	s.Paired = pairedStatus(r)
	return s
}

// readKeys reads what the kernel has learned of the other end of a tunnel of WireGuard, if this process may.
func (r *RelayStatus) readKeys(device string) {
	found, err := kernel.ReadWireGuard(device)
	if err != nil {
		return
	}
	r.PublicKey = found.Public.String()
	for i := range found.Peers {
		peer := &found.Peers[i]
		r.PeerPublicKey = peer.Key.String()
		if peer.Endpoint.IsValid() {
			r.Endpoint, r.Peer = peer.Endpoint.String(), peer.Endpoint.Addr().String()
		}
		if age, ok := peer.Age(); ok {
			r.HandshakeS = &age
		}
	}
}

func limitOf(limit int) *int {
	if limit == transport.NoEncapLimit {
		return nil
	}
	return &limit
}

// addrText returns an address as text, or "" if it is not known.
func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// idle reports whether there are relays, and none is enabled or up.
func (s *Status) idle() bool {
	return len(s.Relays) > 0 && !slices.ContainsFunc(s.Relays, func(r RelayStatus) bool { return r.Enabled || r.Up })
}

// Print writes the status as text.
func (s *Status) Print(w io.Writer) {
	for i, r := range s.Relays {
		if i > 0 {
			fmt.Fprintln(w)
		}
		condition, style := "down", plain.Bad
		switch {
		case r.Up:
			condition, style = "up", plain.Good
		case r.Waiting != "":
			condition, style = "waiting", plain.Warning
		case !r.Enabled:
			condition, style = "disabled", plain.Skipped
		}
		fmt.Fprintf(w, "relay %s (%s): ", r.Name, r.Role)
		plain.Mark(w, style, condition)
		fmt.Fprintln(w)
		fmt.Fprintf(w, "  public address  %s%s\n", r.IPAddr, r.onCard()+r.turn())
		r.printTunnel(w)
		if c := r.Counters; c != nil {
			fmt.Fprintf(w, "  traffic         %d packets, %s in; %d packets, %s out\n", c.RxPackets,
				units.Bytes(c.RxBytes), c.TxPackets, units.Bytes(c.TxBytes))
		}
		if r.OtherEnd != "" {
			fmt.Fprintf(w, "  last heard      ")
			r.printHeard(w)
		}
		r.printPush(w)
		for i, f := range r.Forwards {
			label := ""
			if i == 0 {
				label = "forwards"
			}
			name := ""
			if f.Name != "" {
				name = ", " + f.Name
			}
			open := ""
			if f.Flows != nil && f.Flows.Open > 0 {
				open = fmt.Sprintf("; %d open", f.Flows.Open)
			}
			host := ""
			if f.Host != "" {
				host = "; host " + f.Host
			}
			fmt.Fprintf(w, "  %-15s %s (egress %s%s%s%s)\n", label, f.text, f.Egress, name, open, host)
		}
		if len(r.Keep) > 0 {
			kept := ""
			for _, ports := range r.Keep {
				kept += ", " + ports.text
			}
			fmt.Fprintf(w, "  kept            %s\n", kept[2:])
		}
		r.printPaired(w)
	}
	if len(s.Relays) == 0 {
		fmt.Fprintln(w, "The configuration has no relay.")
	}
	if c := s.Connections; c != nil && len(s.Relays) > 0 {
		fmt.Fprintf(w, "\nconnections tracked: %d of at most %d\n", c.Count, c.Max)
	}
	for _, note := range s.Notes {
		fmt.Fprintln(w)
		plain.Paint(w, plain.Warning, "note: ")
		fmt.Fprintln(w, note)
	}
	for _, b := range s.Blocked {
		fmt.Fprintln(w)
		plain.Paint(w, plain.Bad, "in the way: ")
		fmt.Fprintln(w, b)
	}
	switch {
	case len(s.Differs) > 0 && s.down:
		fmt.Fprintln(w)
		plain.Mark(w, plain.Bad, "The kernel has nothing of the configuration")
		fmt.Fprintln(w, ": `ds4relay up` brings it up, `ds4relay plan` shows how.")
	case len(s.Differs) > 0:
		fmt.Fprintln(w)
		plain.Mark(w, plain.Bad, "The kernel differs from the configuration")
		fmt.Fprintln(w, "; `ds4relay up` would run:")
		for _, command := range s.Differs {
			fmt.Fprintln(w, "  "+strings.ReplaceAll(strings.TrimRight(command, "\n"), "\n", "\n  "))
		}
	case s.OK() && s.idle():
		fmt.Fprintln(w)
		plain.Mark(w, plain.Warning, "No relay is enabled: nothing is up.")
		fmt.Fprintln(w)
	case s.OK() && len(s.Unseen) > 0:
		fmt.Fprintln(w)
		plain.Mark(w, plain.Warning, "What can be seen without root is as the configuration says.")
		fmt.Fprintln(w)
	case s.Silent():
		fmt.Fprintln(w)
		plain.Mark(w, plain.Bad, "The kernel is as the configuration says, but another end is silent")
		fmt.Fprintln(w, "; find out why: ds4relay doctor")
	case s.OK():
		fmt.Fprintln(w)
		plain.Mark(w, plain.Good, "The kernel is as the configuration says.")
		fmt.Fprintln(w)
	}
}

// onCard says what the public address is translated to.
func (r *RelayStatus) onCard() string {
	if r.NICAddr == "" {
		return ""
	}
	return fmt.Sprintf(", on this machine %s (a cloud translates it)", r.NICAddr)
}

// turn says which of several VPSs has the public address, or is used now.
func (r *RelayStatus) turn() string {
	switch {
	case r.Active == nil:
		return ""
	case r.Role == config.Router && *r.Active:
		return ", used now by what leaves (of several relays)"
	case r.Role == config.Router:
		return ", stands by (of several relays)"
	case *r.Active:
		return ", on this machine now (option standby)"
	default:
		return ", not on this machine now (option standby)"
	}
}

// printTunnel writes what carries the relay's packets.
func (r *RelayStatus) printTunnel(w io.Writer) {
	on := ""
	if r.Tunlink != "" {
		on = " on " + r.Tunlink
	}
	if r.Transport == config.WireGuard {
		fmt.Fprintf(w, "  tunnel          %s%s, wireguard, port %d, mtu %d\n", r.Device, on, r.Port, r.MTU)
		if !r.Up || r.PublicKey == "" { // without root there is nothing to know
			return
		}
		end, shaken := "not known yet", "no handshake yet"
		if r.Endpoint != "" {
			end = r.Endpoint
		}
		if r.HandshakeS != nil {
			shaken = "handshake " + since(*r.HandshakeS)
		}
		fmt.Fprintf(w, "  other end       %s, %s\n", end, shaken)
		return
	}
	limit := "none"
	if r.EncapLimit != nil {
		limit = fmt.Sprint(*r.EncapLimit)
	}
	fmt.Fprintf(w, "  tunnel          %s%s, mtu %d, encaplimit %s\n", r.Device, on, r.MTU, limit)
	if r.Local != "" {
		fmt.Fprintf(w, "  endpoints       %s (here) - %s\n", r.Local, r.Peer)
	}
}

// printHeard writes when the other end was last heard of.
func (r *RelayStatus) printHeard(w io.Writer) {
	when := "never"
	if r.HeardS != nil {
		when = since(*r.HeardS)
	}
	switch {
	case r.OtherEnd == alive.Silent:
		plain.Mark(w, plain.Bad, when+", the other end is silent")
	case r.OtherEnd == alive.Unknown && r.HeardS == nil:
		plain.Mark(w, plain.Warning, "not known yet")
		fmt.Fprint(w, " (`ds4relay watch` finds out)")
	case r.OtherEnd == alive.Unknown || *r.HeardS > fresh:
		plain.Mark(w, plain.Warning, when)
	default:
		fmt.Fprint(w, when)
	}
	fmt.Fprintln(w)
}

// fresh is the age in seconds up to which a working relay has heard of its other end: a run is each minute.
const fresh = 150

// since returns how long ago something was.
func since(seconds int64) string {
	const minute, hour, day = 60, 60 * 60, 24 * 60 * 60
	switch {
	case seconds < 2*minute:
		return fmt.Sprintf("%d s ago", seconds)
	case seconds < 2*hour:
		return fmt.Sprintf("%d min ago", seconds/minute)
	case seconds < 2*day:
		return fmt.Sprintf("%d h ago", seconds/hour)
	}
	return fmt.Sprintf("%d days ago", seconds/day)
}
