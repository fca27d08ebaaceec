//go:build !openwrt && !lab

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/doctor"
	"github.com/ds4relay/ds4relay/internal/invite"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/kernel/fake"
	"github.com/ds4relay/ds4relay/internal/pairing"
	"github.com/ds4relay/ds4relay/internal/plain"
	"github.com/ds4relay/ds4relay/internal/program"
	"github.com/ds4relay/ds4relay/internal/reconcile"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// pairedHome is a home with an ssh client that answers as a test says.
type pairedHome struct {
	*app
	out      bytes.Buffer
	answer   string
	answers  int // which of the VPS's addresses answers
	err      error
	system   doctor.System
	sessions []pairing.Session
	spawned  [][]string
	started  int
	kernel   *fake.Kernel
}

// idle is a machine where the doctor sends nothing: relays with forwards are not up.
type idle struct {
	doctor.Prober
	h *pairedHome
}

func (m idle) Config() (*config.Config, config.Problems, error) {
	return config.Load(m.h.path, m.h.defaults())
}

func (m idle) System() doctor.System { return m.h.system }

func (m idle) Installed(c *config.Config) (i doctor.Installed, err error) {
	if slices.ContainsFunc(c.Relays, func(r *config.Relay) bool { return len(r.Forwards) > 0 }) {
		err = errors.New("nothing is up")
	}
	return i, err
}

func (m idle) Path(*config.Relay) (doctor.Path, error) { return doctor.Path{}, nil }

const okAnswer = `{"version":1,"state":"ok"}`

