package paired

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ds4relay/ds4relay/internal/authorized"
	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/pushed"
	"github.com/ds4relay/ds4relay/internal/replace"
)

// The verbs of a Header.
const (
	Enrol   = "enroll"
	Used    = "used" // enrol once more, with an invitation that has been used
	Receive = "receive"
)

// A Header is the first line of what the service is asked: which key has opened the session, and where it came from.
type Header struct {
	Verb       string `json:"verb"`
	Relay      string `json:"relay"`
	Key        string `json:"key"` // its id, see package authorized
	From       string `json:"from"`
	Connection string `json:"connection,omitempty"` // SSH_CONNECTION
}

// maxHeader limits a header in bytes.
const maxHeader = 1 << 10

// readTime limits how long the service waits for what it is asked.
const readTime = 10 * time.Second

// A Service does what homes ask for, as root.
type Service struct {
	Dir      Dir
	Config   string // the path of the configuration
	Defaults func() config.Defaults

	Facts   func([]*config.Relay) (pushed.Facts, error)
	Up      func(relay string) error  // makes the kernel match the files; what fails is undone
	Running func() ([]string, error)  // relays that are up, or are to be
	Edited  func(*config.Config) bool // the file has changed since they were brought up
	End     func(relay string) int    // EndSessions
	Log     func(*message.Text)

	Apart time.Duration    // between two pushes of a relay; 0: a second
	Now   func() time.Time // nil: time.Now
}

func (s *Service) now() int64 {
	if s.Now != nil {
		return s.Now().Unix()
	}
	return time.Now().Unix()
}

// Serve reads one request and answers it.
func (s *Service) Serve(conn io.ReadWriter) error {
	if limited, ok := conn.(interface{ SetReadDeadline(time.Time) error }); ok {
		_ = limited.SetReadDeadline(time.Now().Add(readTime))
	}
	header, body, err := request(conn)
	var problems []pushed.Problem
	if err == nil {
		problems = s.do(header, body)
	} else {
		problems = []pushed.Problem{pushed.Refuse(message.Of(err))}
	}
	for _, p := range problems[:min(len(problems), 3)] {
		s.Log(message.New("relay %q: refused, from %s: %s", header.Relay, header.From, p.Text()))
	}
	_, err = conn.Write(pushed.NewAnswer(problems...).JSON())
	return err
}

// request reads a header and what follows it.
func request(conn io.Reader) (h Header, body []byte, err error) {
	in := bufio.NewReaderSize(io.LimitReader(conn, maxHeader+config.MaxPush+1), maxHeader)
	line, err := in.ReadSlice('\n')
	if err != nil || json.Unmarshal(line, &h) != nil || !config.RelayName(h.Relay) {
		return Header{}, nil, message.New("the request cannot be read")
	}
	if addr, err := netip.ParseAddr(h.From); err != nil {
		h.From = "?"
	} else {
		h.From = addr.Unmap().String()
	}
	body, err = io.ReadAll(in)
	switch {
	case err != nil:
		return h, nil, message.New("the request cannot be read")
	case len(body) > config.MaxPush:
		return h, nil, message.New("the VPS reads at most %d bytes", config.MaxPush)
	}
	return h, body, nil
}

func (s *Service) do(h Header, body []byte) []pushed.Problem {
	one := func(err error) []pushed.Problem {
		if err == nil {
			return nil
		}
		return []pushed.Problem{pushed.Refuse(message.Of(err))}
	}
	vps, problem := s.load(h.Relay)
	if problem != nil {
		return []pushed.Problem{*problem}
	}
	if h.Verb == Used {
		return one(s.reused(h, vps.relay, body))
	}
	done, err := s.turn(h.Relay)
	if err != nil {
		return one(s.hide(err))
	}
	defer done()
	_, unlock, err := lock(filepath.Join(string(s.Dir), "lock"), workTime)
	if err != nil {
		return one(s.hide(err))
	}
	defer unlock()
	if vps, problem = s.load(h.Relay); problem != nil { // those before may have told something
		return []pushed.Problem{*problem}
	}
	switch good, err := s.Dir.Keys().Good(h.Key, h.Relay); {
	case err != nil:
		return one(s.hide(err))
	case !good && h.Verb == Enrol && s.enrolled(vps.relay, body):
		return nil
	case !good && h.Verb == Enrol:
		return one(errInvitation(h.Relay))
	case !good:
		return one(message.New("the VPS does not know this home any more; pair it again (at the VPS: ds4relay invite %s)",
			h.Relay))
	case s.Edited(vps.config):
		return one(message.New("the VPS's configuration has changed since its relays were brought up; there: ds4relay up"))
	}
	switch running, err := s.Running(); {
	case err != nil:
		return one(s.hide(err))
	case !slices.Contains(running, h.Relay):
		return one(message.New("relay %q is down at the VPS; there: ds4relay up %s", h.Relay, h.Relay))
	case h.Verb == Enrol:
		return s.enrol(h, vps, body)
	case h.Verb == Receive:
		return s.receive(h, vps, body)
	}
	return one(message.New("the request cannot be read"))
}

