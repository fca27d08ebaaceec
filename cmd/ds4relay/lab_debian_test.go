//go:build lab && debian

package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/lab"
	"github.com/ds4relay/ds4relay/internal/lab/remote"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// server is an end on its own virtual machine: a Debian with systemd.
type server struct{ t *testing.T }

// do runs a bash command there, which must succeed, and returns its output.
func (s server) do(command string) string {
	s.t.Helper()
	status, out := s.try(command)
	if status != 0 {
		s.t.Fatalf("on Debian: %s\nexit status %d\n%s", command, status, out)
	}
	return out
}

func (s server) try(command string) (status int, out string) {
	s.t.Helper()
	answer, err := remote.Run("", "bash", "-c", command)
	if err != nil {
		s.t.Fatalf("on Debian: %s: %v", command, err)
	}
	return answer.Status, answer.Output
}

func (s server) write(path, text string) {
	s.t.Helper()
	answer, err := remote.Run(base64.StdEncoding.EncodeToString([]byte(text)), "bash", "-c", "base64 -d >"+path)
	if err != nil || answer.Status != 0 {
		s.t.Fatalf("write %s on Debian: %v %s", path, err, answer.Output)
	}
}

// boots waits until the machine is up (after another boot than former), and returns the boot's number.
func (s server) boots(former string) string {
	s.t.Helper()
	for deadline := time.Now().Add(6 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		answer, err := remote.Within(5*time.Second, "", "cat", "/proc/sys/kernel/random/boot_id")
		boot := strings.TrimSpace(answer.Output)
		// A machine that is stopping ends commands too.
		if err == nil && answer.Status == 0 && boot != former {
			s.try("systemctl is-system-running --wait")
			return boot
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("Debian does not boot: %v %s", err, answer.Output)
		}
	}
}

// reboot restarts the machine, and returns systemd's state afterwards: running or degraded.
func (s server) reboot() string {
	s.t.Helper()
	former := strings.TrimSpace(s.do("cat /proc/sys/kernel/random/boot_id"))
	s.do("systemd-run -q --on-active=0.2 systemctl reboot") // after the answer was sent
	s.boots(former)
	_, state := s.try("systemctl is-system-running")
	return strings.TrimSpace(state)
}

// settings lists everything that the package and its relays could leave behind, in the kernel and in files. The copies
// of /etc/passwd and the like (passwd-) are what they were before the last user was added or removed.
const settings = `while ip -6 addr show dev ens3 | grep -q tentative || ! ip -6 route show default | grep -q ens3; do
	sleep 0.2
done
ip -o link | sed 's/^[0-9]*: //; s/permaddr .*//' | sort; ip -o addr show ens3 | sed 's/^[0-9]*: //'
ip route show table all | sort; ip -6 route show table all | sort; ip rule; nft list ruleset
sysctl -a -r '^net.ipv[46].conf.*(forwarding|rp_filter|src_valid_mark|proxy)'
systemctl list-unit-files --no-legend --no-pager; ls -A /run/ds4relay /run/network 2>&1
find / -xdev \( -path /var/log -o -path /var/cache -o -path /var/lib/dpkg -o -path /var/lib/apt \
	-o -path /var/lib/systemd -o -path /root -o -path /tmp -o -path /var/tmp \) -prune -o -printf '%p %m %u %l\n' | sort
find /etc -xdev -type f ! -name '*-' -exec md5sum {} + | sort -k 2`

const debianRelay = `config relay 'home'
	option role 'vps'
	option ipaddr '198.51.100.144'
	option ip6addr '2001:db8:6ef9::/64'
	option peeraddr '2001:db8:fdd2::/64'
	option device 'wrap1'
	list keep 'tcp:22'
	list keep 'tcp:7'
`

// debianRelayLab is a relay with one end on a Debian machine with the package, and the other in namespaces.
type debianRelayLab struct {
	*lab.Net
	server
	other *end
	story *testing.T
}

// newDebian has the VPS on Debian.
func newDebian(t *testing.T, forwards string) *debianRelayLab {
	t.Helper()
	d := newDebianLab(t, lab.Options{VPSVM: true})
	d.other = newEnd(t, d.Router, routerRelay+forwards)
	d.other.do("up")
	serveTCP(t, d.Host, 80)
	serveUDP(t, d.Host, 5000)
	serveTCP(t, d.Client, 90)
	return d
}

func newDebianLab(t *testing.T, options lab.Options) *debianRelayLab {
	t.Helper()
	n, err := lab.New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	d := &debianRelayLab{Net: n, server: server{t}, story: t}
	d.boots("")
	t.Logf("Debian %s", strings.Join(strings.Fields(d.do("cat /etc/debian_version; uname -r")), ", "))
	return d
}

// chapter is a part of a longer test with its own time. Later chapters depend on it.
func (d *debianRelayLab) chapter(t *testing.T, name string, tell func(t *testing.T)) {
	t.Helper()
	ok := t.Run(name, func(t *testing.T) {
		d.server.t, d.other.t = t, t
		defer func() { d.server.t, d.other.t = d.story, d.story }()
		tell(t)
	})
	if !ok {
		t.FailNow()
	}
}

// put copies a package to the VPS.
func (d *debianRelayLab) put(variable, path string) {
	d.t.Helper()
	data, err := os.ReadFile(os.Getenv(variable))
	if err != nil {
		d.t.Fatalf("%s: %v", variable, err)
	}
	d.server.write(path, string(data))
}

// streams opens connections that send and receive all the time; end stops them, and fails the test if one was lost.
func (d *debianRelayLab) streams(n int) (end func(when string)) {
	d.t.Helper()
	stop, lost := make(chan struct{}), make(chan error, n)
	for range n {
		conn := open(d.t, d.Client, public+":80")
		go func() {
			buffer := make([]byte, 1000)
			for {
				select {
				case <-stop:
					lost <- nil
					return
				case <-time.After(50 * time.Millisecond):
				}
				conn.SetDeadline(time.Now().Add(time.Minute))
				if _, err := conn.Write(buffer); err != nil {
					lost <- err
					return
				}
				if _, err := io.ReadFull(conn, buffer); err != nil {
					lost <- err
					return
				}
			}
		}()
	}
	return func(when string) {
		d.t.Helper()
		close(stop)
		for range n {
			if err := <-lost; err != nil {
				d.t.Errorf("a stream %s: %v", when, err)
			}
		}
	}
}

