package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/doctor"
	"github.com/ds4relay/ds4relay/internal/invite"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/openwrt"
	"github.com/ds4relay/ds4relay/internal/pairing"
	"github.com/ds4relay/ds4relay/internal/plain"
	"github.com/ds4relay/ds4relay/internal/platform"
	"github.com/ds4relay/ds4relay/internal/program"
	"github.com/ds4relay/ds4relay/internal/transport"
	"github.com/ds4relay/ds4relay/internal/uci"
)

func (a *app) join(f *flag.FlagSet) func([]string) error {
	yes := f.Bool("yes", false, "do not ask whether the VPS is the right one")
	replace := f.Bool("replace", false, "with --yes, let it take the place of the VPS that the relay has now")
	host := f.String("host", "", "open the port for the server at `ADDRESS`, else ask, or open none yet")
	port := f.String("port", "", "open `PROTO:PORT` for it, such as tcp:443")
	return func(args []string) error {
		switch {
		case len(args) > 0:
			return usageError("an invitation is a secret, and everybody on this machine may see arguments: join asks " +
				"for it, or reads standard input: ds4relay join < FILE")
		case (*host == "") != (*port == ""):
			return usageError("join takes --host and --port together")
		}
		var forward *firstForward
		var err error
		if *host != "" {
			if forward, err = newForward(*host, *port); err != nil {
				return usageError(err.Error())
			}
		}
		if err := needRoot(); err != nil {
			return err
		}
		return a.joinBy(*yes, *replace, forward)
	}
}

// firstForward is the server that join opens a port for.
type firstForward struct{ host, proto, ports string }

func newForward(host, port string) (*firstForward, error) {
	addr, err := netip.ParseAddr(host)
	if err != nil || !addr.Is4() {
		return nil, message.New("--host %q: allowed is the IPv4 address of one host in the home network", host)
	}
	proto, ports, found := strings.Cut(port, ":")
	if !found || proto == "" || ports == "" {
		return nil, message.New("--port %q: allowed is protocol:port or protocol:first-last, such as tcp:443", port)
	}
	return &firstForward{host, proto, ports}, nil
}

// joining is a home that is being paired.
type joining struct {
	*app
	invite.Invitation
	vps     pairing.VPS
	forward *firstForward // may be nil
	peer    string        // option peeraddr
	others  []string      // relays to other VPSs that have the public address by turns
}

// newJoining reads an invitation.
func (a *app) newJoining(text string) (*joining, error) {
	i, err := invite.Decode(text, time.Now())
	if err != nil {
		return nil, err
	}
	vps := pairing.VPS{Version: 1, Hosts: i.Hosts, Port: i.SSHPort, HostKey: i.HostKey}
	j := &joining{app: a, Invitation: i, vps: vps, peer: i.Hosts[0]}
	return j, j.place()
}

// place gives the relay of one of several VPSs its name here: both may say "home".
func (j *joining) place() error {
	if !j.Standby {
		return nil
	}
	_, file, err := j.parsed()
	if err != nil {
		return err
	}
	list := present(file.Sections)
	name := j.Relay
	for n := 2; j.taken(list, name); n++ {
		name = j.Relay[:min(len(j.Relay), maxBase)] + strconv.Itoa(n)
	}
	j.Relay = name
	for i := range list {
		if s := &list[i]; s.Name != name && j.sameAddress(list, s) {
			j.others = append(j.others, s.Name)
		}
	}
	return nil
}

// maxBase leaves place for a number in the name of a relay.
const maxBase = 8

// taken reports whether the invitation's relay cannot have a name, because a relay to another VPS of its public address
// has it. A number makes another name, which nothing else may have.
func (j *joining) taken(list present, name string) bool {
	s := list.section(name)
	if s == nil || !j.sameAddress(list, s) {
		return s != nil && name != j.Relay
	}
	if vps, err := j.pairings.VPS(name); err == nil && j.pairings.Paired(name) && bytes.Equal(vps.HostKey, j.HostKey) {
		return false
	}
	return !slices.Contains(j.Hosts, valueOf(s, "peeraddr"))
}

