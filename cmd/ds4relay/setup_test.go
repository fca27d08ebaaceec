//go:build !openwrt && !lab

package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/authorized"
	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/invite"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/setup"
	"github.com/ds4relay/ds4relay/internal/transport"
	"github.com/ds4relay/ds4relay/internal/uci"
)

// fakeHost is a VPS that answers from fields, and records what was done to it.
type fakeHost struct {
	machine     setup.Machine
	cloud       netip.Addr
	answers     []string // of the user; nil: there is nobody
	asked       []string
	hostKeyFile string
	hasKey      bool
	enrolled    bool
	notReady    bool
	failStart   bool // after something was done
	done        []string
	authorized.File
}

var (
	errStart = errors.New("the service does not start")
	errReady = errors.New("no service can be started")
)

func (h *fakeHost) did(what string) { h.done = append(h.done, what) }

func (h *fakeHost) Root() error { return nil }

func (h *fakeHost) Machine(string) (setup.Machine, error) { return h.machine, nil }

func (h *fakeHost) Cloud() netip.Addr {
	h.did("cloud")
	return h.cloud
}

func (h *fakeHost) Ask(question string) (string, bool) {
	if len(h.answers) == 0 {
		return "", false
	}
	answer := h.answers[0]
	h.asked, h.answers = append(h.asked, question), h.answers[1:]
	return answer, true
}

func (h *fakeHost) HostKey() ([]byte, error) { return readHostKey(h.hostKeyFile) }

func (h *fakeHost) Warnings(r *config.Relay) []*message.Text {
	return []*message.Text{message.Plain("a chain drops the packets of relay " + r.Name)}
}

func (h *fakeHost) Key(*config.Relay) (transport.Key, bool, error) {
	made := !h.hasKey
	if made {
		h.did("make key")
	}
	h.hasKey = true
	return transport.Key{1: 1}, made, nil
}

func (h *fakeHost) RemoveKey(*config.Relay) error {
	h.did("remove key")
	h.hasKey = false
	return nil
}

func (h *fakeHost) Ready() error {
	if h.notReady {
		return errReady
	}
	return nil
}

func (h *fakeHost) Start() (func() error, error) {
	h.did("start")
	if !h.failStart {
		return nil, nil
	}
	return func() error {
		h.did("back")
		return nil
	}, errStart
}

func (h *fakeHost) Invited(relay string) (bool, time.Time, bool, error) {
	open, expires, _, err := h.State(relay)
	return open && !h.enrolled, expires, h.enrolled, err
}

// hostKeySum is what `ssh-keygen -l` prints of newFakeHost's host key.
const hostKeySum = "kmYcvdi2GkPeWxB6XLjrZB8JHsy2Hm8luHMFp9GMvqk"

// newFakeHost is a VPS at Hetzner; file is where its configuration is.
func newFakeHost(t *testing.T) (h *fakeHost, a *app, out *bytes.Buffer) {
	t.Helper()
	dir := t.TempDir()
	h = &fakeHost{hostKeyFile: filepath.Join(dir, "host_key.pub"), File: authorized.File{Path: dir + "/authorized_keys"},
		machine: setup.Machine{IPv4: "eth0", IPv6: "eth0", WireGuard: true, IP6Tunnel: true,
			Addrs: []setup.Addr{{Addr: netip.MustParseAddr("198.51.100.20"), Device: "eth0"},
				{Addr: netip.MustParseAddr("2001:db8:c17:5::1"), Device: "eth0"}},
			Sockets: []setup.Socket{{Proto: config.TCP, Addr: netip.IPv4Unspecified(), Port: 2222, Program: "sshd"},
				{Proto: config.TCP, Addr: netip.IPv6Unspecified(), Port: 2222, Program: "sshd"},
				{Proto: config.TCP, Addr: netip.IPv4Unspecified(), Port: 80, Program: "nginx"}}}}
	blob := append([]byte("\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"), make([]byte, 32)...)
	key := "ssh-ed25519 " + base64.StdEncoding.EncodeToString(blob) + " root@vps\n"
	if err := os.WriteFile(h.hostKeyFile, []byte(key), 0o644); err != nil {
		t.Fatal(err)
	}
	out = &bytes.Buffer{}
	a = &app{path: filepath.Join(dir, "ds4relay"), stdout: out, stderr: out, env: func(string) string { return "" }}
	return h, a, out
}