// settles waits until status reports no difference.
func (d *debianRelayLab) settles() {
	d.t.Helper()
	if !d.comes("ds4relay status") {
		d.do("journalctl --no-pager -n 100 -o short-precise -u 'ds4relay*' -u systemd-networkd -u NetworkManager; " +
			"ds4relay status")
	}
}

// comes waits until a command succeeds, for a minute at most. Each try is a command of its own: on a busy machine that
// emulates its processor, a loop of them would take longer than one command may.
func (d *debianRelayLab) comes(command string) bool {
	d.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(500 * time.Millisecond) {
		if status, _ := d.try(command); status == 0 {
			return true
		} else if time.Now().After(end) {
			return false
		}
	}
}

// waits is comes for what has to come.
func (d *debianRelayLab) waits(command string) {
	d.t.Helper()
	if !d.comes(command) {
		d.do(command)
	}
}

// comesBack runs a command that takes away what the relay needs, and waits until all is back. The watcher begins anew,
// so that this is its first repair.
func (d *debianRelayLab) comesBack(command string) {
	d.t.Helper()
	d.do("systemctl restart ds4relay-watch && " + command)
	d.settles()
}

// unwatched is a time without the watcher, until the returned function is called.
func (d *debianRelayLab) unwatched() (end func()) {
	d.t.Helper()
	// One by one: in one call systemd stops the service first, and the path may start it again.
	d.do("systemctl stop ds4relay-watch.path; systemctl stop ds4relay-watch.service")
	return func() {
		d.t.Helper()
		d.do("systemctl start ds4relay-watch.path")
		d.settles()
	}
}

// works checks the forwards from the client (TCP, UDP and ping), and the internet from the home's server.
func (d *debianRelayLab) works(when string) {
	d.t.Helper()
	if d.t.Failed() {
		return
	}
	defer func() {
		if d.t.Failed() {
			d.t.Errorf("that was %s", when)
		}
	}()
	seenTCP(d.t, d.Client, public+":80", client4)
	seenUDP(d.t, d.Client, public+":5000", client4, 1400)
	pings(d.t, d.Client, public)
	seenTCP(d.t, d.Host, client4+":90", public)
}

const networkdFile = `[Match]
Name=ens3

[Network]
Address=198.51.100.144/24
Address=2001:db8:6ef9::1/64
Gateway=198.51.100.1
Gateway=2001:db8:6ef9::ff
IPv6AcceptRA=no
`

// ifupdownNG brings the relay up and down with ifupdown-ng, which is installed next to ifupdown.
func (d *debianRelayLab) ifupdownNG(t *testing.T) {
	if status, _ := d.try("test -d /opt/ifupdown-ng"); status != 0 {
		t.Log("this release has no ifupdown-ng")
		return
	}
	const options = " -i /root/ng -S /root/ng.state wrap1"
	d.do("systemctl stop ds4relay; cp -n /opt/ifupdown-ng/usr/libexec/ifupdown-ng/* /usr/libexec/ifupdown-ng; ln -s " +
		"$(find /opt/ifupdown-ng -path '*sbin/ifupdown') /root/ifup; ln -s ifup /root/ifdown || true")
	stanza := "auto wrap1\niface wrap1 inet manual\n\tds4relay home\n\tuse ds4relay\n\niface ens3 inet " +
		"static\n\taddress " + public + "/24\n\tgateway 198.51.100.1\n"
	d.server.write("/root/ng", strings.Replace(stanza, "home", "hom", 1))
	if status, out := d.try("/root/ifup" + options + " 2>&1"); status == 0 || !strings.Contains(out, "unknown relay") {
		t.Errorf("ifupdown-ng with an unknown relay: exit status %d, %s", status, out)
	}
	d.server.write("/root/ng", stanza)
	d.do("cp /etc/network/interfaces /root/interfaces; cp /root/ng /etc/network/interfaces; ip -4 addr flush dev " +
		"ens3; /root/ifup" + options)
	d.works("with ifupdown-ng, which has brought up the device first")
	d.do("/root/ifdown" + options + "; ! ip link show wrap1")
	d.do("cp /root/interfaces /etc/network/interfaces; ls /usr/libexec/ifupdown-ng/* | grep -v /ds4relay$ | xargs " +
		"rm; ip -4 addr flush dev ens3; ifdown --force ens3; ifup ens3; systemctl start ds4relay")
}

// movesOver sets up the old lines of docs/moving-over.md, and follows that page until they are gone.
func (d *debianRelayLab) movesOver(t *testing.T) {
	page, err := os.ReadFile("../../docs/moving-over.md")
	if err != nil {
		t.Fatal(err)
	}
	const first = "    auto ds4-home\n"
	_, lines, found := strings.Cut(string(page), "\n"+first)
	if !found {
		t.Fatalf("the page has no stanza that begins with %q", first)
	}
	lines, _, _ = strings.Cut(first+lines, "\n\n")
	d.server.write("/etc/network/interfaces.d/wrap1",
		strings.NewReplacer("eth0", "ens3", "443", "80", "ds4-home", "wrap1").Replace(lines)+"\n")
	// The hand-made endpoint is tentative for a second or two (duplicate address detection); until then the tunnel has
	// no route.
	d.do("sysctl -qw net.ipv4.ip_forward=1; ifup wrap1")
	d.waits("! ip -6 address show dev ens3 tentative | grep -q inet6")
	seenTCP(t, d.Client, public+":80", client4)
	out := d.do("ds4relay check 2>&1 || exit 0") // the tunnel's name is taken
	for i, line := range strings.Split(lines, "\n") {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "pre-up") || strings.HasPrefix(line, "up") ||
			strings.HasPrefix(line, "down") {
			if where := fmt.Sprintf("/etc/network/interfaces.d/wrap1:%d: ", i+1); !strings.Contains(out, where) {
				t.Errorf("check does not name %s%s: %s", where, line, out)
			}
		}
	}
	d.do("ifdown wrap1; iptables -t nat -F; sysctl -qw net.ipv4.ip_forward=0; nft delete table ip nat; rm " +
		"/etc/network/interfaces.d/wrap1; ip -6 addr del 2001:db8:6ef9:0:198:51:100:144/128 dev ens3; ds4relay check")
}