// sameAddress reports whether a section is a relay of this home to a VPS with the invitation's public address.
func (j *joining) sameAddress(list present, s *uci.Section) bool {
	return s.Type == "relay" && valueOf(s, "ipaddr") == j.IPAddr.String() && !list.example(s.Name) &&
		cmp.Or(config.Role(valueOf(s, "role")), here().DefaultRole()) == config.Router
}

func (a *app) joinBy(yes, replace bool, forward *firstForward) error {
	terminal := isTerminal(a.input)
	in := a.input
	j, err := a.readInvitation(in, terminal)
	if err != nil {
		return usageError(err.Error())
	}
	fmt.Fprintf(a.stdout, "relay %s: %s by the VPS at %s\nits ssh host key: %s\n", j.Relay, j.IPAddr,
		strings.Join(j.vps.Hosts, ", "), j.vps.Fingerprint())
	j.forward = forward
	if len(j.others) > 0 {
		fmt.Fprintf(a.stdout, "the VPS of relay %s has this address, too, by turns: the forwards are for both\n",
			strings.Join(j.others, ", "))
	}
	former, err := j.replaces()
	switch {
	case err != nil:
		return err
	case former != "" && yes && !replace:
		return usageError(errReplaces(j.Relay, former).Error())
	case !yes:
		if !terminal { // it has the invitation
			file, err := os.Open("/dev/tty")
			if err != nil {
				return usageError("there is nobody to ask whether this is the right VPS; to take it: ds4relay join --yes")
			}
			defer file.Close()
			in = file
		}
		question := "Is this your VPS, and is this home to be joined to it? (y/N) "
		if former != "" {
			question = fmt.Sprintf("Relay %s is with another VPS now: %s\nIs the one of the invitation yours, and is it "+
				"to take the place of that one? (y/N) ", j.Relay, former)
		}
		if !a.agreed(in, question) {
			return message.New("nothing was changed")
		}
		if err := j.askForward(in); err != nil {
			return err
		}
	}
	if err := j.enrol(joinTime); err != nil {
		return err
	}
	if err := a.startUp(a); err != nil {
		return message.New("this home is joined to the VPS, but %v", err)
	}
	if err := j.pushed(); err != nil {
		return err
	}
	err = a.examine([]string{j.Relay}, false)
	if c, _, bad := config.Load(a.path, a.defaults()); bad == nil && len(c.Relay(j.Relay).Forwards) == 0 {
		fmt.Fprintf(a.stdout, "\nNo port is open yet: add a section `config forward` for relay %s to %s, then run: "+
			"ds4relay reload\n", j.Relay, a.path)
	}
	return err
}

// replaces is the VPS that the relay has now, if it is another one than the invitation's; "" for none. The package's
// example is none.
func (j *joining) replaces() (string, error) {
	_, file, err := j.parsed()
	if err != nil {
		return "", err
	}
	list := present(file.Sections)
	former := list.value(j.Relay, "ipaddr")
	if former == "" || list.example(j.Relay) {
		return "", nil
	}
	same := former == j.IPAddr.String()
	if role := config.Role(list.value(j.Relay, "role")); same && cmp.Or(role, here().DefaultRole()) == config.VPS {
		return "", message.New("%s: relay %q is a VPS's end (option role 'vps'), with the address of the invitation: if "+
			"this machine is that VPS, run join at home; if it is the home, write option role 'router' first", j.path, j.Relay)
	}
	if vps, err := j.pairings.VPS(j.Relay); err == nil && j.pairings.Paired(j.Relay) {
		same = same && bytes.Equal(vps.HostKey, j.HostKey)
		former += ", ssh host key " + vps.Fingerprint()
	}
	if same {
		return "", nil
	}
	return former, nil
}

func errReplaces(relay, former string) error {
	return message.New("relay %q is with another VPS now: %s; to put this one in its place: ds4relay join --yes "+
		"--replace; to have both, let this one invite the home for a relay of another name: ds4relay setup --relay NAME",
		relay, former)
}