func errInvitation(relay string) *message.Text {
	return message.New("the invitation is not good any more; make another one at the VPS: ds4relay invite %s", relay)
}

// loaded is the VPS's configuration together with what homes have told so far.
type loaded struct {
	config   *config.Config
	relay    *config.Relay // that a request is about
	text     []byte
	defaults config.Defaults
}

// load reads the configuration, which has to have the relay.
func (s *Service) load(relay string) (l loaded, problem *pushed.Problem) {
	l.defaults = s.Defaults()
	text, err := os.ReadFile(s.Config)
	if err == nil {
		l.text = text
		l.config, _, err = config.Parse(s.Config, text, l.defaults)
	}
	if err != nil {
		p := pushed.Refuse(message.New("the VPS's own configuration has mistakes; there `ds4relay check` says more"))
		return l, &p
	}
	l.relay, problem = pushed.Relay(l.config, relay)
	return l, problem
}

// hide logs an error of the VPS, and returns what a home may know of it.
func (s *Service) hide(err error) error {
	if errors.Is(err, errBusy) {
		return err
	}
	s.Log(message.Of(err))
	return message.New("the VPS has failed; its log says more (journalctl -t ds4relay)")
}

// enrolled reports whether this very home has the relay: it has not heard the answer, or has not waited long enough for
// it, and asks once more with the same keys.
func (s *Service) enrolled(relay *config.Relay, body []byte) bool {
	r, err := s.Dir.load(relay.Name)
	said, problem := pushed.ParseEnrolment(body, relay.Transport)
	if err != nil || problem != nil {
		return false
	}
	known, err := s.Dir.Keys().Home(relay.Name, said.SSH)
	return err == nil && known && (!said.PublicKey.Valid() || said.PublicKey.String() == r.PublicKey)
}

// reused notes that somebody has an invitation that was used before, unless it is the home itself.
func (s *Service) reused(h Header, relay *config.Relay, body []byte) error {
	_, unlock, err := lock(filepath.Join(string(s.Dir), "lock"), workTime)
	if err != nil {
		return s.hide(err)
	}
	defer unlock()
	if s.enrolled(relay, body) {
		return nil
	}
	r, err := s.Dir.load(h.Relay)
	if err == nil {
		r.Reused = &config.Reuse{From: h.From, At: s.now()}
		if err := s.Dir.save(h.Relay, r); err != nil {
			return s.hide(err)
		}
	}
	return message.New("this invitation has been used already; make another one at the VPS: ds4relay invite %s", h.Relay)
}

// enrol lets a home have the relay from now on. The invitation is used up only after everything else is done.
func (s *Service) enrol(h Header, vps loaded, body []byte) []pushed.Problem {
	said, problem := pushed.ParseEnrolment(body, vps.relay.Transport)
	if problem != nil {
		return []pushed.Problem{*problem}
	}
	if _, err := authorized.ParseKey(said.SSH); err != nil {
		return []pushed.Problem{pushed.Refuse(message.Of(err))}
	}
	now := record{Version: 1, Enrolled: s.now(), From: h.From}
	if said.PublicKey.Valid() {
		now.PublicKey = said.PublicKey.String()
	}
	// The session may come from another address than the endpoint, even from one that another relay has: the first push
	// tells the endpoint then.
	if from, err := netip.ParseAddr(h.From); err == nil {
		peer := pushed.Endpoint(vps.relay, from)
		if peer.IsValid() && pushed.Peer(vps.config, vps.relay, peer) == nil {
			now.Peer = peer.String()
		}
	}
	former, err := s.Dir.keep(h.Relay)
	if err == nil {
		if err = errors.Join(s.Dir.save(h.Relay, now), remove(s.Dir.push(h.Relay))); err == nil {
			err = s.Up(h.Relay)
		}
		if err == nil {
			err = s.Dir.Keys().Enrol(h.Key, h.Relay, said.SSH)
		}
		if err != nil {
			s.back(h.Relay, former)
		}
	}
	switch {
	case errors.Is(err, authorized.ErrNoInvitation):
		return []pushed.Problem{pushed.Refuse(errInvitation(h.Relay))}
	case errors.Is(err, authorized.ErrKnownKey):
		return []pushed.Problem{pushed.Refuse(authorized.ErrKnownKey)}
	case err != nil:
		return []pushed.Problem{pushed.Refuse(message.Of(s.hide(err)))}
	}
	s.End(h.Relay)
	s.Log(message.New("relay %q: a home has enrolled from %s", h.Relay, h.From))
	return nil
}