// watches takes the other end's address from a DNS name, which changes later.
func (d *debianRelayLab) watches(t *testing.T, forward string) {
	const home, elsewhere = "2001:db8:fdd2:0:198:51:100:144", "2001:db8:fdd2:0:198:51:100:145"
	d.do("cp -p /etc/hosts /root/hosts; cp -p /etc/config/ds4relay /root/relays; echo '" + home +
		" home.example.org' >>/etc/hosts")
	d.server.write("/etc/config/ds4relay", strings.Replace(debianRelay, "2001:db8:fdd2::/64", "home.example.org", 1)+
		forward)
	d.do("systemctl reload ds4relay; systemctl is-active ds4relay-watch.service")
	d.works("with a name for the other end")
	for _, move := range [][2]string{{home, elsewhere}, {elsewhere, home}} {
		// The watcher does this once a minute.
		d.do("sed -i s/" + move[0] + "/" + move[1] + "/ /etc/hosts; ds4relay watch")
		if out := d.do("ip -6 tunnel show wrap1"); !strings.Contains(out, "remote "+move[1]+" ") {
			t.Errorf("the name leads to %s: %s", move[1], out)
		}
	}
	d.works("after the name has led elsewhere and back")
	d.do("mv /root/hosts /etc/hosts; mv /root/relays /etc/config/ds4relay; systemctl reload ds4relay; ds4relay status")
}

// docker starts Docker, which drops packets that it does not know: before the relay is up, and while it is.
func (d *debianRelayLab) docker(t *testing.T) {
	d.do("ifdown wrap1; systemctl start docker")
	if policy := d.do("iptables -S FORWARD"); !strings.HasPrefix(policy, "-P FORWARD DROP") {
		t.Errorf("Docker does not do what this is about: %s", policy)
	}
	d.do("ifup wrap1; ds4relay status")
	d.works("beside Docker")
	stream := open(t, d.Client, public+":80")
	d.comesBack("systemctl restart docker")
	alive(t, "the stream when Docker starts again", stream)
	d.works("after Docker has started again")
	// Its rules are deleted by hand: status says which one is missing.
	end := d.unwatched()
	d.do("iptables -D FORWARD -i wrap1 -m comment --comment ds4relay -j ACCEPT")
	if status, out := d.try("ds4relay status"); status != exitDiffers ||
		!strings.Contains(out, "iptables -w -I FORWARD -i wrap1") {
		t.Errorf("status without a rule beside Docker: exit status %d\n%s", status, out)
	}
	end()
	d.do("ifdown wrap1; systemctl stop docker docker.socket containerd; ip link del docker0; rm -rf /var/lib/docker " +
		"/var/lib/containerd /etc/docker/* /run/docker* /run/containerd /opt/containerd /etc/cni; for f in iptables " +
		"ip6tables; do $f -P FORWARD ACCEPT; $f -F; $f -X; $f -t nat -F; $f -t nat -X; done; ifup wrap1")
}

const networkManagerFile = `[connection]
id=ens3
type=ethernet
interface-name=ens3
[ipv4]
method=manual
address1=198.51.100.144/24,198.51.100.1
[ipv6]
method=manual
address1=2001:db8:6ef9::1/64,2001:db8:6ef9::ff
`

// networkManager gives the device to NetworkManager, which removes other programs' addresses whenever it sets it up.
// The unit runs.
func (d *debianRelayLab) networkManager() {
	d.do("ifdown ens3; mv /etc/network/interfaces /root/interfaces; systemctl stop networking")
	d.server.write("/etc/NetworkManager/system-connections/ens3.nmconnection", networkManagerFile)
	d.do("chmod 600 /etc/NetworkManager/system-connections/*; systemctl start NetworkManager")
	for _, command := range []string{"nmcli connection up ens3", "systemctl restart NetworkManager",
		"nmcli device reapply ens3"} {
		d.comesBack(command + "; sleep 3")
		d.works("after " + command)
	}
	d.do("nmcli -t -f DEVICE,STATE device; systemctl stop NetworkManager; rm -r " +
		"/etc/NetworkManager/system-connections/* /var/lib/NetworkManager/*; ip link set ens3 down; ip link set ens3 " +
		"addrgenmode eui64 up; ip addr flush dev ens3 scope global; mv /root/interfaces /etc/network/interfaces; " +
		"ifup --force ens3; systemctl start networking")
	d.settles()
}

// networkd gives the device to systemd-networkd, which removes other programs' addresses whenever it sets it up. ufw is
// on, also over the boot.
func (d *debianRelayLab) networkd(t *testing.T) {
	d.do("ifdown ens3; mv /etc/network/interfaces /root/interfaces; systemctl start systemd-networkd; systemctl stop " +
		"networking")
	d.server.write("/etc/systemd/network/20-ens3.network", networkdFile)
	for _, command := range []string{"networkctl reload; networkctl reconfigure ens3",
		"systemctl restart systemd-networkd"} {
		d.comesBack(command + "; sleep 3")
		d.works("after " + command)
	}
	if out := d.do("ds4relay check 2>&1"); strings.Contains(out, "networkd") {
		t.Errorf("networkd was told by the package: %s", out)
	}
	d.do("rm /etc/systemd/network/20-ens3.network; systemctl stop systemd-networkd.socket systemd-networkd; mv " +
		"/root/interfaces /etc/network/interfaces")
	if state := d.reboot(); state != "running" {
		t.Errorf("after a boot with the unit the system is %s", state)
	}
	d.settles()
	d.works("after a boot with the unit")
	d.ufwEnds(t)
}