// joinTime limits how long the VPS may take to answer on the command line, where a person waits: a small router and a
// small VPS need some seconds for keys and the tunnel.
const joinTime = time.Minute

// inviting is what a form shows of an invitation, before anything is done.
type inviting struct {
	Version     int      `json:"version"` // message.AnswersVersion
	Relay       string   `json:"relay"`
	Hosts       []string `json:"hosts"`
	Fingerprint string   `json:"fingerprint"`
	Transport   string   `json:"transport"`
	IPAddr      string   `json:"ipaddr"`
	Expires     int64    `json:"expires"` // Unix time, in seconds
}

func (j *joining) shown() inviting {
	return inviting{message.AnswersVersion, j.Relay, j.vps.Hosts, j.vps.Fingerprint(), j.Transport, j.IPAddr.String(),
		j.Expires.Unix()}
}

// pageLimit is how long the VPS may take where a form waits: LuCI waits for 20 seconds, also for the service's start.
const pageLimit = 12 * time.Second

// joinFromPage is join for a form, which has shown the VPS and asks for the forward afterwards. The status says what
// becomes of the push.
func (a *app) joinFromPage(text string) (any, error) {
	j, err := a.newJoining(text)
	if err != nil {
		return nil, err
	}
	former, err := j.replaces()
	if err == nil && former != "" {
		err = errReplaces(j.Relay, former)
	}
	if err == nil {
		err = j.enrol(pageLimit)
	}
	if err != nil {
		return nil, err
	}
	if err := a.startUp(a); err != nil {
		return nil, message.New("this home is joined to the VPS, but %v", err)
	}
	return j.shown(), nil
}

// readInvitation reads an invitation, from a terminal up to the line that makes it complete.
func (a *app) readInvitation(in io.Reader, terminal bool) (*joining, error) {
	if !terminal {
		text, err := io.ReadAll(io.LimitReader(in, maxInvitation))
		if err != nil {
			return nil, err
		}
		return a.newJoining(string(text))
	}
	fmt.Fprint(a.stdout, "Paste the invitation that `ds4relay setup` or `ds4relay invite` has printed on the VPS:\n")
	text := ""
	for {
		line, err := readLine(in)
		text += line
		j, bad := a.newJoining(text)
		if j != nil || err != nil || strings.TrimSpace(line) == "" || len(text) > maxInvitation {
			return j, bad
		}
	}
}

// readLine reads a line with its end, and not what follows it.
func readLine(in io.Reader) (line string, err error) {
	one := []byte{0}
	for one[0] != '\n' && len(line) < maxInvitation {
		if _, err = io.ReadFull(in, one); err != nil {
			break
		}
		line += string(one)
	}
	return line, err
}

// maxInvitation limits what is read of an invitation, in bytes.
const maxInvitation = 16 << 10