// back makes everything as it was.
func (s *Service) back(relay string, former kept) {
	if err := errors.Join(s.Dir.restore(relay, former), s.Up(relay)); err != nil {
		s.Log(message.Of(err))
	}
}

// peerTime is the least number of seconds between two changes of a home's address.
const peerTime = 60

var errTooSoon = message.New("the VPS has taken another address of this home less than a minute ago; it takes the " +
	"next one when the minute is over")

// receive takes a push.
func (s *Service) receive(h Header, vps loaded, push []byte) []pushed.Problem {
	refuse := func(err error) []pushed.Problem { return []pushed.Problem{pushed.Refuse(message.Of(err))} }
	now, err := s.Dir.load(h.Relay)
	if err != nil {
		return refuse(s.hide(message.New("relay %q: what is kept of its home is damaged: %v; let the home join again: "+
			"ds4relay invite %s", h.Relay, err, h.Relay)))
	}
	from, _ := netip.ParseAddr(h.From)
	peer := pushed.Endpoint(vps.relay, from)
	switch changed := s.now() - now.PeerChanged; {
	case peer.IsValid() && peer.String() == now.Peer:
		peer = netip.Addr{}
	case peer.IsValid() && changed >= 0 && changed < peerTime:
		return refuse(errTooSoon)
	case peer.IsValid():
		now.Peer, now.PeerChanged = peer.String(), s.now()
	case vps.relay.Awaited():
		return refuse(message.New("the VPS needs the home's IPv6 address, and the session came from %s", h.From))
	}
	facts, err := s.Facts(vps.config.Relays)
	if err != nil {
		return refuse(s.hide(err))
	}
	facts.Session = h.Connection
	problems := pushed.Check(vps.config, vps.text, vps.defaults, h.Relay, push, peer, facts)
	former, err := s.Dir.keep(h.Relay)
	switch {
	case err != nil:
		return refuse(s.hide(err))
	case len(problems) > 0 && (!peer.IsValid() || pushed.Peer(vps.config, vps.relay, peer) != nil):
		return problems
	case len(problems) > 0:
		push = former.push // its address is followed all the same
	}
	if peer.IsValid() {
		err = s.Dir.save(h.Relay, now)
	}
	if err == nil && push != nil {
		err = replace.File(s.Dir.push(h.Relay), push, 0o644)
	}
	if err == nil {
		err = s.Up(h.Relay) // also of what was stored before: what was to bring that up may have been killed
	}
	if err != nil {
		s.back(h.Relay, former)
		s.Log(message.Of(err))
		return refuse(message.New("the VPS could not set it up, and goes on as before; its log says why (journalctl -t " +
			"ds4relay)"))
	}
	if len(problems) > 0 {
		s.Log(message.New("relay %q: its home is at %s now", h.Relay, peer))
		return problems
	}
	s.Log(message.New("relay %q: its home has pushed %d bytes from %s", h.Relay, len(push), h.From))
	return nil
}

// Forget takes back everything of a relay's home: keys, sessions, what it has said and pushed. Then the relay waits for
// a home. It returns whether there was anything.
func (s *Service) Forget(relay string) (was bool, err error) {
	_, unlock, err := lock(filepath.Join(string(s.Dir), "lock"), workTime)
	if err != nil {
		return false, err
	}
	defer unlock()
	open, _, enrolled, err := s.Dir.Keys().State(relay)
	if err != nil {
		return false, err
	}
	was = open || enrolled
	if err := s.Dir.Keys().Forget(relay); err != nil {
		return was, err
	}
	s.End(relay)
	for _, path := range []string{s.Dir.push(relay), s.Dir.record(relay)} {
		if _, statErr := os.Lstat(path); statErr == nil {
			was = true
		}
		err = errors.Join(err, remove(path))
	}
	return was, errors.Join(err, remove(s.Dir.turns(relay)))
}