// bus calls the D-Bus methods that everybody may call, and those for root.
func (d *debianRelayLab) bus(t *testing.T) {
	const call, nobody = "busctl call net.ds4relay /net/ds4relay net.ds4relay ", "setpriv --reuid 65534 --regid " +
		"65534 --clear-groups "
	known := strings.Join(strings.Fields(d.do("busctl introspect net.ds4relay /net/ds4relay net.ds4relay")), " ")
	for _, member := range []string{".Status method - s", ".Check method s s", ".Plan method - s", ".Export method s s",
		".Doctor method ss s", ".Reload method - s", ".Changed signal - -"} {
		if !strings.Contains(known, member) {
			t.Errorf("introspection lacks %s: %s", member, known)
		}
	}
	for command, want := range map[string]string{
		"Status":      `\"up\": true`,
		"Check s ''":  `\"ok\":true`,
		"Check s 'x'": `\"ok\":false`,
		"Plan":        `s ""`,
		"Export s ''": `option role \'router\'`,
	} {
		if out := d.do(nobody + call + command); !strings.Contains(out, want) {
			t.Errorf("%s as nobody: %s, want %s", command, out, want)
		}
	}
	for _, command := range []string{"Reload", "Announce", "Doctor ss '' ''"} {
		if status, out := d.try(nobody + call + command + " 2>&1"); status == 0 || !strings.Contains(out, "denied") {
			t.Errorf("%s as nobody: exit status %d, %s", command, status, out)
		}
	}
	for _, check := range []string{"'' ''", "tunnel home", "forward home", "host home", "answer home"} {
		if out := d.do(call + "Doctor ss " + check); !strings.Contains(out, `\"state\":\"ok\"`) &&
			!strings.Contains(out, `\"checks\"`) {
			t.Errorf("Doctor %s: %s", check, out)
		}
	}
	if status, out := d.try(call + "Export s cabin 2>&1"); status == 0 || !strings.Contains(out, "unknown relay") {
		t.Errorf("Export of an unknown relay: exit status %d, %s", status, out)
	}
	end := d.unwatched()
	defer end()
	d.do("ip link set wrap1 mtu 1400")
	if out := d.do("(timeout 20 stdbuf -oL busctl monitor --match " +
		"\"type='signal',sender='net.ds4relay',interface='net.ds4relay'\" >/tmp/seen 2>&1 &) ; sleep 1; " + call +
		"Reload; for i in $(seq 50); do grep -q Member=Changed /tmp/seen && break; sleep 0.2; done; cat /tmp/seen; " +
		"rm /tmp/seen"); !strings.Contains(out, "mtu 1460") || !strings.Contains(out, "Member=Changed") {
		t.Errorf("Reload, and the signal: %s", out)
	}
	// Without a bus everything else works.
	d.do("unshare --mount sh -c 'mount -t tmpfs none /run/dbus && ds4relay down && ds4relay up && ds4relay status'")
}

// TestDebian is the life of a VPS, from installation to purge: a user's commands, on the real programs.
func TestDebian(t *testing.T) {
	d := newDebian(t, forwardAll+"\toption egress 'all'\n")
	if state := strings.TrimSpace(d.do("systemctl is-system-running")); state != "running" {
		t.Fatalf("before anything the system is %s", state)
	}
	d.do("modprobe -a ip6_tunnel nf_conntrack nf_tables") // modules stay loaded, with their own devices and sysctls
	before := d.do(settings)
	d.put("DS4RELAY_DEB", "/root/ds4relay.deb")
	d.put("DS4RELAY_DEB_NEXT", "/root/next.deb")
	// What does not depend on the release is tested on one of them.
	older := os.Getenv(lab.DebianEnvironment) == "bookworm"

	d.chapter(t, "install", d.install)
	if older {
		d.chapter(t, "moving over", func(t *testing.T) {
			d.configure(debianRelay, "home")
			d.movesOver(t)
		})
	}
	if older {
		d.chapter(t, "ifupdown", d.ifupdown)
		d.chapter(t, "D-Bus", d.bus)
		d.chapter(t, "the device goes and comes", func(*testing.T) {
			d.do("ifdown ens3; ifup ens3")
			d.works("after the device went and came")
		})
		d.chapter(t, "nftables", d.nftables)
		d.chapter(t, "Docker", d.docker)
		d.chapter(t, "a boot", d.boot)
		d.chapter(t, "upgrade", d.upgrade)
	} else {
		d.chapter(t, "ifupdown", func(t *testing.T) {
			d.configure(debianRelay, "home")
			d.do("ifup wrap1")
			d.works("after ifup")
		})
		d.chapter(t, "whoever takes it away", d.whoever)
	}
	d.chapter(t, "systemd", func(*testing.T) {
		d.do("ifdown wrap1; rm /etc/network/interfaces.d/wrap1; systemctl enable --now ds4relay; " +
			"systemctl reload ds4relay")
		d.works("with the unit")
	})
	if older {
		d.chapter(t, "a name for the other end", func(t *testing.T) { d.watches(t, egressAll) })
		d.chapter(t, "NetworkManager", func(*testing.T) { d.networkManager() })
		d.chapter(t, "ifupdown-ng", d.ifupdownNG)
	} else {
		d.chapter(t, "metrics", d.metrics)
		d.chapter(t, "units", d.units) // a mistake in the file, which makes a run of metrics fail too
		d.chapter(t, "ufw", d.ufw)
		d.chapter(t, "networkd, and a boot", d.networkd)
		d.chapter(t, "a home that joins", d.joins)
	}
	d.chapter(t, "purge", func(t *testing.T) {
		// The second file is what a run leaves that is ended while it writes.
		d.do("cd /var/lib/prometheus/node-exporter && touch ds4relay.prom ds4relay.prom.new || true; " +
			"apt-get purge -y ds4relay")
		if _, _, err := askTCP(d.Client, public+":80"); err == nil {
			t.Error("the forward is there after the purge")
		}
		if out := d.do("nft list ruleset"); strings.Contains(out, "ds4relay") {
			t.Errorf("after the purge there are rules: %s", out)
		}
		// ufw and ifupdown keep these until the next boot.
		d.do("for family in ip ip6; do nft delete table $family filter || true; done; rm -f " +
			"/run/network/ifstate.wrap* /run/network/restart-hotplug")
		same(t, "the VPS after the purge", before, d.do(settings))
	})
}