func isTerminal(in io.Reader) bool {
	file, ok := in.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

func (a *app) question(in io.Reader, text string) string {
	fmt.Fprint(a.stdout, text)
	line, _ := readLine(in)
	return strings.TrimSpace(line)
}

// agreed asks whether something is to be done.
func (a *app) agreed(in io.Reader, text string) bool {
	answer := strings.ToLower(a.question(in, text))
	return answer == "y" || answer == "yes"
}

func (j *joining) askForward(in io.Reader) (err error) {
	if j.forward != nil || len(j.others) > 0 {
		return nil
	}
	host := j.question(in, "The server at home, such as 192.168.1.210 (empty: later): ")
	if host != "" {
		j.forward, err = newForward(host, j.question(in, "What to open for it, such as tcp:443: "))
	}
	return err
}

// enrol gives this home's keys to the VPS and writes the configuration. If the VPS does not take them, only they stay,
// for the next try: what has not come to an end here may have done so there.
func (j *joining) enrol(limit time.Duration) error {
	former, text, err := j.edited()
	if err == nil { // what is wrong here is found before the invitation is used up
		err = j.ableTo()
	}
	if err != nil {
		return err
	}
	public := ""
	if j.Transport == string(config.WireGuard) {
		if public, err = j.makeSecret(); err != nil {
			return err
		}
	}
	path, ssh, err := j.pairings.MakeKey(j.Relay)
	if err != nil {
		return err
	}
	input, _ := json.Marshal(map[string]any{"version": 1, "ssh": ssh, "public_key": public})
	key := j.Key
	session := pairing.Session{VPS: j.vps, OneTime: &key, Input: string(input), Run: j.run, Limit: limit}
	answer, err := j.session(&session)
	if errors.Is(err, pairing.ErrHostKey) || errors.Is(err, pairing.ErrDenied) {
		return message.New("the VPS has not taken this home: %v", err)
	}
	var problems []kernel.PushProblem
	if err == nil {
		problems, err = pairing.Read(answer, nil)
	}
	if err != nil {
		return message.New("the VPS has not said that it has taken this home: %v; try again with the same invitation", err)
	}
	if len(problems) > 0 {
		return message.New("the VPS has not taken this home: %v", problems[0].Reason())
	}
	if j.Transport == string(config.WireGuard) && session.Answered != "" {
		j.peer = session.Answered // this home can reach it there
		if former, text, err = j.edited(); err != nil {
			return err
		}
	}
	// What another VPS has taken, or this one before, is not what it has now.
	unlock, err := (&kernel.Kernel{Run: j.run}).LockPush(true)
	if err != nil {
		return err
	}
	defer unlock()
	if err := errors.Join(j.pairings.Keep(j.Relay, j.vps, path), j.kernel().ForgetPush(j.Relay)); err != nil {
		return err
	}
	return uci.Save(j.path, former, text)
}

// ableTo fails if this machine's kernel cannot make the tunnel.
func (j *joining) ableTo() error {
	module := doctor.ModuleIPIP6
	if j.Transport == string(config.WireGuard) {
		module = doctor.ModuleWireGuard
	}
	s := j.examined().System()
	if f := s.Lacks(module); f != nil {
		return message.New("%v: %v", f.Codes.Evidence, f.Codes.Remedy)
	}
	return nil
}

// makeSecret makes this end's key for wireguard, unless there is one, and returns the public half.
func (j *joining) makeSecret() (string, error) {
	path, err := j.keyFile("genkey", []string{j.Relay})
	if err != nil {
		return "", err
	}
	secret, err := kernel.ReadPrivate(path, j.Relay)
	if errors.Is(err, os.ErrNotExist) || err != nil && !exists(path) {
		if secret, err = newSecret(); err == nil {
			secret = secret.Clamp()
			err = writeSecret(path, secret)
		}
	}
	return secret.Public().String(), err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// parsed is the configuration as it is.
func (j *joining) parsed() (text []byte, file *uci.File, err error) {
	text, err = os.ReadFile(j.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, err
	}
	if file, err = uci.Parse(j.path, text); err != nil {
		_, _, err = config.Parse(j.path, text, j.defaults()) // lists the mistakes
	}
	return text, file, err
}

// edited returns the configuration before and after joining. What it has of other relays stays.
func (j *joining) edited() (former, text []byte, err error) {
	former, file, err := j.parsed()
	if err != nil {
		return nil, nil, err
	}
	if text, err = uci.Edit(former, j.changes(file.Sections)...); err != nil {
		return nil, nil, err
	}
	_, _, err = config.Parse(j.path, text, j.defaults())
	return former, text, err
}

// The package's example, which a relay takes the place of.
const (
	exampleRelay   = "home"
	exampleAddress = "198.51.100.144"
	exampleForward = "web"
	exampleHost    = "192.168.1.210"
)

// present are the sections of a file.
type present []uci.Section

// section returns the section of that name, nil for none.
func (list present) section(name string) *uci.Section {
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}

func (list present) has(name string) bool { return list.section(name) != nil }

// value is that of an option of the section of that name, "" for none.
func (list present) value(name, option string) string {
	if s := list.section(name); s != nil {
		return valueOf(s, option)
	}
	return ""
}

func valueOf(s *uci.Section, option string) string {
	for i := range s.Options {
		if o := &s.Options[i]; o.Name == option && len(o.Values) > 0 {
			return o.Values[0].Text
		}
	}
	return ""
}

// example reports whether a relay is that of the package, which nobody has switched on.
func (list present) example(relay string) bool {
	return relay == exampleRelay && list.value(relay, "enabled") == "0" && list.value(relay, "ipaddr") == exampleAddress
}

// changes are those that make the relay of the invitation.
func (j *joining) changes(list present) (changes []uci.Change) {
	r := j.Relay
	set := func(option, text string) {
		if text == "" {
			changes = append(changes, uci.Delete(r, option))
		} else if list.value(r, option) != text {
			changes = append(changes, uci.Set(r, option, text))
		}
	}
	added := !list.has(r) || list.example(r)
	if added {
		changes = append(list.share(r, j.others), uci.AddSection("relay", r))
	}
	if list.example(exampleRelay) {
		web := list.value(exampleForward, "dest_ip") == exampleHost
		if web {
			changes = append(changes, uci.DeleteSection(exampleForward))
		}
		used := false
		for i := range list {
			used = used || valueOf(&list[i], "relay") == exampleRelay && !(web && list[i].Name == exampleForward)
		}
		if r == exampleRelay {
			set("ip6addr", "")
		} else if !used {
			changes = append(changes, uci.DeleteSection(exampleRelay))
		}
	}
	set("enabled", "")
	if here().DefaultRole() != config.Router || list.value(r, "role") != "" {
		set("role", string(config.Router))
	}
	set("ipaddr", j.IPAddr.String())
	set("peeraddr", j.peer)
	carrier, public, port := "", "", ""
	if j.Transport == string(config.WireGuard) {
		carrier, public = j.Transport, j.PublicKey
		if port = strconv.Itoa(int(cmp.Or(j.Port, transport.DefaultPort))); port == strconv.Itoa(transport.DefaultPort) {
			port = ""
		}
	}
	set("transport", carrier)
	set("public_key", public)
	set("endpoint_port", port)
	if added {
		set("ip4table", list.freeTable())
		changes = append(changes, list.standIn(r, j.others)...)
	}
	if j.forward == nil {
		return changes
	}
	name := "server"
	for i := 2; list.has(name); i++ {
		name = "server" + strconv.Itoa(i)
	}
	changes = lead(append(changes, uci.AddSection("forward", name)), name, append(j.others, r))
	return append(changes,
		uci.Set(name, "proto", j.forward.proto), uci.Set(name, "src_dport", j.forward.ports),
		uci.Set(name, "dest_ip", j.forward.host))
}

// freeTable returns the routing table for one more relay; "" for the default.
func (list present) freeTable() string {
	const first, last = 42, 252
	n := first
	for i := 0; i < len(list) && n < last; i++ {
		s := &list[i]
		if s.Type != "relay" || list.example(s.Name) {
			continue
		}
		taken, _ := strconv.Atoi(cmp.Or(valueOf(s, "ip4table"), "42"))
		if (taken-n)%255 == 0 { // the connection mark repeats every 255 tables
			n, i = n+1, -1
		}
	}
	if n == first {
		return ""
	}
	return strconv.Itoa(n)
}

// share lets forwards name their relay, which they need not while there is only one, and gives those of the others to
// the relay r, too.
func (list present) share(r string, others []string) (changes []uci.Change) {
	var only []string // the relay of forwards that name none
	for i := range list {
		if s := &list[i]; s.Type == "relay" && s.Name != r && !list.example(s.Name) {
			only = append(only, s.Name)
		}
	}
	n := -1
	for i := range list {
		s := &list[i]
		if s.Type != "forward" {
			continue
		}
		n++
		section := s.Name
		if s.Anonymous {
			section = "@forward[" + strconv.Itoa(n) + "]"
		}
		relays := relaysOf(s)
		named := len(relays)
		if named == 0 && len(only) == 1 {
			relays = only
		}
		for _, other := range others {
			if slices.Contains(relays, other) {
				relays = append(relays, r)
				break
			}
		}
		if len(relays) != named {
			changes = lead(changes, section, relays)
		}
	}
	return changes
}

// standIn makes the relay r the backup of the others where hosts open connections through these.
func (list present) standIn(r string, others []string) (changes []uci.Change) {
	if len(others) == 0 {
		return nil
	}
	last := others[len(others)-1]
	all := list.value(last, "egress") == string(config.All)
	if all {
		changes = append(changes, uci.Set(r, "egress", string(config.All)))
	}
	if strict := list.value(last, "killswitch"); strict != "" {
		changes = append(changes, uci.Set(r, "killswitch", strict))
	}
	for i := range list {
		if s := &list[i]; s.Type == "forward" && valueOf(s, "egress") == string(config.All) {
			relays := relaysOf(s)
			all = all || relays == nil || slices.Contains(relays, last)
		}
	}
	if all && list.value(last, "backup") == "" {
		changes = append(changes, uci.Set(last, "backup", r))
	}
	return changes
}

// lead adds the changes that make a forward one of these relays.
func lead(changes []uci.Change, section string, relays []string) []uci.Change {
	change := uci.Set
	if len(relays) > 1 {
		changes, change = append(changes, uci.Delete(section, "relay")), uci.AddList
	}
	for _, relay := range relays {
		changes = append(changes, change(section, "relay", relay))
	}
	return changes
}

// relaysOf returns the relays that a forward names, as a list or in one option.
func relaysOf(s *uci.Section) (names []string) {
	for i := range s.Options {
		if o := &s.Options[i]; o.Name == "relay" {
			for _, value := range o.Values {
				names = append(names, strings.Fields(value.Text)...)
			}
		}
	}
	return names
}

// startService starts the service now and at each boot, or lets it read its configuration again.
func (a *app) startService() error {
	if here().Name() == platform.OpenWrtName {
		return errors.Join(openwrt.Control("enable", openwrt.ShellTime), openwrt.Control("start", openwrt.ShellTime))
	}
	if !exists("/run/systemd/system") {
		return a.bringUp(nil, false, false)
	}
	for _, args := range [][]string{{"enable", "--now", "ds4relay"}, {"reload", "ds4relay"}} {
		_, said, err := program.Command{Name: "systemctl", Args: args, Limit: reloadTime}.Run()
		if err != nil {
			return message.New("systemctl %s: %v %s", strings.Join(args, " "), err, said)
		}
	}
	return nil
}

// pushTime is how long join tries to tell the VPS what this home wants: the VPS takes a new address once a minute.
const pushTime = 80 * time.Second

// pushed waits until the VPS knows this home's forwards and its endpoint.
func (j *joining) pushed() error {
	for end := time.Now().Add(pushTime); ; time.Sleep(5 * time.Second) {
		if err := j.pushAll(true, joinTime); err != nil {
			return err
		}
		last := j.kernel().Pushed(j.Relay)
		switch {
		case last == nil: // the relay is not up: the checks say why
			return nil
		case last.State == kernel.PushOK:
			plain.Mark(j.stdout, plain.Good, "the VPS knows what this home wants\n")
			return nil
		case last.Code == pairing.ErrDenied.Code, last.State == kernel.PushRefused, time.Now().After(end):
			return untold(last)
		}
	}
}

// untold says that the home is joined, and why the VPS does not know what it wants.
func untold(last *kernel.Push) error {
	lines := "this home is joined to the VPS, but the VPS does not know its forwards yet: " + last.Text
	for i := range last.Problems {
		lines += "\n" + last.Problems[i].Error()
	}
	if last.State == kernel.PushFailed {
		lines += "\nIt is told again every minute: ds4relay status says how that ends."
	}
	return errors.New(lines)
}
