package paired

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/pushed"
)

const file = `
config relay 'home'
	option ipaddr '198.51.100.144'
	option ip6addr '2001:db8:6ef9::/64'
	list keep 'tcp:22'
	list allow 'tcp:1-65535'

config relay 'cabin'
	option transport 'wireguard'
	option ipaddr '198.51.100.144'
	list allow 'tcp:1-65535'
`

// vps is a VPS without a kernel.
type vps struct {
	*Service
	t      *testing.T
	mu     sync.Mutex
	up     []string // relays that Up was called for
	upErr  error    // of the next Up
	ended  []string
	log    []string
	at     time.Time
	taken  *config.Config // of the last Up
	downed bool
	edited bool
	facts  pushed.Facts
}

func newVPS(t *testing.T) *vps {
	t.Helper()
	dir := t.TempDir()
	v := &vps{t: t, at: time.Unix(1e9, 0), facts: pushed.Facts{Networks: []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8")}}}
	path := filepath.Join(dir, "config")
	if err := os.WriteFile(path, []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	lib := Dir(filepath.Join(dir, "lib"))
	v.Service = &Service{Dir: lib, Config: path, Apart: time.Millisecond,
		Now:      func() time.Time { return v.at },
		Defaults: func() config.Defaults { return config.Defaults{Role: config.VPS, Homes: lib.Read()} },
		Facts:    func([]*config.Relay) (pushed.Facts, error) { return v.facts, nil },
		Edited:   func(*config.Config) bool { return v.edited },
		Running: func() ([]string, error) {
			if v.downed {
				return nil, nil
			}
			return []string{"home", "cabin"}, nil
		},
		Up: func(relay string) error {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.up = append(v.up, relay)
			err := v.upErr
			v.upErr = nil
			if err == nil {
				v.taken = v.config()
			}
			return err
		},
		End: func(relay string) int { v.ended = append(v.ended, relay); return 0 },
		Log: func(text *message.Text) {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.log = append(v.log, text.Error())
		},
	}
	return v
}

func (v *vps) config() *config.Config {
	v.t.Helper()
	c, warnings, err := config.Load(v.Config, v.Defaults())
	if err != nil || len(warnings) > 0 {
		v.t.Errorf("the configuration: %v %v", err, warnings)
	}
	return c
}

// files are all files with their text.
func (v *vps) files() map[string]string {
	v.t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(string(v.Dir), func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasSuffix(path, "lock") {
			return err
		}
		data, err := os.ReadFile(path)
		files[path] = string(data)
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		v.t.Error(err)
	}
	return files
}

// key is an ssh key in base64, and its id.
func key(n byte) (text, id string) {
	blob := "\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20" + string(append([]byte{n}, make([]byte, 31)...))
	text = base64.StdEncoding.EncodeToString([]byte(blob))
	sum := sha256.Sum256([]byte(text))
	return text, hex.EncodeToString(sum[:8])
}

func (v *vps) invite(relay string, n byte) {
	v.t.Helper()
	if err := v.Dir.Keys().Invite(relay, [32]byte{n}, time.Now().Add(time.Hour)); err != nil {
		v.t.Fatal(err)
	}
}

// pipe is a connection: what comes, and what is answered.
type pipe struct {
	io.Reader
	io.Writer
}

func (v *vps) ask(verb, relay string, by byte, from, body string) pushed.Answer {
	_, id := key(by)
	header, _ := json.Marshal(Header{Verb: verb, Relay: relay, Key: id, From: from})
	return v.raw(string(header) + "\n" + body)
}

func (v *vps) raw(text string) pushed.Answer {
	var out bytes.Buffer
	if err := v.Serve(pipe{strings.NewReader(text), &out}); err != nil {
		v.t.Error(err)
	}
	var answer pushed.Answer
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil || out.Len() > pushed.MaxAnswer {
		v.t.Errorf("the answer %q: %v", out.String(), err)
	}
	return answer
}

const (
	wgKey = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
	home6 = "2001:db8:fd::1"
)

// enrolment is what a home with the ssh key n says.
func enrolment(n byte) string {
	text, _ := key(n)
	return `{"version":1,"ssh":"ssh-ed25519 ` + text + ` root@home","public_key":"` + wgKey + `"}`
}

func push(port int) string {
	return fmt.Sprintf("%sconfig forward 'web'\n\toption proto 'tcp'\n\toption src_dport '%d'\n\toption dest_ip "+
		"'192.168.1.210'\n", config.PushHeader, port)
}

// paired is a VPS on which the home with the key 2 has enrolled.
func paired(t *testing.T) *vps {
	t.Helper()
	v := newVPS(t)
	v.invite("home", 1)
	v.takes(v.ask(Enrol, "home", 1, home6, enrolment(2)))
	return v
}

func (v *vps) takes(a pushed.Answer) {
	v.t.Helper()
	if a.State != pushed.OK || len(a.Problems) > 0 {
		v.t.Errorf("refused: %v", a.Problems)
	}
}

// refuses wants a refusal with that code, or a part of it, that changes nothing.
func (v *vps) refuses(code string, do func() pushed.Answer) {
	v.t.Helper()
	before := v.files()
	a := do()
	if a.State != pushed.Refused || len(a.Problems) == 0 || !strings.Contains(a.Problems[0].Code, code) {
		v.t.Errorf("%s: %v; want a refusal with %q", a.State, a.Problems, code)
	}
	if after := v.files(); !mapsEqual(before, after) {
		v.t.Errorf("what is refused has changed files: %v, before %v", after, before)
	}
}

func mapsEqual(a, b map[string]string) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

func TestEnrol(t *testing.T) {
	v := newVPS(t)
	for _, r := range v.config().Relays {
		if !r.Awaited() {
			t.Errorf("relay %s does not wait for its home", r.Name)
		}
	}
	v.invite("home", 1)
	v.invite("cabin", 3)
	v.takes(v.ask(Enrol, "home", 1, home6, enrolment(2)))
	v.takes(v.ask(Enrol, "cabin", 3, "203.0.113.9", enrolment(4)))
	c := v.config()
	if r := c.Relay("home"); r.Awaited() || r.Peer.String() != home6 || r.Home.From != home6 || r.Home.Enrolled != 1e9 {
		t.Errorf("home is %+v", r.Home)
	}
	if r := c.Relay("cabin"); r.Awaited() || r.WireGuard.PublicKey.String() != wgKey || r.Peer.IsValid() {
		t.Errorf("cabin is %+v", r.Home)
	}
	if !slices.Equal(v.up, []string{"home", "cabin"}) {
		t.Errorf("up was called for %v", v.up)
	}
	if again := v.config(); again.Sum != c.Sum || again.Sum == newVPS(t).config().Sum {
		t.Error("the checksum of the configuration does not tell what homes have said")
	}
}

// The invitation is good once. Who tries it again is told so, and the VPS notes it.
func TestInvitationTwice(t *testing.T) {
	v := paired(t)
	v.refuses("invitation is not good any more", func() pushed.Answer {
		return v.ask(Enrol, "home", 1, "2001:db8:bad::1", enrolment(5))
	})
	a := v.ask(Used, "home", 1, "2001:db8:bad::1", enrolment(5))
	if a.State != pushed.Refused || !strings.Contains(a.Problems[0].Code, "has been used already") {
		t.Errorf("an invitation that has been used: %v", a)
	}
	if reused := v.config().Relay("home").Home.Reused; reused == nil || reused.From != "2001:db8:bad::1" ||
		reused.At != 1e9 {
		t.Errorf("the VPS notes %v", reused)
	}
	v.takes(v.ask(Receive, "home", 2, home6, push(443))) // the home itself goes on

	v = newVPS(t) // who has the home's ssh key, and not that of its WireGuard, is somebody else
	v.invite("cabin", 3)
	v.takes(v.ask(Enrol, "cabin", 3, "203.0.113.9", enrolment(4)))
	v.takes(v.ask(Used, "cabin", 3, "203.0.113.9", enrolment(4)))
	other := strings.ReplaceAll(enrolment(4), wgKey, "f7nGBHP8bdH0oMSPHDyUrOJLIOz8Cn0eBwpXPl1BUkI=")
	if a := v.ask(Used, "cabin", 3, "203.0.113.66", other); a.State != pushed.Refused {
		t.Errorf("an invitation that has been used, with another key of WireGuard: %v", a)
	}
	if reused := v.config().Relay("cabin").Home.Reused; reused == nil || reused.From != "203.0.113.66" {
		t.Errorf("the VPS notes %v", reused)
	}
}

// A home that has not heard the answer asks once more, and is no thief: also if its second session began before the
// first one was done.
func TestInvitationAgain(t *testing.T) {
	v := paired(t)
	v.takes(v.ask(Enrol, "home", 1, "203.0.113.9", enrolment(2)))
	v.takes(v.ask(Used, "home", 1, home6, enrolment(2)))
	if reused := v.config().Relay("home").Home.Reused; reused != nil {
		t.Errorf("the VPS notes %v", reused)
	}
	v.takes(v.ask(Receive, "home", 2, home6, push(443)))
}

func TestOneOfAHundredEnrols(t *testing.T) {
	v := newVPS(t)
	v.invite("home", 1)
	var group sync.WaitGroup
	var mu sync.Mutex
	taken := 0
	for n := range 100 {
		group.Add(1)
		go func() {
			defer group.Done()
			if v.ask(Enrol, "home", 1, home6, enrolment(byte(n+2))).State == pushed.OK {
				mu.Lock()
				taken++
				mu.Unlock()
			}
		}()
	}
	group.Wait()
	if taken != 1 {
		t.Errorf("%d of a hundred have enrolled with one invitation", taken)
	}
}

func TestEnrolIsRefused(t *testing.T) {
	v := newVPS(t)
	v.invite("home", 1)
	v.invite("cabin", 3)
	for _, test := range []struct {
		relay     string
		by        byte
		body, say string
	}{
		{"home", 1, "", "of no version"},
		{"home", 1, "\x00\xff\x7fELF", "of no version"},
		{"home", 1, strings.Repeat("x", pushed.MaxEnrolment+1), "reads at most"},
		{"home", 1, strings.Repeat("x", config.MaxPush+1), "reads at most"},
		{"home", 1, `{"version":1,"ssh":"ssh-rsa AAAA"}`, "no public key of the type"},
		{"home", 1, `{"version":1,"ssh":"command=\"sh\" ssh-ed25519 AAAA"}`, "no public key of the type"},
		{"home", 3, enrolment(2), "not good any more"}, // another relay's invitation
		{"home", 9, enrolment(2), "not good any more"},
		{"nobody", 1, enrolment(2), "has no relay"},
		{"cabin", 3, strings.ReplaceAll(enrolment(2), wgKey, ""), "sent no public key"},
	} {
		v.refuses(test.say, func() pushed.Answer { return v.ask(Enrol, test.relay, test.by, home6, test.body) })
	}
	v.takes(v.ask(Enrol, "cabin", 3, "203.0.113.9", enrolment(4)))
	v.refuses("knows this ssh key for something else", func() pushed.Answer {
		return v.ask(Enrol, "home", 1, home6, enrolment(4))
	})
	v.upErr = errors.New("no module")
	v.refuses("the VPS has failed", func() pushed.Answer { return v.ask(Enrol, "home", 1, home6, enrolment(2)) })
	v.downed, v.up = true, nil
	v.refuses("is down at the VPS", func() pushed.Answer { return v.ask(Enrol, "home", 1, home6, enrolment(2)) })
	if v.downed = false; len(v.up) > 0 {
		t.Errorf("what the VPS's owner has taken down is brought up: %v", v.up)
	}
	v.takes(v.ask(Enrol, "home", 1, home6, enrolment(2))) // the invitation is still good
}

func TestPush(t *testing.T) {
	v := paired(t)
	v.takes(v.ask(Receive, "home", 2, home6, push(443)))
	forwards := v.taken.Relay("home").Forwards
	if len(forwards) != 1 || forwards[0].String() != "tcp:443 → 192.168.1.210" || forwards[0].Section != "web" {
		t.Errorf("what is pushed is %v", forwards)
	}
	v.up, v.taken = nil, nil
	v.takes(v.ask(Receive, "home", 2, home6, push(443)))
	if !slices.Equal(v.up, []string{"home"}) || v.taken == nil {
		t.Error("the same push is not brought up, whose first one may have been killed half-way")
	}
	v.refuses("kept for the VPS", func() pushed.Answer { return v.ask(Receive, "home", 2, home6, push(22)) })
}

// A home cannot make the VPS apply what its owner has written and not applied yet.
func TestEditedFile(t *testing.T) {
	v := paired(t)
	v.takes(v.ask(Receive, "home", 2, home6, push(443)))
	v.invite("cabin", 3)
	v.edited, v.up = true, nil
	const says = "has changed since its relays were brought up"
	v.refuses(says, func() pushed.Answer { return v.ask(Receive, "home", 2, home6, push(444)) })
	v.refuses(says, func() pushed.Answer { return v.ask(Receive, "home", 2, "2001:db8:fd::2", push(443)) })
	v.refuses(says, func() pushed.Answer { return v.ask(Enrol, "cabin", 3, "203.0.113.9", enrolment(4)) })
	v.refuses("not good any more", func() pushed.Answer { return v.ask(Enrol, "cabin", 9, home6, enrolment(4)) })
	if len(v.up) > 0 {
		t.Errorf("up was called for %v", v.up)
	}
	v.edited = false
	v.takes(v.ask(Enrol, "cabin", 3, "203.0.113.9", enrolment(4)))
}

// The port of the session is judged as a port of the VPS is.
func TestPortOfTheSession(t *testing.T) {
	v := paired(t)
	_, id := key(2)
	header, _ := json.Marshal(Header{Verb: Receive, Relay: "home", Key: id, From: home6,
		Connection: "203.0.113.9 40000 198.51.100.144 2222"})
	v.refuses("listens on", func() pushed.Answer { return v.raw(string(header) + "\n" + push(2222)) })
	v.takes(v.raw(string(header) + "\n" + push(2223)))
}

// What has begun to listen later at the VPS does not keep the home from getting another address.
func TestAddressChangesBesideAListener(t *testing.T) {
	v := paired(t)
	v.takes(v.ask(Receive, "home", 2, home6, push(443)))
	v.facts.Listeners = []pushed.Listener{{Addr: netip.IPv4Unspecified(), Set: config.PortSet{Proto: config.TCP, First: 443,
		Last: 443}}}
	v.takes(v.ask(Receive, "home", 2, "2001:db8:fd::2", push(443)))
	if peer := v.taken.Relay("home").Peer.String(); peer != "2001:db8:fd::2" {
		t.Errorf("the home's address is %s", peer)
	}
}

// A home that wants a forward which the VPS does not take still moves, with the forwards that it had.
func TestAddressChangesBesideARefusal(t *testing.T) {
	v := paired(t)
	v.takes(v.ask(Receive, "home", 2, home6, push(443)))
	if a := v.ask(Receive, "home", 2, "2001:db8:fd::2", push(22)); len(a.Problems) != 1 || a.Problems[0].Option != "src_dport" {
		t.Errorf("the answer is %+v", a)
	}
	home := v.taken.Relay("home")
	if home.Peer.String() != "2001:db8:fd::2" || len(home.Forwards) != 1 || home.Forwards[0].Ports[0].First != 443 {
		t.Errorf("the home is at %s, with %+v", home.Peer, home.Forwards)
	}
	v.at = v.at.Add(2 * time.Minute)
	v.upErr = errors.New("no")
	v.refuses("could not set it up", func() pushed.Answer { return v.ask(Receive, "home", 2, "2001:db8:fd::3", push(22)) })
}

func TestAddressChanges(t *testing.T) {
	v := paired(t)
	v.takes(v.ask(Receive, "home", 2, home6, push(443)))
	v.takes(v.ask(Receive, "home", 2, "2001:db8:fd::2", push(443)))
	if peer := v.taken.Relay("home").Peer.String(); peer != "2001:db8:fd::2" {
		t.Errorf("the home's address is %s", peer)
	}
	v.at = v.at.Add(59 * time.Second)
	v.refuses("less than a minute ago", func() pushed.Answer { return v.ask(Receive, "home", 2, "2001:db8:fd::3", push(444)) })
	v.at = v.at.Add(2 * time.Second)
	v.takes(v.ask(Receive, "home", 2, "2001:db8:fd::3", push(444)))
	v.at = v.at.Add(time.Hour)
	v.refuses("is the address of another end", func() pushed.Answer {
		return v.ask(Receive, "home", 2, "2001:db8:6ef9:0:198:51:100:144", push(444))
	})
	v.takes(v.ask(Receive, "home", 2, "203.0.113.7", push(445))) // by IPv4: the address stays
	if peer := v.taken.Relay("home").Peer.String(); peer != "2001:db8:fd::3" {
		t.Errorf("after a session by IPv4 the home's address is %s", peer)
	}
	v.at = v.at.Add(-24 * time.Hour) // the clock is put right
	v.takes(v.ask(Receive, "home", 2, "2001:db8:fd::4", push(445)))
}

// The session of an enrolment may come from an address that the relay cannot have: the first push tells it.
func TestEnrolFromAnotherEnd(t *testing.T) {
	for name, from := range map[string]string{"the VPS itself": "2001:db8:6ef9:0:198:51:100:144",
		"the home of another relay": "2001:db8:ca:0:198:51:100:144"} {
		t.Run(name, func(t *testing.T) {
			v := newVPS(t)
			more := "config relay 'other'\n\toption ipaddr '198.51.100.144'\n\toption ip6addr '2001:db8:6ef9::/64'\n" +
				"\toption peeraddr '2001:db8:ca::/64'\n"
			if err := os.WriteFile(v.Config, []byte(file+more), 0o644); err != nil {
				t.Fatal(err)
			}
			v.invite("home", 1)
			v.takes(v.ask(Enrol, "home", 1, from, enrolment(2)))
			if !v.config().Relay("home").Awaited() {
				t.Error("the relay has an endpoint")
			}
			v.refuses("is the address of another end", func() pushed.Answer {
				return v.ask(Receive, "home", 2, from, push(443))
			})
			v.takes(v.ask(Receive, "home", 2, home6, push(443)))
		})
	}
}

func TestEnrolByIPv4(t *testing.T) {
	v := newVPS(t)
	v.invite("home", 1)
	v.takes(v.ask(Enrol, "home", 1, "203.0.113.7", enrolment(2)))
	v.refuses("needs the home's IPv6 address", func() pushed.Answer {
		return v.ask(Receive, "home", 2, "203.0.113.7", push(443))
	})
	v.takes(v.ask(Receive, "home", 2, home6, push(443)))
	if r := v.config().Relay("home"); r.Awaited() || r.Peer.String() != home6 {
		t.Errorf("the home's address is %v", r.Peer)
	}
}

func TestFailedPushIsPutBack(t *testing.T) {
	v := paired(t)
	v.takes(v.ask(Receive, "home", 2, home6, push(443)))
	v.up, v.upErr = nil, errors.New("nft: no memory for 192.168.77.7")
	v.refuses("could not set it up", func() pushed.Answer { return v.ask(Receive, "home", 2, home6, push(80)) })
	if len(v.up) != 2 || v.taken.Relay("home").Forwards[0].Ports[0].First != 443 {
		t.Errorf("after a failure: %v, %v", v.up, v.taken.Relay("home").Forwards)
	}
	if !strings.Contains(strings.Join(v.log, "\n"), "no memory") {
		t.Errorf("the log has %q", v.log)
	}
}

func TestPushIsRefused(t *testing.T) {
	v := paired(t)
	v.invite("cabin", 3)
	v.takes(v.ask(Enrol, "cabin", 3, home6, enrolment(4)))
	for _, test := range []struct {
		verb, relay string
		by          byte
		body, say   string
	}{
		{Receive, "cabin", 2, push(443), "does not know this home"}, // another relay's name
		{Receive, "home", 4, push(443), "does not know this home"},
		{Receive, "home", 9, push(443), "does not know this home"},
		{Receive, "home", 1, push(443), "does not know this home"}, // by an invitation
		{Enrol, "home", 2, enrolment(5), ""},
		{"shell", "home", 2, push(443), "request cannot be read"},
		{"", "home", 2, push(443), "request cannot be read"},
		{Receive, "home", 2, strings.Repeat("#", config.MaxPush+1), "reads at most"},
		{Receive, "home", 2, "\x7fELF\x00", "of no version"},
		{Receive, "home", 2, strings.ReplaceAll(push(443), "192.168.1.210", "10.1.2.3"), "own network"},
	} {
		v.refuses(test.say, func() pushed.Answer { return v.ask(test.verb, test.relay, test.by, home6, test.body) })
	}
	for _, raw := range []string{"", "\n", "{}\n", "sh\n", strings.Repeat("{", 1<<20),
		`{"verb":"receive","relay":"../../etc/passwd","from":""}` + "\n"} {
		v.refuses("request cannot be read", func() pushed.Answer { return v.raw(raw) })
	}
	v.downed = true
	v.refuses("is down at the VPS", func() pushed.Answer { return v.ask(Receive, "home", 2, home6, push(443)) })
}

func TestHundredPushesAtOnce(t *testing.T) {
	v := paired(t)
	var group sync.WaitGroup
	for n := range 100 {
		group.Add(1)
		go func() {
			defer group.Done()
			a := v.ask(Receive, "home", 2, home6, push(1000+n))
			if a.State == pushed.Refused && !strings.Contains(a.Problems[0].Code, "is busy") {
				t.Errorf("one of a hundred: %v", a.Problems)
			}
		}()
	}
	group.Wait()
	if c := v.config(); len(c.Relay("home").Forwards) != 1 {
		t.Errorf("afterwards there is %v", c.Relay("home").Forwards)
	}
}

func TestOnePushASecond(t *testing.T) {
	v := paired(t)
	v.Apart = 300 * time.Millisecond
	v.takes(v.ask(Receive, "home", 2, home6, push(443)))
	began := time.Now()
	v.takes(v.ask(Receive, "home", 2, home6, push(444)))
	if took := time.Since(began); took < 250*time.Millisecond {
		t.Errorf("the next push is taken up after %v", took)
	}
}

// Another home takes the place of the first one, whose session does not get anything done any more.
func TestAnotherHomeEnrols(t *testing.T) {
	v := paired(t)
	v.takes(v.ask(Receive, "home", 2, home6, push(443)))
	v.invite("home", 6)
	v.ended = nil
	v.takes(v.ask(Enrol, "home", 6, "2001:db8:fd::9", enrolment(7)))
	if r := v.config().Relay("home"); len(r.Forwards) > 0 || !slices.Equal(v.ended, []string{"home"}) {
		t.Errorf("of the former home there is still %v; ended %v", r.Forwards, v.ended)
	}
	v.refuses("does not know this home", func() pushed.Answer { return v.ask(Receive, "home", 2, home6, push(443)) })
}

func TestForget(t *testing.T) {
	v := paired(t)
	v.takes(v.ask(Receive, "home", 2, home6, push(443)))
	v.ended = nil
	if was, err := v.Forget("home"); !was || err != nil || !slices.Equal(v.ended, []string{"home"}) {
		t.Errorf("Forget = %v, %v; ended are sessions of %v", was, err, v.ended)
	}
	for path, text := range v.files() {
		if text != "" {
			t.Errorf("%s is left: %s", path, text)
		}
	}
	if r := v.config().Relay("home"); !r.Awaited() || len(r.Forwards) > 0 {
		t.Error("the relay does not wait for another home")
	}
	v.refuses("does not know this home", func() pushed.Answer { return v.ask(Receive, "home", 2, home6, push(443)) })
	if was, err := v.Forget("home"); was || err != nil {
		t.Errorf("Forget once more = %v, %v", was, err)
	}
}

// What is damaged is a warning: relays of the file come up, and the VPS's mistakes are not told to a home.
func TestDamagedFiles(t *testing.T) {
	v := paired(t)
	v.takes(v.ask(Receive, "home", 2, home6, push(443)))
	for name, text := range map[string]string{"home.json": "{", "home": "\x00\xff",
		"cabin.json": strings.Repeat("x", 1<<20), "../x": "", "Upper.json": "{}"} {
		path := filepath.Join(string(v.Dir), "relays", name)
		former, _ := os.ReadFile(path)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		c, warnings, err := config.Load(v.Config, v.Defaults())
		if want := strings.HasPrefix(name, "home") || name == "cabin.json"; err != nil || len(c.Relays) != 2 ||
			(len(warnings) == 1) != want {
			t.Errorf("%s is damaged: %v, %v", name, warnings, err)
		}
		if former == nil {
			os.Remove(path)
		} else if err := os.WriteFile(path, former, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// A record that is damaged is told to the VPS's owner, with what mends it.
	if err := os.WriteFile(v.Dir.record("home"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	v.refuses("its log says more", func() pushed.Answer { return v.ask(Receive, "home", 2, home6, push(80)) })
	if log := strings.Join(v.log, "\n"); !strings.Contains(log, `relay "home": what is kept of its home is damaged`) {
		t.Errorf("the log has %s", log)
	}
	v.invite("home", 6)
	v.takes(v.ask(Enrol, "home", 6, home6, enrolment(7)))
	v.takes(v.ask(Receive, "home", 7, home6, push(443)))

	if err := os.WriteFile(v.Config, []byte(file+"config relay 'secret'\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	a := v.ask(Receive, "home", 7, home6, push(80))
	if a.State != pushed.Refused || strings.Contains(fmt.Sprint(a.Problems), "secret") {
		t.Errorf("with mistakes in the VPS's own file: %v", a)
	}
}

// A forward of the file that is written later goes before one that the home has pushed.
func TestFileGoesFirst(t *testing.T) {
	v := paired(t)
	v.takes(v.ask(Receive, "home", 2, home6, push(443)))
	own := "config forward 'own'\n\toption relay 'home'\n\toption proto 'tcp'\n\toption src_dport '443'\n\toption " +
		"dest_ip '192.168.1.9'\n"
	if err := os.WriteFile(v.Config, []byte(file+own), 0o644); err != nil {
		t.Fatal(err)
	}
	c, warnings, err := config.Load(v.Config, v.Defaults())
	if err != nil || len(warnings) != 1 || len(c.Relay("home").Forwards) != 1 ||
		c.Relay("home").Forwards[0].Section != "own" {
		t.Fatalf("%v, %v", warnings, err)
	}
}

func TestSessionsToEnd(t *testing.T) {
	list := []process{
		{10, 1, "sshd", []string{"sshd:", "ds4relay@notty"}},
		{11, 10, "sh", []string{"sh", "-c", "/usr/sbin/ds4relay", "receive", "--key", "ab", "home"}},
		{12, 11, "ds4relay", []string{"/usr/sbin/ds4relay", "receive", "--key", "ab", "home"}},
		{20, 1, "sshd-session", []string{"sshd-session:", "ds4relay@notty"}},
		{21, 20, "ds4relay", []string{"/usr/sbin/ds4relay", "receive", "--key", "cd", "cabin"}},
		{30, 1, "sshd-session", []string{"sshd-session:", "ds4relay"}}, // idle
		{40, 1, "sshd", []string{"sshd:", "ds4relay@notty"}},
		{41, 40, "ds4relay", []string{"/usr/sbin/ds4relay", "enroll", "--key", "ef", "home"}},
	}
	if got := toEnd(list, "home"); !slices.Equal(got, []int{10, 11, 12, 30}) {
		t.Errorf("to be ended are %v", got)
	}
}