// joins makes the machine a VPS by setup, and a home in namespaces joins it: by the package's own units.
func (d *debianRelayLab) joins(t *testing.T) {
	d.other.do("down")
	d.do("systemctl disable --now ds4relay; rm /etc/config/ds4relay; systemctl start ssh; systemctl is-active " +
		"ds4relay-receive.socket")
	if err := installed(); err != nil {
		t.Fatal(err)
	}
	home := newRoom(t, d.Router, ":")
	// The service for homes, in its sandbox, makes the first device of WireGuard: the kernel loads the module then.
	out := d.do("ds4relay setup --yes && systemctl is-enabled ds4relay && { modprobe -r wireguard || true; }")
	invitation := regexp.MustCompile(`ds4relay1\.\S+`).FindString(out)
	// A session may take longer than its 20 s on a busy machine that emulates its processor: then the home is told to try
	// again.
	for tries := 1; ; tries++ {
		status, out := home.try(t, "ds4relay join --yes --host "+home4+" --port tcp:80", invitation)
		if status == 0 {
			break
		}
		if tries == 5 || !strings.Contains(out, "try again with the same invitation") {
			t.Fatalf("join, try %d: exit status %d\n%s\n%s", tries, status, out, d.do("journalctl --no-pager -n 60"))
		}
	}
	seenTCP(t, d.Client, public+":80", client4)
	home.do(t, "cat >>/etc/config/ds4relay && ds4relay up", moreForward)
	home.opens(t, d.Client, public+":8080")
	home.pushes(t, "ok", "")
	// A package of another version keeps the pair.
	d.do("dpkg -i /root/ds4relay.deb; dpkg -i /root/next.deb; systemctl is-active ds4relay-receive.socket")
	seenTCP(t, d.Client, public+":8080", client4)
	home.do(t, "sed -i s/8080/8081/ /etc/config/ds4relay && ds4relay up", "")
	home.opens(t, d.Client, public+":8081")
	home.do(t, "sed -i s/8081/22/ /etc/config/ds4relay && ds4relay up", "")
	home.pushes(t, "refused", "src_dport")
	if log := d.do("journalctl --no-pager -u 'ds4relay-receive*'"); !strings.Contains(log, "a home has enrolled") ||
		strings.Contains(log, "Failed") {
		t.Errorf("the service for homes: %s", log)
	}
	d.do("ds4relay forget home; ds4relay status")
	home.try(t, "ds4relay watch", "")
	home.pushes(t, "failed", "does not accept this key")
	home.do(t, "ds4relay down", "")
	d.do("systemctl stop ssh; systemctl disable --now ds4relay; rm /etc/ds4relay/keys/home")
}

// egressAll are the forwards of the test.
const egressAll = forwardAll + "\toption egress 'all'\n"

// interfaces is a stanza of ifupdown for a relay, %.
const interfaces = "auto wrap1\niface wrap1 inet manual\n\tds4relay %\n"

// configure writes the relay's file, and a stanza with its name.
func (d *debianRelayLab) configure(relay, name string) {
	d.t.Helper()
	d.server.write("/etc/config/ds4relay", relay+egressAll)
	d.server.write("/etc/network/interfaces.d/wrap1", strings.Replace(interfaces, "%", name, 1))
}

// install takes the package from the project's repository over http, as README says. apt has no other one there.
func (d *debianRelayLab) install(t *testing.T) {
	site := os.Getenv("DS4RELAY_SITE")
	listener, err := d.Client.Listen("tcp4", client4+":80")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.FileServer(http.Dir(site)), ReadHeaderTimeout: time.Minute}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	sources, err := os.ReadFile(filepath.Join(site, "debian/ds4relay.sources"))
	if err != nil {
		t.Fatal(err)
	}
	d.do("cd /etc/apt && mkdir -p /root/apt && mv sources.list* /root/apt && mkdir sources.list.d")
	d.server.write("/etc/apt/sources.list.d/ds4relay.sources", regexp.MustCompile("(?m)^URIs: .*$").
		ReplaceAllString(string(sources), "URIs: http://"+client4+"/debian"))
	d.do("apt-get update && apt-get install -y ds4relay && cmp /var/cache/apt/archives/ds4relay_*.deb /root/ds4relay.deb")
	d.do("rm -r /etc/apt/sources.list* /var/lib/apt/lists/* && mv /root/apt/* /etc/apt")
	const completion = `. /usr/share/bash-completion/bash_completion; . /usr/share/bash-completion/completions/ds4relay
COMP_LINE='ds4relay up ' COMP_POINT=12 COMP_WORDS=(ds4relay up '') COMP_CWORD=2
_ds4relay ds4relay '' up; echo "${COMPREPLY[@]}"`
	if out := d.do(completion); strings.TrimSpace(out) != "home" {
		t.Errorf("completion of `ds4relay up `: %s", out)
	}
}

// ifupdown: ifup reports mistakes and fails; the device that carries the tunnel comes up first.
func (d *debianRelayLab) ifupdown(t *testing.T) {
	for _, c := range []struct{ relay, name, want string }{
		{debianRelay, "hom", `iface wrap1: ds4relay hom: unknown relay`},
		{strings.Replace(debianRelay, "'198.51.100.144'", "'198.51.100'", 1), "home",
			`/etc/config/ds4relay:3: relay "home": option ipaddr "198.51.100"`},
		{strings.Replace(debianRelay, "wrap1", "wrap2", 1), "home", "iface wrap1: ds4relay home: the tunnel of this " +
			"relay is wrap2"},
		{debianRelay + "\toption tunlink 'eth7'\n", "home", `there is no device eth7 (option tunlink)`},
	} {
		d.configure(c.relay, c.name)
		status, out := d.try("ifup wrap1 2>&1")
		if status == 0 || !strings.Contains(out, c.want) {
			t.Errorf("ifup with a mistake: exit status %d\n%s\nwant %s", status, out, c.want)
		}
		if _, state := d.try("ifquery --state wrap1"); state != "" {
			t.Errorf("wrap1 counts as up: %s", state)
		}
	}
	// The device that carries the tunnel comes up first, although its stanza comes later.
	d.configure(strings.Replace(debianRelay, "\toption device 'wrap1'\n", "", 1), "home") // the stanza says it
	d.do("ifdown ens3; ifup wrap1")
	d.works("after ifup")
	if out := d.do("ds4relay status"); !strings.Contains(out, "The kernel is as the configuration says.") {
		t.Errorf("status: %s", out)
	}
	if out := d.do("nft list table ip ds4relay_flows"); !strings.Contains(out, "flow add @established") {
		t.Errorf("the flowtable: %s", out)
	}
	d.configure(debianRelay, "home") // later there is no stanza
}