func (a *app) fileText(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(a.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(data)
}

func ask(relay string) setup.Options {
	return setup.Options{Path: "ds4relay", Relay: relay, Defaults: config.Defaults{Role: config.VPS}}
}

// printed finds the invitation in what was printed.
func printed(t *testing.T, out string) invite.Invitation {
	t.Helper()
	i, err := invite.Decode(regexp.MustCompile(`(?m)^ds4relay1\..*$`).FindString(out), time.Now())
	if err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	return i
}

// TestSetup: from nothing to an invitation with one question, a second time without any change, then a second home, and
// another invitation.
func TestSetup(t *testing.T) {
	h, a, out := newFakeHost(t)
	h.answers = []string{""}
	if err := a.setUp(h, ask("home"), false); err != nil {
		t.Fatal(err)
	}
	if len(h.asked) != 1 || !slices.Equal(h.done, []string{"make key", "start"}) {
		t.Errorf("asked %q, done %q", h.asked, h.done)
	}
	for _, want := range []string{"relay home: public address 198.51.100.20, transport wireguard\n",
		"stays on this VPS: tcp:80 (nginx)\n", "+config relay 'home'\n", "+\tlist keep 'tcp:2222'\n",
		"TCP port 2222 (ssh), UDP port 51846 (the tunnel)", "warning: a chain drops the packets of relay home\n",
		"\nSHA256:" + hostKeySum + "\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	i := printed(t, out.String())
	if i.Relay != "home" || i.SSHPort != 2222 || i.Port != 51846 || i.IPAddr.String() != "198.51.100.20" ||
		strings.Join(i.Hosts, " ") != "2001:db8:c17:5::1 198.51.100.20" || i.PublicKey != (transport.Key{1: 1}).String() {
		t.Errorf("%+v", i)
	}
	public := base64.StdEncoding.EncodeToString(append([]byte("\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"),
		i.Key[32:]...))
	keys, err := os.ReadFile(h.Path)
	if err != nil || !strings.Contains(string(keys), " ssh-ed25519 "+public+" ds4relay-invitation home\n") {
		t.Errorf("%v, %s", err, keys)
	}
	if open, _, _, _ := h.Invited("home"); !open {
		t.Error("no invitation is open")
	}

	text := a.fileText(t)
	h.done = nil
	out.Reset()
	if err := a.setUp(h, ask("home"), false); err != nil {
		t.Fatal(err)
	}
	if a.fileText(t) != text || !strings.Contains(out.String(), "Nothing to change in ") || len(h.asked) != 1 ||
		strings.Contains(out.String(), "ds4relay1.") ||
		!strings.Contains(out.String(), "An invitation was printed before; it is valid until") {
		t.Errorf("a second time: %q\n%s", h.asked, out)
	}

	out.Reset()
	if err := a.setUp(h, ask("cabin"), true); err != nil {
		t.Fatal(err)
	}
	if i := printed(t, out.String()); i.Relay != "cabin" || i.Port != 51847 {
		t.Errorf("%+v", i)
	}
	if !strings.HasPrefix(a.fileText(t), text) {
		t.Errorf("the first relay is another one:\n%s", a.fileText(t))
	}

	out.Reset()
	if err := a.inviteTo(h, []string{"home"}, false); err != nil {
		t.Fatal(err)
	}
	if again := printed(t, out.String()); again.Key == i.Key || again.Relay != "home" {
		t.Error("the same invitation again")
	}
	if keys, _ := os.ReadFile(h.Path); strings.Count(string(keys), "ds4relay-invitation home") != 1 {
		t.Errorf("the former invitation is still good:\n%s", keys)
	}
	var usage usageError
	if err := a.inviteTo(h, nil, false); !errors.As(err, &usage) || !strings.Contains(err.Error(), "home, cabin") {
		t.Error(err)
	}
}

// TestSetupCloud: the cloud is asked only if the card has no public address; the user, if it does not know.
func TestSetupCloud(t *testing.T) {
	h, a, _ := newFakeHost(t)
	h.machine.Addrs = []setup.Addr{{Addr: netip.MustParseAddr("10.0.0.5"), Device: "eth0"}}
	h.cloud = netip.MustParseAddr("203.0.113.77")
	if err := a.setUp(h, ask("home"), true); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(a.fileText(t), "ipaddr '203.0.113.77'") || h.done[0] != "cloud" {
		t.Errorf("%q\n%s", h.done, a.fileText(t))
	}
	for answer, want := range map[string]string{"203.0.113.78": "", "10.0.0.9": `"10.0.0.9" is not a public IPv4 address; ` +
		"nothing was written", "": `"" is not a public IPv4 address; nothing was written`} {
		h, a, _ := newFakeHost(t)
		h.machine.Addrs = []setup.Addr{{Addr: netip.MustParseAddr("10.0.0.5"), Device: "eth0"}}
		h.answers = []string{answer, "y"}
		err := a.setUp(h, ask("home"), false)
		if got := fmt.Sprint(err); want != "" && (got != want || a.fileText(t) != "") {
			t.Errorf("%q: %v, want %s\n%s", answer, err, want, a.fileText(t))
		}
		if want == "" && (err != nil || !strings.Contains(a.fileText(t), answer) || len(h.asked) != 2) {
			t.Errorf("%q: %v, %q\n%s", answer, err, h.asked, a.fileText(t))
		}
	}
}

// TestSetupChoice: of several addresses the user chooses one; without a user it is the first.
func TestSetupChoice(t *testing.T) {
	for answer, want := range map[string]string{"": "198.51.100.20", "198.51.100.21": "198.51.100.21"} {
		for _, yes := range []bool{true, false} {
			h, a, _ := newFakeHost(t)
			h.machine.Addrs = append(h.machine.Addrs, setup.Addr{Addr: netip.MustParseAddr("198.51.100.21"), Device: "eth0"})
			h.answers = []string{answer, "y"}
			err := a.setUp(h, ask("home"), yes)
			want := want
			if yes {
				want = "198.51.100.20"
			}
			if err != nil || !strings.Contains(a.fileText(t), "ipaddr '"+want+"'") || yes && len(h.asked) > 0 {
				t.Errorf("%q, yes %v: %v, %q\n%s", answer, yes, err, h.asked, a.fileText(t))
			}
		}
	}
}

// TestSetupFails: after whatever fails, and after "no", the file and the key are as they were.
func TestSetupFails(t *testing.T) {
	const mine = "# mine\nconfig relay 'attic'\n\toption ipaddr '198.51.100.20'\n" +
		"\toption ip6addr '2001:db8:c17:5::/64'\n\toption peeraddr '2001:db8:1::1'\n"
	for name, c := range map[string]struct {
		breaks func(*fakeHost)
		yes    bool
		want   string
		usage  bool
		done   string
	}{
		"no": {func(h *fakeHost) { h.answers = []string{"n"} }, false, "nothing was written", false, ""},
		"nobody to ask": {func(*fakeHost) {}, false, "nothing was written: standard input is not a terminal, so setup " +
			"cannot ask; to go ahead without questions: ds4relay setup --yes", true, ""},
		"the service": {func(h *fakeHost) { h.failStart = true }, true, errStart.Error(), false,
			"make key, start, back, remove key"},
		"no systemd": {func(h *fakeHost) { h.notReady = true }, true, errReady.Error(), false, ""},
		"no host key": {func(h *fakeHost) { h.hostKeyFile = "/nowhere/key.pub" }, true, "/nowhere/key.pub is missing: " +
			"the home recognises the VPS by this ed25519 key of the ssh server; to make it: ssh-keygen -A", false, ""},
		"no ssh": {func(h *fakeHost) { h.machine.Sockets = nil }, true, "no ssh server runs on this machine", false,
			""},
		"no kernel modules": {func(h *fakeHost) { h.machine.WireGuard, h.machine.IP6Tunnel = false, false }, true,
			"this machine cannot load a kernel module for a tunnel", true, ""},
		"no address": {func(h *fakeHost) {
			h.machine.Addrs = []setup.Addr{{Addr: netip.MustParseAddr("10.0.0.5"), Device: "eth0"}}
		}, true, setup.ErrAddress.Error(), true, "cloud"},
	} {
		for _, former := range []string{"", mine} {
			h, a, _ := newFakeHost(t)
			if former != "" {
				if err := os.WriteFile(a.path, []byte(former), 0o640); err != nil {
					t.Fatal(err)
				}
			}
			c.breaks(h)
			err := a.setUp(h, ask("home"), c.yes)
			var usage usageError
			if err == nil || !strings.HasPrefix(err.Error(), c.want) || errors.As(err, &usage) != c.usage {
				t.Errorf("%s: %v, want %s", name, err, c.want)
			}
			if a.fileText(t) != former || h.hasKey {
				t.Errorf("%s: key %v, file\n%s", name, h.hasKey, a.fileText(t))
			}
			if got := strings.Join(h.done, ", "); got != c.done {
				t.Errorf("%s: done %s, want %s", name, got, c.done)
			}
			if _, err := os.Stat(uci.CopyPath(a.path)); err == nil {
				t.Errorf("%s: a copy of the file is left", name)
			}
			if _, err := os.Stat(h.Path); err == nil {
				t.Errorf("%s: somebody was invited", name)
			}
		}
	}
}

// TestSetupRejoin: whoever knows the relay as it was must join again: a home that has enrolled, and one that has an
// invitation. Without such a change both stay.
func TestSetupRejoin(t *testing.T) {
	for name, c := range map[string]struct {
		enrol  bool
		change func(*fakeHost, *setup.Options)
		want   string // what is said, "" for no invitation
	}{
		"another transport": {true, func(_ *fakeHost, o *setup.Options) { o.Transport = config.IPIP6 },
			"its home must join again"},
		"another address": {true, func(h *fakeHost, _ *setup.Options) {
			h.machine.Addrs[0].Addr = netip.MustParseAddr("198.51.100.21")
		}, "its home must join again"},
		"another key": {true, func(h *fakeHost, _ *setup.Options) { h.hasKey = false }, "its home must join again"},
		"invited only": {false, func(_ *fakeHost, o *setup.Options) { o.Transport = config.IPIP6 },
			"this invitation replaces the former one"},
		"a new listener": {true, func(h *fakeHost, _ *setup.Options) {
			h.machine.Sockets = append(h.machine.Sockets, setup.Socket{Proto: config.TCP, Addr: netip.IPv4Unspecified(),
				Port: 81, Program: "nginx"})
		}, ""},
		"nothing": {true, func(*fakeHost, *setup.Options) {}, ""},
	} {
		h, a, out := newFakeHost(t)
		if err := a.setUp(h, ask("home"), true); err != nil {
			t.Fatal(err)
		}
		h.enrolled = c.enrol
		o := ask("home")
		c.change(h, &o)
		out.Reset()
		if err := a.setUp(h, o, true); err != nil {
			t.Fatal(err)
		}
		const before = "with these changes, a home that has joined must join again\n"
		if said := strings.Contains(out.String(), before); said != (c.want != "" && name != "another key") {
			t.Errorf("%s: said before it is written: %v\n%s", name, said, out)
		}
		if c.want != "" {
			printed(t, out.String())
		}
		if invited := strings.Contains(out.String(), "ds4relay1."); invited != (c.want != "") ||
			!strings.Contains(out.String(), c.want) {
			t.Errorf("%s: want %q in\n%s", name, c.want, out)
		}
		if joined := strings.Contains(out.String(), "The home has joined already."); joined != (c.enrol && c.want == "") {
			t.Errorf("%s: joined already %v", name, joined)
		}
	}
}

// TestSetupUninvited: if only the invitation fails, what is set up stays, and the error says how to go on.
func TestSetupUninvited(t *testing.T) {
	h, a, _ := newFakeHost(t)
	h.Path = h.hostKeyFile + "/x/authorized_keys"
	err := a.setUp(h, ask("home"), true)
	if err == nil || !strings.HasSuffix(err.Error(), "try again: ds4relay invite home") ||
		!strings.Contains(a.fileText(t), "config relay 'home'") {
		t.Errorf("%v\n%s", err, a.fileText(t))
	}
}

// TestSetupByHand: a file that somebody has written is never overwritten: a relay of another name is added, and a copy
// is kept.
func TestSetupByHand(t *testing.T) {
	h, a, _ := newFakeHost(t)
	const mine = "# mine\nconfig relay 'home'\n\toption ipaddr '198.51.100.20'   # x\n\toption ip6addr " +
		"'2001:db8:c17:5::/64'\n\toption peeraddr '2001:db8:1::1'\n\nconfig forward\n\toption src_dport 443\n\toption " +
		"dest_ip 192.168.1.210\n"
	if err := os.WriteFile(a.path, []byte(mine), 0o640); err != nil {
		t.Fatal(err)
	}
	var usage usageError
	if err := a.setUp(h, ask("home"), true); !errors.As(err, &usage) || !strings.Contains(err.Error(), "by hand") {
		t.Error(err)
	}
	if err := a.setUp(h, ask("cabin"), true); err != nil {
		t.Fatal(err)
	}
	if want := mine + "\toption relay 'home'\n\nconfig relay 'cabin'\n"; !strings.HasPrefix(a.fileText(t), want) {
		t.Errorf("got\n%s\nwant first\n%s", a.fileText(t), want)
	}
	copied, err := os.ReadFile(uci.CopyPath(a.path))
	if err != nil || string(copied) != mine {
		t.Errorf("%v, the copy:\n%s", err, copied)
	}
	for _, args := range [][]string{{"home"}, {"none"}} {
		if err := a.inviteTo(h, args, false); err == nil {
			t.Error("invited", args)
		}
	}
	if err := a.inviteTo(h, nil, false); err != nil { // the only one that waits for a home
		t.Error(err)
	}
}

// TestSetupStandby: the address that two VPSs share is asked for, and the home gets to know of it, also by a later
// invitation. A VPS that was alone before has to be joined again.
func TestSetupStandby(t *testing.T) {
	o := ask("home")
	o.Standby = true
	h, a, out := newFakeHost(t)
	var usage usageError
	if err := a.setUp(h, o, true); !errors.As(err, &usage) || !strings.Contains(err.Error(), "--standby --ipaddr ADDRESS") ||
		a.fileText(t) != "" {
		t.Errorf("%v\n%s", err, a.fileText(t))
	}
	h.answers = []string{"198.51.100.144", "y"}
	if err := a.setUp(h, o, false); err != nil {
		t.Fatal(err)
	}
	shared := func(i invite.Invitation) {
		t.Helper()
		if !i.Standby || i.IPAddr.String() != "198.51.100.144" ||
			strings.Join(i.Hosts, " ") != "2001:db8:c17:5::1 198.51.100.20" {
			t.Errorf("%+v", i)
		}
	}
	shared(printed(t, out.String()))
	const other = "another VPS has 198.51.100.144 by turns; run there, too: ds4relay setup --standby --ipaddr 198.51.100.144"
	if len(h.asked) != 2 || !strings.Contains(a.fileText(t), "option standby '1'") || !strings.Contains(out.String(), other) {
		t.Errorf("%q\n%s", h.asked, out)
	}
	out.Reset()
	if err := a.inviteTo(h, nil, true); err != nil {
		t.Fatal(err)
	}
	shared(printed(t, out.String()))

	h, a, out = newFakeHost(t)
	if err := a.setUp(h, ask("home"), true); err != nil {
		t.Fatal(err)
	}
	if err := a.inviteTo(h, nil, true); err == nil || !strings.Contains(err.Error(), "for this VPS alone") {
		t.Error(err)
	}
	h.enrolled = true
	h.machine.Addrs = append(h.machine.Addrs, setup.Addr{Addr: netip.MustParseAddr("198.51.100.21"), Device: "eth0"})
	o.IPAddr = netip.MustParseAddr("198.51.100.20") // the one that it had
	out.Reset()
	if err := a.setUp(h, o, true); err != nil || !strings.Contains(out.String(), "its home must join again") {
		t.Errorf("%v\n%s", err, out)
	}
	if i := printed(t, out.String()); strings.Join(i.Hosts, " ") != "2001:db8:c17:5::1 198.51.100.21" {
		t.Errorf("%+v", i)
	}
}

// TestSetupUsage: exit status 2 and one line.
func TestSetupUsage(t *testing.T) {
	for line, want := range map[string]string{
		"setup home": "setup takes no arguments; see: ds4relay setup --help",
		"setup --relay My-Home": `setup --relay "My-Home": allowed is a relay's name of 1 to 11 characters out of a-z 0-9 ` +
			`_`,
		"setup --transport gre": `setup --transport "gre": allowed is wireguard or ipip6`,
		"setup --ipaddr 10.0.0.5": `setup --ipaddr "10.0.0.5": allowed is the VPS's public IPv4 address (not a private, ` +
			`multicast or reserved one)`,
		"setup --ipaddr x": `setup --ipaddr "x": allowed is the VPS's public IPv4 address (not a private, multicast or ` +
			`reserved one)`,
		"invite a b":     "invite takes the name of one relay",
		"-c FILE invite": "FILE has no relay that a home can join (none has a list allow); to make one: ds4relay setup",
		"-c OFF invite home": `relay "home" is switched off (option enabled '0'), so no home can join it; to switch it on: ` +
			`ds4relay setup --relay home`,
	} {
		file := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(file, []byte("# empty\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		off := filepath.Join(t.TempDir(), "off")
		const relay = "\n\toption role 'vps'\n\toption transport 'wireguard'\n\toption ipaddr '198.51.100.20'\n\tlist " +
			"allow 'tcp:80'\n"
		if err := os.WriteFile(off, []byte("config relay 'home'"+relay+"\toption enabled '0'\n\nconfig relay 'cabin'"+
			relay), 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		status := newApp(&out, &out).main(strings.Fields(strings.NewReplacer("FILE", file, "OFF", off).Replace(line)))
		if got := strings.TrimSpace(out.String()); status != exitUsage || got != strings.ReplaceAll(want, "FILE", file) {
			t.Errorf("%s: %d, %s, want %s", line, status, got, want)
		}
	}
}

// TestHostKey: the errors say what to do.
func TestHostKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.pub")
	for text, want := range map[string]string{
		"":                               "is not an ed25519 public key; to make another one: rm " + path[:len(path)-4],
		"ssh-rsa AAAA x\n":               "is not an ed25519 public key",
		"ssh-ed25519 ????\n":             "is not an ed25519 public key",
		"ssh-ed25519 AAAAC3NzaC1lZDI1\n": "is not an ed25519 public key", // cut off
		"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA root@vps\n": "",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readHostKey(path); (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	if _, err := readHostKey(path + "x"); err == nil || !strings.Contains(err.Error(), "ssh-keygen -A") {
		t.Error(err)
	}
}

// TestCodeLines: the code is as wide as it says, has a quiet zone, and its corners have the patterns by which cameras
// find it.
func TestCodeLines(t *testing.T) {
	lines, err := codeLines("ds4relay1." + strings.Repeat("abcdEFGH", 90))
	if err != nil {
		t.Fatal(err)
	}
	width := len([]rune(lines[0]))
	for i, line := range lines {
		if runes := []rune(line); len(runes) != width || strings.TrimSpace(string(runes[:quietZone])) != "" {
			t.Errorf("line %d: %q", i, line)
		}
	}
	if width > 120 || len(lines) != (width+1)/2 || !strings.HasPrefix(strings.TrimLeft(lines[2], " "), "█▀▀▀▀▀█ ") {
		t.Errorf("%d columns:\n%s", width, strings.Join(lines, "\n"))
	}
}