func newPaired(t *testing.T, file string) *pairedHome {
	t.Helper()
	if needRoot() != nil {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	h := &pairedHome{answer: okAnswer, kernel: fake.New("eth0")}
	h.app = &app{path: filepath.Join(dir, "config"), run: filepath.Join(dir, "run"),
		env:      func(string) string { return "" },
		pairings: pairing.Dir(filepath.Join(dir, "ssh")),
		apply:    func(reconcile.Kernel) reconcile.Kernel { return h.kernel },
		session: func(s *pairing.Session) (string, error) {
			s.Answered = s.VPS.Hosts[h.answers]
			h.sessions = append(h.sessions, *s)
			return h.answer, h.err
		},
		spawn:   func(args ...string) error { h.spawned = append(h.spawned, args); return nil },
		startUp: func(*app) error { h.started++; return nil },
		machine: idle{h: h}}
	h.system = doctor.System{OpenWrt: true, Now: time.Now(), Modules: map[string]bool{doctor.ModuleIPIP6: true, doctor.ModuleWireGuard: true}}
	h.stdout, h.stderr = plain.Writer{To: &h.out}, plain.Writer{To: &h.out}
	if file != "" {
		if err := os.WriteFile(h.path, []byte(file), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func (h *pairedHome) file(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(h.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(text)
}

// invitation is one of an ipip6 relay.
func invitation(change func(*invite.Invitation)) string {
	i := invite.Invitation{Relay: "home", Hosts: []string{"2001:db8:6ef9::1", "198.51.100.144"}, SSHPort: 2222,
		HostKey:   append([]byte("\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"), make([]byte, 32)...),
		Transport: "ipip6", IPAddr: netip.MustParseAddr("198.51.100.144"), Expires: time.Now().Add(time.Hour)}
	i.Key[0] = 1
	if change != nil {
		change(&i)
	}
	return invite.Encode(i)
}

func wireguard(i *invite.Invitation) {
	var key transport.Key
	key[0] = 9
	i.Transport, i.PublicKey, i.Port = "wireguard", key.String(), 51900
}

// enrolled pairs a home.
func (h *pairedHome) enrolled(t *testing.T, text string) error {
	t.Helper()
	j, err := h.newJoining(text)
	if err != nil {
		t.Fatal(err)
	}
	return j.enrol(pairing.Limit)
}

// TestJoin: what a home tells the VPS, and what it writes.
func TestJoin(t *testing.T) {
	example, err := os.ReadFile(filepath.Join(root, "files/openwrt/etc/config/ds4relay"))
	if err != nil {
		t.Fatal(err)
	}
	for name, former := range map[string]string{
		"no file": "", "the example": string(example), "comments and another relay": "# mine\nconfig relay 'cabin'\n" +
			"\toption role 'router' # here\n\toption ipaddr '203.0.113.9'\n\toption peeraddr '2001:db8:9::1'\n" +
			"\toption ip4table '43'\n\toption priority '4700'\n",
	} {
		t.Run(name, func(t *testing.T) {
			h := newPaired(t, former)
			if err := h.enrolled(t, "\n "+invitation(nil)[:40]+"\n"+invitation(nil)[40:]); err != nil {
				t.Fatal(err)
			}
			c, _, err := config.Load(h.path, h.defaults())
			if err != nil {
				t.Fatalf("%v\n%s", err, h.file(t))
			}
			r := c.Relay("home")
			if r == nil || !r.Enabled || r.Role != config.Router || r.Transport != config.IPIP6 ||
				r.Peer != netip.MustParseAddr("2001:db8:6ef9::1") || len(r.Forwards) > 0 {
				t.Errorf("the relay: %+v\n%s", r, h.file(t))
			}
			if strings.Contains(h.file(t), "web") || strings.Contains(h.file(t), "src_ip") {
				t.Errorf("the example is left:\n%s", h.file(t))
			}
			if strings.Contains(former, "cabin") && !strings.HasPrefix(h.file(t), former) {
				t.Errorf("the rest is not as it was:\n%s", h.file(t))
			}
			s := h.sessions[0]
			var sent struct {
				Version       int
				SSH           string
				PublicKey     string `json:"public_key"`
				Unknown, Name any
			}
			if err := json.Unmarshal([]byte(s.Input), &sent); err != nil || sent.Version != 1 ||
				!strings.HasPrefix(sent.SSH, "ssh-ed25519 AAAA") || sent.PublicKey != "" {
				t.Errorf("%v: %s", err, s.Input)
			}
			if s.OneTime == nil || s.OneTime[0] != 1 || s.Key != "" || s.From.IsValid() || s.VPS.Port != 2222 {
				t.Errorf("the session: %+v", s)
			}
			if !h.pairings.Paired("home") {
				t.Error("there is no key")
			}
			if vps, err := h.pairings.VPS("home"); err != nil || !slices.Equal(vps.Hosts, s.VPS.Hosts) {
				t.Errorf("%+v, %v", vps, err)
			}
		})
	}
}

// TestJoinWireGuard: the key of this end is made, or used, and the VPS gets its public half only.
func TestJoinWireGuard(t *testing.T) {
	key := filepath.Join(t.TempDir(), "keys", "home")
	h := newPaired(t, "config relay 'home'\n\toption role 'router'\n\toption ipaddr '203.0.113.9'\n\toption peeraddr "+
		"'203.0.113.9'\n\toption transport 'wireguard'\n\toption public_key 'AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='\n"+
		"\toption private_key_file '"+key+"'\n")
	if err := h.enrolled(t, invitation(wireguard)); err != nil {
		t.Fatal(err)
	}
	secret, err := kernel.ReadPrivate(key, "home")
	if err != nil || !strings.Contains(h.sessions[0].Input, secret.Public().String()) ||
		strings.Contains(h.sessions[0].Input, transport.Key(secret).String()) {
		t.Errorf("%v: %s", err, h.sessions[0].Input)
	}
	for _, line := range []string{"ipaddr '198.51.100.144'", "peeraddr '2001:db8:6ef9::1'", "endpoint_port '51900'",
		"transport 'wireguard'", "public_key 'CQAA"} {
		if !strings.Contains(h.file(t), line) {
			t.Errorf("%s is missing:\n%s", line, h.file(t))
		}
	}
	h.answers = 1
	if err := h.enrolled(t, invitation(wireguard)); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(h.file(t), "peeraddr '198.51.100.144'") {
		t.Errorf("the address that has answered:\n%s", h.file(t))
	}
	if again, err := kernel.ReadPrivate(key, "home"); err != nil || again != secret ||
		h.sessions[1].Input != h.sessions[0].Input {
		t.Errorf("joined again: other keys, %v", err)
	}
}

// TestJoinRefused: if the VPS does not take a home, everything is as before, and the reason is told.
func TestJoinRefused(t *testing.T) {
	const former = "config relay 'cabin'\n\toption role 'router'\n\toption ipaddr '203.0.113.9'\n\toption peeraddr " +
		"'2001:db8:9::1'\n"
	for name, c := range map[string]struct {
		answer string
		err    error
		file   string
		says   string
		asks   int
	}{
		"refused": {`{"version":1,"state":"refused","problems":[{"code":"this invitation was used at %s","args":["noon"]}]}`,
			nil, "", "this invitation was used at noon", 1},
		"no good key": {"", pairing.ErrDenied, "", "does not accept this key", 1},
		"nonsense":    {"\x1b[31mhello", nil, "", `\u001b[31mhello`, 1},
		"no module":   {okAnswer, nil, "", "opkg install kmod-ip6-tunnel", 0},
		"a clash":     {okAnswer, nil, former + "\toption device 'ds4-home'\n", "ds4-home", 0},
		"a mistake":   {okAnswer, nil, "config relay 'cabin'\n", "option ipaddr is missing", 0},
	} {
		t.Run(name, func(t *testing.T) {
			h := newPaired(t, c.file)
			h.answer, h.err = c.answer, c.err
			if name == "no module" {
				h.system.Modules = map[string]bool{doctor.ModuleWireGuard: true}
			}
			err := h.enrolled(t, invitation(nil))
			if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("says: %v", err)
			}
			if h.file(t) != c.file || len(h.sessions) != c.asks {
				t.Errorf("the file: %s; sessions: %d", h.file(t), len(h.sessions))
			}
			if h.pairings.Paired("home") {
				t.Error("it counts as paired")
			}
		})
	}
}

// TestJoinUnheard: the VPS may have taken a home that has not heard its answer. Whatever is answered later, the home
// goes on asking with the same keys.
func TestJoinUnheard(t *testing.T) {
	h := newPaired(t, "")
	text := invitation(func(i *invite.Invitation) {
		wireguard(i)
		i.Relay = "unheard"
	})
	key := config.KeyDir + "unheard"
	if _, err := os.Lstat(key); err == nil {
		t.Skip("this machine has ", key)
	}
	made := []string{key} // what is to be removed again
	for dir := filepath.Clean(config.KeyDir); dir != "/etc"; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); err != nil {
			made = append(made, dir)
		}
	}
	t.Cleanup(func() {
		for _, path := range made {
			os.Remove(path)
		}
	})
	h.err = pairing.ErrSilent
	if err := h.enrolled(t, text); err == nil || !strings.Contains(err.Error(), "with the same invitation") ||
		h.file(t) != "" {
		t.Errorf("without an answer: %v, the file: %s", err, h.file(t))
	}
	h.err, h.answer = nil, `{"version":1,"state":"refused","problems":[{"code":"the VPS is busy"}]}`
	if err := h.enrolled(t, text); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("busy: %v", err)
	}
	h.err = pairing.ErrDenied
	if err := h.enrolled(t, text); err == nil {
		t.Error("denied: no error")
	}
	h.err, h.answer = nil, okAnswer
	if err := h.enrolled(t, text); err != nil {
		t.Error(err)
	}
	for _, s := range h.sessions {
		if first := h.sessions[0].Input; s.Input != first {
			t.Errorf("it has asked with\n%s\nand then with\n%s", first, s.Input)
		}
	}
	if !h.pairings.Paired("unheard") {
		t.Error("there is no key")
	}
}

// TestJoinExample: the package's example makes room for a relay of another name, unless somebody has begun to use it.
func TestJoinExample(t *testing.T) {
	example, err := os.ReadFile(filepath.Join(root, "files/openwrt/etc/config/ds4relay"))
	if err != nil {
		t.Fatal(err)
	}
	cabin := invitation(func(i *invite.Invitation) { i.Relay = "cabin" })
	for name, c := range map[string]struct {
		more string
		want string
	}{
		"untouched": {"", "config relay 'cabin'"},
		"with forwards": {"config forward\n\toption relay 'home'\n\toption src_dport '80'\n\toption dest_ip " +
			"'192.168.1.9'\n", "config relay 'home'"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newPaired(t, string(example)+c.more)
			if err := h.enrolled(t, cabin); err != nil {
				t.Fatal(err)
			}
			file := h.file(t)
			if !strings.Contains(file, c.want) || strings.Contains(file, "config relay 'home'") != (c.more != "") ||
				strings.Contains(file, "config forward 'web'") || !strings.HasPrefix(file, "# ds4relay: a global") {
				t.Errorf("the file:\n%s", file)
			}
			if _, _, err := config.Load(h.path, h.defaults()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestJoinRole: a relay that joins is a home's, whatever it was before.
func TestJoinRole(t *testing.T) {
	h := newPaired(t, "config relay 'home'\n\toption role 'vps'\n\toption ipaddr '198.51.100.144'\n\toption peeraddr "+
		"'2001:db8:9::1'\n")
	if err := h.enrolled(t, invitation(nil)); err != nil || !strings.Contains(h.file(t), "role 'router'") {
		t.Errorf("%v\n%s", err, h.file(t))
	}
}

// TestJoinAtVPS: the machine that the invitation comes from cannot join itself.
func TestJoinAtVPS(t *testing.T) {
	const file = "config relay 'home'\n\toption role 'vps'\n\toption ipaddr '198.51.100.144'\n\toption peeraddr " +
		"'2001:db8:9::1'\n"
	h := newPaired(t, file)
	const says = "run join at home"
	if code, out := h.joins(invitation(nil), "--replace"); code == 0 || !strings.Contains(out, says) {
		t.Errorf("exit status %d: %s", code, out)
	}
	if _, err := h.joinFromPage(invitation(nil)); err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("from the page: %v", err)
	}
	if len(h.sessions) > 0 || h.file(t) != file {
		t.Errorf("sessions: %d, the file:\n%s", len(h.sessions), h.file(t))
	}
}

// joins runs the command with an invitation.
func (h *pairedHome) joins(text string, args ...string) (code int, out string) {
	h.out.Reset()
	h.input = strings.NewReader(text)
	code = h.main(append([]string{"-c", h.path, "--run", h.run, "join", "--yes"}, args...))
	return code, h.out.String()
}

// TestJoinAnotherVPS: an invitation does not take a relay from its VPS unless that is said. The forwards stay.
func TestJoinAnotherVPS(t *testing.T) {
	const forward = "config forward 'web'\n\toption proto 'tcp'\n\toption src_dport '443'\n\toption dest_ip " +
		"'192.168.1.210'\n"
	const byHand = "config relay 'home'\n\toption role 'router'\n\toption ipaddr '203.0.113.9'\n\toption peeraddr " +
		"'2001:db8:9::1'\n"
	otherKey := func(i *invite.Invitation) { i.HostKey[50] ^= 1 }
	otherAddress := func(i *invite.Invitation) { i.IPAddr = netip.MustParseAddr("198.51.100.7") }
	for name, c := range map[string]struct {
		first, then func(*invite.Invitation)
		file        string // in place of the first invitation
		replaces    string // "" for nothing
	}{
		"the same VPS":                    {nil, nil, "", ""},
		"another host key":                {nil, otherKey, "", "198.51.100.144, ssh host key SHA256:"},
		"another address":                 {nil, otherAddress, "", "198.51.100.144, ssh host key SHA256:"},
		"set up by hand":                  {nil, nil, byHand, "203.0.113.9"},
		"set up by hand for the same VPS": {nil, nil, strings.ReplaceAll(byHand, "203.0.113.9", "198.51.100.144"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := newPaired(t, c.file+forward)
			if c.file == "" {
				if err := h.enrolled(t, invitation(c.first)); err != nil {
					t.Fatal(err)
				}
			}
			former := h.file(t)
			h.sessions = nil
			if c.replaces != "" {
				code, out := h.joins(invitation(c.then))
				if code != exitUsage || !strings.Contains(out, c.replaces) || !strings.Contains(out, "--replace") ||
					h.file(t) != former || len(h.sessions) > 0 {
					t.Errorf("without --replace: %d, %s", code, out)
				}
				if _, err := h.joinFromPage(invitation(c.then)); err == nil || !strings.Contains(err.Error(), c.replaces) ||
					h.file(t) != former || len(h.sessions) > 0 {
					t.Errorf("from the page: %v", err)
				}
			}
			args := []string{"--replace"}
			if c.replaces == "" {
				args = nil
			}
			h.joins(invitation(c.then), args...)
			if len(h.sessions) != 1 || h.started != 1 || !strings.Contains(h.file(t), forward) {
				t.Errorf("sessions: %d, started: %d\n%s\n%s", len(h.sessions), h.started, h.out.String(), h.file(t))
			}
		})
	}
}

// TestJoinWithoutForward: a home may join first, and open its ports later.
func TestJoinWithoutForward(t *testing.T) {
	h := newPaired(t, "")
	if code, out := h.joins(invitation(nil)); code != 0 || !strings.Contains(out, "No port is open yet") {
		t.Errorf("exit status %d: %s", code, out)
	}
	h = newPaired(t, "")
	if _, out := h.joins(invitation(nil), "--host", "192.168.1.2", "--port", "tcp:443"); strings.Contains(out,
		"No port is open yet") {
		t.Errorf("with a forward it says: %s", out)
	}
}

// TestJoinAgain: what a VPS has taken before is not what it has after joining again.
func TestJoinAgain(t *testing.T) {
	h := newPaired(t, "")
	if err := h.enrolled(t, invitation(nil)); err != nil {
		t.Fatal(err)
	}
	if err := h.kernel.NotePush(&kernel.Push{Relay: "home", State: kernel.PushOK}); err != nil {
		t.Fatal(err)
	}
	h.err = pairing.ErrDenied
	if err := h.enrolled(t, invitation(nil)); err == nil || h.kernel.Pushed("home") == nil {
		t.Errorf("refused: %v, %+v", err, h.kernel.Pushed("home"))
	}
	h.err = nil
	if err := h.enrolled(t, invitation(nil)); err != nil || h.kernel.Pushed("home") != nil {
		t.Errorf("joined again: %v, %+v", err, h.kernel.Pushed("home"))
	}
}

// second is the invitation of another VPS with the same public address.
func second(i *invite.Invitation) {
	i.Standby, i.HostKey[50], i.Hosts = true, 7, []string{"2001:db8:6efa::1", "198.51.100.200"}
}

// TestJoinStandby: two VPSs have one public address by turns. The second becomes a relay of its own with another name,
// and all forwards are for both. Joining one of them again changes neither.
func TestJoinStandby(t *testing.T) {
	first := func(i *invite.Invitation) { i.Standby = true }
	const web = "config forward 'web'\n\toption proto 'tcp'\n\toption src_dport '443'\n\toption dest_ip '192.168.1.210'\n"
	h := newPaired(t, web+strings.ReplaceAll(strings.ReplaceAll(web, " 'web'", ""), "443", "80")+
		"\toption relay 'home'   # mine\n")
	if err := h.enrolled(t, invitation(first)); err != nil {
		t.Fatal(err)
	}
	alone := h.file(t)
	for _, again := range []bool{false, true} {
		code, out := h.joins(invitation(second))
		if last := h.sessions[len(h.sessions)-1]; last.VPS.Hosts[0] != "2001:db8:6efa::1" ||
			!strings.Contains(out, "relay home2: 198.51.100.144 by the VPS at 2001:db8:6efa::1") ||
			!strings.Contains(out, "the VPS of relay home has this address, too") {
			t.Errorf("exit status %d, %s", code, out)
		}
		c, warnings, err := config.Load(h.path, h.defaults())
		if err != nil || len(warnings) > 0 {
			t.Fatalf("%v, %v\n%s", err, warnings, h.file(t))
		}
		one, two := c.Relay("home"), c.Relay("home2")
		if len(c.Relays) != 2 || len(one.Forwards) != 2 || len(two.Forwards) != 2 || one.Table == two.Table ||
			one.Device == two.Device || two.Peer != netip.MustParseAddr("2001:db8:6efa::1") || two.IPAddr != one.IPAddr ||
			one.Peer != netip.MustParseAddr("2001:db8:6ef9::1") || !two.Enabled {
			t.Errorf("%+v\n%+v\n%s", one, two, h.file(t))
		}
		if n := strings.Count(h.file(t), "list relay 'home'\n\tlist relay 'home2'\n"); n != 2 {
			t.Errorf("the forwards' relays:\n%s", h.file(t))
		}
		former := h.file(t)
		if err := h.enrolled(t, invitation(first)); err != nil || h.file(t) != former || !h.pairings.Paired("home2") {
			t.Errorf("joined the first again (%v): %v\n%s", again, err, h.file(t))
		}
	}
	// A third one, and a VPS that was installed anew at its address.
	third := func(i *invite.Invitation) {
		second(i)
		i.HostKey[50], i.Hosts = 8, []string{"2001:db8:6efb::1"}
	}
	if err := h.enrolled(t, invitation(third)); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(h.file(t), "\tlist relay 'home2'\n\tlist relay 'home3'\n"); n != 2 {
		t.Errorf("the forwards' relays:\n%s", h.file(t))
	}
	anew := func(i *invite.Invitation) {
		second(i)
		i.HostKey[50] = 9
	}
	former := h.file(t)
	if code, out := h.joins(invitation(anew)); code != exitUsage || !strings.Contains(out, `relay "home2" is with another VPS`) {
		t.Errorf("installed anew: %d, %s", code, out)
	}
	if h.joins(invitation(anew), "--replace"); h.file(t) != former {
		t.Errorf("installed anew, replaced:\n%s", h.file(t))
	}
	// A server in the same go is for all of them.
	if h.joins(invitation(first), "--host", "192.168.1.3", "--port", "tcp:25"); !strings.Contains(h.file(t),
		"config forward 'server'\n\tlist relay 'home2'\n\tlist relay 'home3'\n\tlist relay 'home'\n") {
		t.Errorf("with a server:\n%s", h.file(t))
	}
	// Without standby it is as before: somebody has to say what becomes of the first one.
	h = newPaired(t, alone)
	if err := h.enrolled(t, invitation(nil)); err != nil {
		t.Fatal(err)
	}
	former = h.file(t)
	alike := func(i *invite.Invitation) {
		second(i)
		i.Standby = false
	}
	if code, out := h.joins(invitation(alike)); code != exitUsage || !strings.Contains(out, "--replace") || h.file(t) != former {
		t.Errorf("without standby: %d, %s", code, out)
	}
}

// TestJoinStandbyNames: what else may have the name of the second VPS's relay.
func TestJoinStandbyNames(t *testing.T) {
	relay := func(name, ipaddr, peer, table string) string {
		return "config relay '" + name + "'\n\toption role 'router'\n\toption ipaddr '" + ipaddr + "'\n\toption peeraddr '" +
			peer + "'\n\toption ip4table '" + table + "'\n"
	}
	const public, other = "198.51.100.144", "203.0.113.9"
	for name, c := range map[string]struct{ file, invited, want string }{
		"nothing":          {"", "home", "home"},
		"by hand":          {relay("home", public, "2001:db8:6ef9::1", "42"), "home", "home2"},
		"the same VPS":     {relay("home", public, "2001:db8:6efa::1", "42"), "home", "home"},
		"another name":     {relay("home", public, "2001:db8:6ef9::1", "42"), "other", "other"},
		"another address":  {relay("home", other, "2001:db8:6ef9::1", "42"), "home", "home"},
		"a long name":      {relay("abcdefghijk", public, "2001:db8:6ef9::1", "42"), "abcdefghijk", "abcdefgh2"},
		"a forward's":      {relay("home", public, "2001:db8:6ef9::1", "42") + "config forward 'home2'\n", "home", "home3"},
		"a relay of other": {relay("home", public, "2001:db8:6ef9::1", "42") + relay("home2", other, "::1", "43"), "home", "home3"},
	} {
		h := newPaired(t, c.file)
		j, err := h.newJoining(invitation(func(i *invite.Invitation) {
			second(i)
			i.Relay = c.invited
		}))
		if err != nil || j.Relay != c.want {
			t.Errorf("%s: %v, %v, want %s", name, j, err, c.want)
		}
	}
	h := newPaired(t, "confg\n")
	if _, err := h.newJoining(invitation(second)); err == nil || !strings.Contains(err.Error(), "unknown word") {
		t.Error(err)
	}
}

// TestJoinTable: a relay beside another one gets a routing table of its own, and forwards name the first, which they
// need not have done.
func TestJoinTable(t *testing.T) {
	const cabin = "config relay 'cabin'\n\toption role 'router'\n\toption ipaddr '203.0.113.9'\n\toption peeraddr " +
		"'2001:db8:9::1'\n"
	const web = "config forward\n\toption src_dport '443'\n\toption dest_ip '192.168.1.210'\n"
	for file, want := range map[string]uint32{cabin: 43, cabin + "\toption ip4table '43'\n": 42,
		cabin + "\toption ip4table '297'\n": 43} {
		h := newPaired(t, file+web)
		if err := h.enrolled(t, invitation(nil)); err != nil {
			t.Fatal(err)
		}
		c, _, err := config.Load(h.path, h.defaults())
		if err != nil || c.Relay("home").Table != want || len(c.Relay("cabin").Forwards) != 1 {
			t.Errorf("%v, want table %d\n%s", err, want, h.file(t))
		}
	}
	// Hosts that open connections through the first go on by the second while that VPS is silent.
	public := strings.ReplaceAll(cabin, "203.0.113.9", "198.51.100.144")
	const all = "\toption egress 'all'\n"
	for _, file := range []string{public + web + all, public + all + "\toption killswitch '1'\n" + web} {
		h := newPaired(t, file)
		if err := h.enrolled(t, invitation(second)); err != nil {
			t.Fatal(err)
		}
		c, _, err := config.Load(h.path, h.defaults())
		if err != nil || c.Relay("cabin").Backup != "home" {
			t.Fatalf("%v\n%s", err, h.file(t))
		}
		for _, r := range c.Relays {
			if f := r.Forwards[0]; f.Egress != config.All || f.KillSwitch != strings.Contains(file, "killswitch") {
				t.Errorf("relay %s: egress %s, kill switch %v", r.Name, f.Egress, f.KillSwitch)
			}
		}
	}
	// What cannot be shared stops it before the invitation is used.
	file := public + all + "\toption backup 'gone'\n" + web
	h := newPaired(t, file)
	if err := h.enrolled(t, invitation(second)); err == nil || !strings.Contains(err.Error(), `option backup "gone"`) ||
		len(h.sessions) > 0 || h.file(t) != file {
		t.Errorf("%v, %d sessions\n%s", err, len(h.sessions), h.file(t))
	}
}

// TestExportPaired: the VPS of a paired relay has a file of its own.
func TestExportPaired(t *testing.T) {
	h := newPaired(t, "config relay 'home'\n\toption role 'router'\n\toption ipaddr '198.51.100.144'\n\toption ip6addr "+
		"'2001:db8:1::5'\n\toption peeraddr '2001:db8:9::1'\n")
	for _, paired := range []bool{false, true} {
		if paired {
			if err := h.enrolled(t, invitation(nil)); err != nil {
				t.Fatal(err)
			}
		}
		h.out.Reset()
		code := h.main([]string{"-c", h.path, "--run", h.run, "export"})
		if code != 0 || strings.Contains(h.out.String(), "has a file of its own") != paired {
			t.Errorf("paired: %v: %d, %s", paired, code, h.out.String())
		}
	}
}

// TestQuestion: what counts as a yes.
func TestQuestion(t *testing.T) {
	for answer, yes := range map[string]bool{"y": true, "Y": true, "yes": true, "Yes": true, " YES ": true, "": false,
		"n": false, "yesterday": false} {
		h := newPaired(t, "")
		if got := h.agreed(strings.NewReader(answer+"\n"), "Is this your VPS? "); got != yes {
			t.Errorf("%q counts as %v", answer, got)
		}
	}
}

// TestJoinArguments: an invitation on the command line is refused, and not repeated.
func TestJoinArguments(t *testing.T) {
	h := newPaired(t, "")
	for _, c := range []struct {
		args []string
		in   string
		code int
		says string
	}{
		{[]string{"join", invitation(nil)}, "", exitUsage, "everybody on this machine may see arguments"},
		{[]string{"join", "--host", "192.168.1.2"}, "", exitUsage, "--host and --port together"},
		{[]string{"join", "--host", "x", "--port", "tcp:1"}, "", exitUsage, `--host "x"`},
		{[]string{"join", "--host", "192.168.1.2", "--port", "443"}, "", exitUsage, `--port "443"`},
		{[]string{"join", "--yes"}, "hello", exitUsage, "not an invitation"},
		{[]string{"join", "--yes"}, invitation(nil)[:200], exitUsage, "cut off"},
	} {
		h.out.Reset()
		h.input = strings.NewReader(c.in)
		code := h.main(append([]string{"-c", h.path, "--run", h.run}, c.args...))
		if code != c.code || !strings.Contains(h.out.String(), c.says) ||
			strings.Contains(h.out.String(), invitation(nil)[10:60]) {
			t.Errorf("%q: status %d, %s", c.args, code, h.out.String())
		}
	}
	if len(h.sessions) > 0 || h.started > 0 {
		t.Error("something was done")
	}
}

// TestJoinFromPage: the answer to the form, with the service started.
func TestJoinFromPage(t *testing.T) {
	h := newPaired(t, "")
	answer, err := h.joinFromPage(invitation(nil))
	if err != nil || answer.(inviting).Relay != "home" || h.started != 1 || h.sessions[0].Limit >= pairing.Limit {
		t.Errorf("%+v, %v; started: %d", answer, err, h.started)
	}
	if fingerprint := answer.(inviting).Fingerprint; !strings.HasPrefix(fingerprint, "SHA256:") || len(fingerprint) != 50 {
		t.Error(fingerprint)
	}
}

// TestFirstForward: a server in the same go.
func TestFirstForward(t *testing.T) {
	h := newPaired(t, "config forward 'server'\n\toption relay 'cabin'\n\toption src_dport '80'\n\toption dest_ip "+
		"'192.168.1.3'\nconfig relay 'cabin'\n\toption role 'router'\n\toption ipaddr '203.0.113.9'\n\toption peeraddr "+
		"'2001:db8:9::1'\n\toption ip4table '43'\n\toption priority '4700'\n")
	j, err := h.newJoining(invitation(nil))
	if err != nil {
		t.Fatal(err)
	}
	if j.forward, err = newForward("192.168.1.210", "tcp:8000-8010"); err != nil {
		t.Fatal(err)
	}
	if err := j.enrol(pairing.Limit); err != nil {
		t.Fatal(err)
	}
	c, _, err := config.Load(h.path, h.defaults())
	if err != nil {
		t.Fatal(err)
	}
	if f := c.Relay("home").Forwards; len(f) != 1 || f[0].String() != "tcp:8000-8010 → 192.168.1.210" {
		t.Errorf("%v\n%s", f, h.file(t))
	}
}

// TestPush: after `up` a process of its own tells the VPS once what is new, and each minute what it has not taken.
func TestPush(t *testing.T) {
	forward := "config forward 'web'\n\toption proto 'tcp'\n\toption src_dport '443'\n\toption dest_ip '192.168.1.210'\n" +
		"config forward\n\toption proto 'udp'\n\toption src_dport '22'\n\toption dest_ip '192.168.1.211'\n"
	relay := "config relay 'home'\n\toption role 'router'\n\toption ipaddr '198.51.100.144'\n\toption ip6addr " +
		"'2001:db8:1::5'\n\toption peeraddr '2001:db8:6ef9::1'\n"
	h := newPaired(t, relay+forward)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(h.path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	up := func() {
		t.Helper()
		h.out.Reset()
		if code := h.main([]string{"-q", "-c", h.path, "--run", h.run, "up"}); code != 0 {
			t.Fatalf("up: %d: %s", code, h.out.String())
		}
	}
	up()
	if len(h.spawned) > 0 || h.kernel.Pushed("home") != nil {
		t.Fatal("a home that is not paired tells somebody something")
	}
	path, _, err := h.pairings.MakeKey("home")
	if err != nil {
		t.Fatal(err)
	}
	vps := pairing.VPS{Version: 1, Hosts: []string{"2001:db8:6ef9::1"}, Port: 22,
		HostKey: append([]byte("\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"), make([]byte, 32)...)}
	if err := h.pairings.Keep("home", vps, path); err != nil {
		t.Fatal(err)
	}
	up()
	if len(h.spawned) != 1 || h.spawned[0][len(h.spawned[0])-1] != "push" || len(h.sessions) > 0 {
		t.Fatalf("after up: %v, %d sessions", h.spawned, len(h.sessions))
	}
	if p := h.kernel.Pushed("home"); p == nil || p.State != kernel.PushPending {
		t.Fatalf("after up: %+v", p)
	}
	push := func(wait bool) *kernel.Push {
		t.Helper()
		if err := h.pushAll(wait, pairing.Limit); err != nil {
			t.Fatal(err)
		}
		return h.kernel.Pushed("home")
	}
	h.answer = `{"version":1,"state":"refused","problems":[{"code":"the VPS keeps %s","args":["tcp:22"],` +
		`"section":"forward \"forward_0\"","option":"src_dport","value":"22"}]}`
	refused := push(true)
	if refused.State != kernel.PushRefused || len(refused.Problems) != 1 ||
		refused.Problems[0].Error() != `forward "forward[0]": option src_dport "22": the VPS keeps tcp:22` {
		t.Errorf("refused: %+v", refused)
	}
	s := h.sessions[0]
	want := "ds4relay-push 1\nconfig home\n\toption version 'dev'\n\nconfig forward 'web'\n\tlist proto 'tcp'\n" +
		"\toption src_dport '443'\n\toption dest_ip '192.168.1.210'\n\nconfig forward 'forward_0'\n\tlist proto 'udp'\n" +
		"\toption src_dport '22'\n\toption dest_ip '192.168.1.211'\n"
	if s.Input != want || s.From != netip.MustParseAddr("2001:db8:1::5") || s.OneTime != nil ||
		s.Key != h.pairings.Key("home") {
		t.Errorf("the session: %+v\n%s", s, s.Input)
	}
	h.out.Reset()
	h.main([]string{"-c", h.path, "--run", h.run, "status"})
	if !strings.Contains(h.out.String(), "push            refused by the VPS, ") ||
		!strings.Contains(h.out.String(), `option src_dport "22": the VPS keeps tcp:22`) {
		t.Errorf("status: %s", h.out.String())
	}
	// The run of each minute tries again, unless somebody is at it.
	unlock, err := (&kernel.Kernel{Run: h.run}).LockPush(false)
	if err != nil {
		t.Fatal(err)
	}
	if push(false); len(h.sessions) != 1 {
		t.Error("two pushes at once")
	}
	unlock()
	h.err = pairing.ErrSilent
	failed := push(false)
	if failed.State != kernel.PushFailed || failed.Text != pairing.ErrSilent.Error() {
		t.Errorf("failed: %+v", failed)
	}
	if limit := h.sessions[len(h.sessions)-1].Limit; limit != pairing.Limit {
		t.Errorf("the VPS may take %v, want %v", limit, pairing.Limit)
	}
	// Who has just joined is told that this much has worked, and what becomes of the rest.
	if said := untold(failed).Error(); !strings.HasPrefix(said, "this home is joined to the VPS, but ") ||
		!strings.Contains(said, pairing.ErrSilent.Error()+"\n") || !strings.Contains(said, "told again every minute") {
		t.Errorf("after joining: %s", said)
	}
	failed.Since = 7
	if again := push(false); again.Since != 7 {
		t.Errorf("it fails as before, since then: %+v", again)
	}
	// What is wrong there is no mistake here.
	h.err, h.answer = nil, `{"version":1,"state":"refused","problems":[{"code":"too soon"}]}`
	if later := push(false); later.State != kernel.PushFailed || !strings.HasSuffix(later.Text, ": too soon") ||
		later.Problems != nil || later.Since == 7 {
		t.Errorf("too soon: %+v", later)
	}
	h.answer = okAnswer
	if ok := push(false); ok.State != kernel.PushOK || ok.Text != "" || ok.Problems != nil {
		t.Errorf("taken: %+v", ok)
	}
	n, spawned := len(h.sessions), len(h.spawned)
	if push(false); len(h.sessions) != n {
		t.Error("it was told again what the VPS knows")
	}
	if up(); len(h.spawned) != spawned {
		t.Error("up without a change tells the VPS something")
	}
	write(relay + strings.ReplaceAll(forward, "'22'", "'23'"))
	if push(false); len(h.sessions) != n {
		t.Error("the VPS is told a file that is not applied")
	}
	if up(); len(h.spawned) != spawned+1 {
		t.Error("a change is not told")
	}
	if push(true); !strings.Contains(h.sessions[n].Input, "'23'") {
		t.Errorf("the change: %s", h.sessions[n].Input)
	}
	// Another endpoint is told too: the VPS learns it from the session.
	write(strings.ReplaceAll(relay, "2001:db8:1::5", "2001:db8:2::5") + strings.ReplaceAll(forward, "'22'", "'23'"))
	up()
	if push(true); h.sessions[n+1].From != netip.MustParseAddr("2001:db8:2::5") {
		t.Errorf("another endpoint: %v", h.sessions[n+1].From)
	}
}

// TestSpawn: the process that tells the VPS keeps neither an output nor another file of its parent open.
func TestSpawn(t *testing.T) {
	if os.Getenv("DS4RELAY_TEST_SPAWN") != "" {
		file, err := os.Open("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		names, _ := file.Readdirnames(-1)
		text := ""
		for _, name := range names {
			target, _ := os.Readlink("/proc/self/fd/" + name)
			text += target + "\n"
		}
		if err := os.WriteFile(os.Getenv("DS4RELAY_TEST_SPAWN"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	dir := t.TempDir()
	held, err := os.Create(filepath.Join(dir, "held"))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	out := filepath.Join(dir, "out")
	t.Setenv("DS4RELAY_TEST_SPAWN", out+".new")
	// A shell's open file is inherited, as procd's lock is.
	if _, err := unix.FcntlInt(held.Fd(), unix.F_SETFD, 0); err != nil {
		t.Fatal(err)
	}
	if err := program.Again("-test.run=^TestSpawn$"); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if text, err := os.ReadFile(out + ".new"); err == nil && len(text) > 0 {
			if strings.Contains(string(text), held.Name()) || strings.Contains(string(text), "pipe:") {
				t.Errorf("it has open:\n%s", text)
			}
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Error("it was not started")
}