// nftables restarts and reloads nftables.service, which flushes every table, with a firewall that drops.
func (d *debianRelayLab) nftables(t *testing.T) {
	stream := open(t, d.Client, public+":80")
	for _, verb := range []string{"restart", "reload", "stop", "start"} {
		d.comesBack("systemctl " + verb + " nftables")
		alive(t, "the stream after systemctl "+verb+" nftables", stream)
		d.works("after systemctl " + verb + " nftables")
	}
	// If its file includes ours, our tables are never missing.
	d.do(`cp -p /etc/nftables.conf /root/nftables.conf; echo 'include "/run/ds4relay/*.nft"' >>/etc/nftables.conf`)
	end := d.streams(4)
	for range 3 {
		d.comesBack("systemctl reload nftables")
	}
	end("over a reload of nftables.conf with our tables in it")
	d.do("mv /root/nftables.conf /etc/nftables.conf")
	// A user's own firewall that drops: check says which rules are missing, and these rules are sufficient.
	const firewall = "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; policy " +
		"drop;\n\t\tiifname { lo, ctl } accept\n\t\tmeta l4proto ipv6-icmp accept\n\t\tct state established,related " +
		"accept\n\t}\n\tchain forward {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n"
	d.do("cp -p /etc/nftables.conf /root/nftables.conf")
	d.server.write("/etc/nftables.conf", "flush ruleset\n"+firewall)
	d.comesBack("systemctl restart nftables")
	out := d.do("ds4relay check 2>&1")
	for line := range strings.Lines(out) {
		if _, commands, found := strings.Cut(line, "or type: "); found {
			d.do(commands)
		}
	}
	if again := d.do("ds4relay check 2>&1"); !strings.Contains(out, "nft insert rule inet filter forward") ||
		strings.Contains(again, "nft insert") {
		t.Errorf("check before: %s\nafter: %s", out, again)
	}
	d.works("after what check says about a firewall")
	d.comesBack("systemctl stop nftables; mv /root/nftables.conf /etc/nftables.conf")
	alive(t, "the stream beside a firewall", stream)

}

// ufw drops unknown packets as soon as it is enabled, and after a boot, until ufwEnds.
func (d *debianRelayLab) ufw(t *testing.T) {
	stream := open(t, d.Client, public+":80")
	d.comesBack("mkdir /root/ufw && cp -p /etc/ufw/*.rules /etc/ufw/ufw.conf /root/ufw && ufw allow 7/tcp && ufw " +
		"--force enable")
	alive(t, "the stream after ufw enable", stream)
	d.works("after ufw enable")
}

// ufwEnds disables ufw, which must be on.
func (d *debianRelayLab) ufwEnds(t *testing.T) {
	t.Helper()
	if out := d.do("ufw status verbose"); !strings.Contains(out, "Status: active") ||
		!strings.Contains(out, "deny (incoming)") {
		t.Errorf("ufw: %s", out)
	}
	d.do("ufw disable; cp -p /root/ufw/* /etc/ufw")
}

// boot goes on, with the relay that is right, beside one with a mistake.
func (d *debianRelayLab) boot(t *testing.T) {
	d.server.write("/etc/network/interfaces.d/broken",
		strings.NewReplacer("wrap1", "wrap2", "%", "cabin").Replace(interfaces))
	d.reboot()
	if out := d.do("systemctl --failed --plain --no-legend; journalctl -b -u networking"); strings.Count(out,
		"failed failed") != 1 || !strings.Contains(out, "unknown relay") {
		t.Errorf("after a boot with an unknown relay: %s", out)
	}
	d.settles()
	d.works("after a boot, without a hand on it")
	d.do("rm /etc/network/interfaces.d/broken")
}

// formerPackage installs a package with the units and scripts of the previous release.
func (d *debianRelayLab) formerPackage(t *testing.T) {
	d.unwatched()
	d.do("dpkg-deb -R /root/ds4relay.deb /root/former; cd /root/former; sed -i 's/^Version: .*/Version: 0.1.0-0/' " +
		"DEBIAN/control; rm DEBIAN/md5sums; mkdir -p usr/lib/systemd/system/{nftables,ufw,docker}.service.d")
	const files = "testdata/former/debian"
	err := fs.WalkDir(former, files, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := former.ReadFile(path)
		to, system := strings.CutPrefix(path, files+"/system/")
		switch neighbour, drops := strings.CutSuffix(to, ".conf"); {
		case !system:
			to = "DEBIAN/" + filepath.Base(path)
		case drops:
			to = "usr/lib/systemd/system/" + neighbour + ".service.d/ds4relay.conf"
		default:
			to = "usr/lib/systemd/system/" + to
		}
		d.server.write("/root/former/"+to, string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	d.do("cd /root/former; for f in changed restore; do ln -s ../ds4relay-$f.path " +
		"usr/lib/systemd/system/paths.target.wants; done; dpkg-deb -Znone -b . ../former.deb; dpkg -i " +
		"../former.deb; rm -r ../former ../former.deb")
	d.do("systemctl is-active ds4relay-changed.path ds4relay-restore.path; nft flush ruleset; touch /run/ufw.lock")
	d.settles()
	d.do("rm /run/ds4relay/applied") // it had no such record
}

// upgrade installs a new version under open streams.
func (d *debianRelayLab) upgrade(t *testing.T) {
	d.formerPackage(t)
	end := d.streams(4)
	d.do("apt-get install -y /root/next.deb && ds4relay version")
	end("over the upgrade")
	out := d.do("systemctl is-active ds4relay-watch.path ds4relay-watch.service; systemctl list-units --all --plain " +
		"--no-legend 'ds4relay*'; ls /run/ds4relay* /usr/lib/systemd/system/*/ds4relay*")
	for _, gone := range []string{"change", "restore", "watch.timer", "failed ", "not-found", ".conf"} {
		if strings.Contains(out, gone) {
			t.Errorf("after the upgrade there is %q: %s", gone, out)
		}
	}
	if out := d.do("ds4relay version; ds4relay status"); !strings.Contains(out, os.Getenv("DS4RELAY_VERSION_NEXT")) {
		t.Errorf("after the upgrade: %s", out)
	}
	d.works("after the upgrade")

	d.do("ifdown wrap1")
	if _, _, err := askTCP(d.Client, public+":80"); err == nil {
		t.Error("the forward is there after ifdown")
	}
	d.do("ifup wrap1")
	d.works("after ifup again")
}

// whoever takes away what the relay needs, it comes back.
func (d *debianRelayLab) whoever(t *testing.T) {
	const drops = "*filter\n:INPUT ACCEPT\n:FORWARD DROP\n:OUTPUT ACCEPT\nCOMMIT\n"
	const accepts = "for f in iptables iptables-legacy; do $f -P FORWARD ACCEPT; $f -F FORWARD; done; nft delete " +
		"table ip filter"
	d.do("cp -r /opt/netfilter-persistent/usr/sbin/* /usr/sbin; cp -r " +
		"/opt/netfilter-persistent/usr/share/netfilter-* /usr/share; mkdir -p /etc/iptables; printf '" + drops + "' " +
		">/etc/iptables/rules.v4; ip6tables-save >/etc/iptables/rules.v6")
	for _, command := range []string{
		"nft flush ruleset",
		"iptables-restore /etc/iptables/rules.v4",
		"netfilter-persistent reload",
		accepts + "; iptables-legacy-restore /etc/iptables/rules.v4; systemctl restart ds4relay-watch",
		accepts + "; ip rule flush; ip rule add priority 32766 lookup main; ip rule add priority 32767 lookup default",
		"ip route flush proto 46; ip link del wrap1",
		// As DHCP clients' scripts do.
		"ip addr flush dev ens3 scope global; sleep 0.5; ip addr add 198.51.100.144/24 dev ens3; ip route replace " +
			"default via 198.51.100.1; ip -6 addr add 2001:db8:6ef9::1/64 dev ens3 nodad; ip -6 route replace " +
			"default via 2001:db8:6ef9::ff",
	} {
		d.comesBack(command)
		d.works("after " + command)
	}
	// Rules of NAT, of both kinds of iptables, do not get what a forward gets.
	const both = "for f in iptables iptables-legacy; do "
	d.do(both + "$f -w -t nat -A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 9; $f -w -t nat -A POSTROUTING " +
		"-j MASQUERADE; done")
	d.works("beside other programs' NAT")
	said := d.do("ds4relay check 2>&1; " + both + "$f -w -t nat -F; done")
	for _, want := range []string{"iptables, table nat, chain PREROUTING: a rule is about packets of " + public +
		" (tcp:80)", "iptables-legacy, table nat, chain POSTROUTING: a rule would hide"} {
		if !strings.Contains(said, want) {
			t.Errorf("check does not say %s: %s", want, said)
		}
	}
	d.do("rm -r /usr/sbin/netfilter-persistent /usr/share/netfilter-persistent /etc/iptables; systemctl restart " +
		"ds4relay-watch")
	// The rival leaves time between two of its commands: a machine that emulates its processor has a lot to do.
	d.do("(while sleep 1; do nft delete table ip ds4relay; done >/dev/null 2>&1 & echo $! >/root/rival)")
	d.waits("journalctl -n 50 -u ds4relay-watch | grep -q '5 repairs within a minute'")
	d.do("kill $(cat /root/rival)")
	if _, out := d.try("ds4relay status"); !strings.Contains(out, "note: nft (process ") ||
		!strings.Contains(out, "takes away again and again") {
		t.Errorf("status beside a rival: %s", out)
	}
	d.do("rm /root/rival; ifdown wrap1")
	d.waits("! systemctl -q is-active ds4relay-watch")
	d.do("! ip link show wrap1; ifup wrap1; ds4relay status; systemctl is-active ds4relay-watch")
	d.works("after a rival")
	d.memory(t)
}

// memory logs what the watcher takes.
func (d *debianRelayLab) memory(t *testing.T) {
	status := d.do("grep -E 'VmHWM|VmRSS|RssAnon' /proc/$(systemctl show -p MainPID --value ds4relay-watch)/status")
	t.Logf("the watcher: %s", strings.Join(strings.Fields(status), " "))
}

// units tests what the units do and may do.
func (d *debianRelayLab) units(t *testing.T) {
	d.keys(t)
	d.restarts(t)
	out := d.do("cd /usr/lib/systemd/system; ls ds4relay*.service; " +
		"systemd-analyze security --threshold=40 ds4relay*.service | grep 'Overall exposure'")
	if units := strings.Count(out, ".service\n"); units < 4 || strings.Count(out, " OK ") != units {
		t.Errorf("systemd-analyze security: %s", out)
	}
}

// keys: the package's directory for keys is root's, and the units, which have few rights, can read what is in it. Rules
// of iptables let WireGuard's port in, over IPv4 and IPv6.
func (d *debianRelayLab) keys(t *testing.T) {
	public := strings.TrimSpace(d.do("cp -p /etc/config/ds4relay /root/relays; ds4relay genkey mill"))
	const tables = "for f in iptables ip6tables; do $f -A INPUT -i lo -j ACCEPT; done"
	defer func() {
		d.do("mv /root/relays /etc/config/ds4relay; systemctl restart ds4relay; rm /etc/ds4relay/keys/mill; " +
			strings.Replace(tables, "-A", "-D", 1))
	}()
	if modes := d.do("stat -c %a.%U /etc/ds4relay /etc/ds4relay/keys /etc/ds4relay/keys/mill"); modes !=
		"700.root\n700.root\n600.root\n" {
		t.Errorf("modes of the directories and the file: %q", modes)
	}
	d.server.write("/etc/config/ds4relay", "config relay 'mill'\n\toption transport 'wireguard'\n\toption ipaddr '"+
		"198.51.100.144'\n\toption public_key '"+transport.Key{7}.String()+"'\n"+forwardAll)
	d.do(tables + "; systemctl restart ds4relay; systemctl is-active ds4relay; ip link show ds4-mill type wireguard")
	// The watcher may have the lock for a moment.
	if out := d.do("ds4relay up; iptables -S INPUT; ip6tables -S INPUT"); !strings.Contains(out, "Nothing to do") ||
		strings.Count(out, "-p udp -m udp --dport 51846") != 2 {
		t.Errorf("up again, and the rules of iptables: %s", out)
	}
	out := d.do("busctl call net.ds4relay /net/ds4relay net.ds4relay Export s mill")
	if !strings.Contains(out, public) ||
		strings.Contains(out, strings.TrimSpace(d.do("cat /etc/ds4relay/keys/mill"))) {
		t.Errorf("export: %s", out)
	}
}

// restarts: a restart changes nothing if there is no difference. With a mistake in the file it fails and changes
// nothing; the relay keeps running until it is stopped.
func (d *debianRelayLab) restarts(t *testing.T) {
	const unit = "systemctl -q is-active ds4relay.service ds4relay-down.service"
	// If the tunnel is created again, it gets another index.
	index := func() string { return d.do("cat /sys/class/net/wrap1/ifindex") }
	tunnel := index()
	stream := open(t, d.Client, public+":80")
	for _, command := range []string{"restart", "try-restart", "reload-or-restart"} {
		d.do("systemctl " + command + " ds4relay && " + unit)
		alive(t, "the stream after systemctl "+command, stream)
	}
	const mistake = "cp -p /etc/config/ds4relay /root/relays; echo mistake >>/etc/config/ds4relay"
	d.do(mistake)
	if status, out := d.try("systemctl restart ds4relay 2>&1"); status == 0 {
		t.Errorf("a restart with a mistake succeeds: %s", out)
	}
	out := d.do("systemctl is-failed ds4relay; journalctl --sync; journalctl --no-pager -n 20 -u ds4relay")
	if !strings.Contains(out, "/etc/config/ds4relay:") {
		t.Errorf("the mistake is not in the journal: %s", out)
	}
	alive(t, "the stream after a restart with a mistake", stream)
	d.do("mv /root/relays /etc/config/ds4relay; systemctl restart ds4relay && " + unit)
	alive(t, "the stream after the mistake is mended", stream)
	if now := index(); now != tunnel {
		t.Errorf("the tunnel was made anew: it was %s, and is %s", tunnel, now)
	}
	// A failed unit can be stopped too, and so can one that was just restarted.
	d.do(mistake + "; ! systemctl restart ds4relay; systemctl stop ds4relay")
	d.waits("! ip link show wrap1")
	d.do("mv /root/relays /etc/config/ds4relay; systemctl start ds4relay; systemctl restart ds4relay && " +
		"systemctl stop ds4relay && ! ip link show wrap1")
	d.do("systemctl start ds4relay")
	d.works("after restarts and stops")
}

// metrics: a real prometheus-node-exporter, whose textfile collector has a directory, passes on what the timer writes.
func (d *debianRelayLab) metrics(t *testing.T) {
	const dir, file = "/var/lib/prometheus/node-exporter", "/var/lib/prometheus/node-exporter/ds4relay.prom"
	d.waits("[ -s " + file + " ]")
	if out := d.do("cat " + file); !strings.Contains(out, "ds4relay_relay_up{") {
		t.Errorf("the timer has written %s", out)
	}
	d.waits("[ -S /run/ds4relay/traffic ]")
	d.do("ds4relay metrics; systemctl start prometheus-node-exporter")
	transfers(t, d.Client, public+":80", 1<<20)
	const scrape = "exec 3<>/dev/tcp/127.0.0.1/9100; printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; cat <&3"
	d.do("systemctl start ds4relay-metrics")
	d.comes("(" + scrape + ") | grep -q '^ds4relay_forward_bytes_total.* [1-9]'")
	out := d.do(scrape)
	for _, want := range []string{"\nnode_textfile_scrape_error 0\n", "\nds4relay_relay_up{relay=\"home\"} 1\n",
		"\nds4relay_configuration_differs 0\n", "\n# TYPE ds4relay_forward_bytes_total counter\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("node exporter does not say %q:\n%s", want, out)
		}
	}
	var ours strings.Builder
	for line := range strings.Lines(out) {
		if strings.Contains(line, "ds4relay_") && !strings.HasPrefix(line, "node_") {
			ours.WriteString(line)
		}
	}
	check := exec.Command(os.Getenv("DS4RELAY_PROMTOOL"), "check", "metrics")
	check.Stdin = strings.NewReader(ours.String())
	if report, err := check.CombinedOutput(); err != nil || len(report) > 0 {
		t.Errorf("promtool check metrics: %v %s\n%s", err, report, ours.String())
	}
	// Without the directory the timer does nothing, and says nothing.
	d.do("mv " + dir + " /root/collector; systemctl start ds4relay-metrics; systemctl show -p ConditionResult " +
		"--value ds4relay-metrics | grep -qx no")
	if out := d.do("systemctl --failed --plain --no-legend; journalctl -q -b -u ds4relay-metrics"); out != "" {
		t.Errorf("without the collector's directory: %s", out)
	}
	d.do("mv /root/collector " + dir + "; rm -f " + file + "; systemctl start ds4relay-metrics; grep -q " +
		"ds4relay_relay_up " + file + "; systemctl stop prometheus-node-exporter")
}
