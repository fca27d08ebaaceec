//go:build lab && debian

package main

import (
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/lab"
)

// debianHome is a relay whose home is a Debian machine with one card beside the provider's router, which is the lab's
// router. The host's default gateway is that router.
type debianHome struct {
	*debianRelayLab
	router *advertiser
}

// advertiser is the provider's router, which sends an advertisement every half second.
type advertiser struct {
	mu       sync.Mutex
	prefixes []lab.Advertised
}

// announces changes the prefix. Addresses in the former one become deprecated.
func (a *advertiser) announces(prefix, former string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.prefixes = []lab.Advertised{{Prefix: netip.MustParsePrefix(prefix), Preferred: 3600}}
	if former != "" {
		a.prefixes = append(a.prefixes, lab.Advertised{Prefix: netip.MustParsePrefix(former)})
	}
}

// run sends advertisements until the test ends.
func (a *advertiser) run(t *testing.T, h *lab.Host) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			a.mu.Lock()
			prefixes := a.prefixes
			a.mu.Unlock()
			if err := h.Advertise("br-lan", prefixes...); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-stop:
				return
			case <-time.After(time.Second / 2):
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
	})
}

const (
	homePrefix    = "2001:db8:fdd2::/64"
	homeEndpoint  = "2001:db8:fdd2:0:198:51:100:144"
	movedPrefix   = "2001:db8:fdd2:7::/64"
	movedEndpoint = "2001:db8:fdd2:7:198:51:100:144"
)

// debianHomeRelay is the file of the home, and debianHomeDocker is in it once there is a container.
const debianHomeRelay = `config relay 'home'
	option role 'router'
	option ipaddr '198.51.100.144'
	option peeraddr '2001:db8:6ef9::/64'
	option device 'wrap1'

config forward 'own'
	list proto 'tcp'
	option src_dport '90'
	option dest_ip '192.168.1.211'

config forward 'nas'
	list proto 'tcp'
	list proto 'udp'
	option src_dport '8080'
	option dest_ip '192.168.1.210'
	option dest_port '80'
	option masq '1'
`

const debianHomeDocker = `
config forward 'published'
	list proto 'tcp'
	option src_dport '8085'
	option dest_ip '192.168.1.211'

config forward 'container'
	list proto 'tcp'
	option src_dport '85'
	option dest_ip '172.17.0.2'
	option dest_port '80'
`

// homeServer is a server on Debian, in the manner of serveTCP.
const homeServer = `use IO::Socket::INET;
my $s = IO::Socket::INET->new(LocalPort => $ARGV[0], Listen => 9, ReuseAddr => 1) or die $@;
while (my $c = $s->accept) {
	print $c $c->peerhost, ":", $c->peerport, "\n";
	close $c;
}
`

const homeServerUnit = `[Service]
ExecStart=perl /usr/local/lib/answers 90
[Install]
WantedBy=multi-user.target
`

// The card as networkd, NetworkManager and ifupdown have it: a fixed IPv4 address, and IPv6 from the provider's router.
const (
	homeNetworkd = "[Match]\nName=ens3\n\n[Network]\nAddress=192.168.1.211/24\nGateway=192.168.1.1\n"
	homeNM       = "[connection]\nid=ens3\ntype=ethernet\ninterface-name=ens3\n[ipv4]\nmethod=manual\n" +
		"address1=192.168.1.211/24,192.168.1.1\n[ipv6]\nmethod=auto\n"
	homeIfupdown = "auto lo\niface lo inet loopback\n\nallow-hotplug ens3\niface ens3 inet static\n\taddress " +
		"192.168.1.211/24\n\tgateway 192.168.1.1\niface ens3 inet6 auto\n\nauto wrap1\niface wrap1 inet manual\n\t" +
		"ds4relay home\n"
)

// TestDebianHome is the life of a Debian home, on the real programs.
func TestDebianHome(t *testing.T) {
	d := &debianHome{newDebianLab(t, lab.Options{Host2VM: true}), &advertiser{}}
	d.router.announces(homePrefix, "")
	d.router.run(t, d.Router)
	_, forwards, _ := strings.Cut(debianHomeRelay, "\n\n")
	d.other = newEnd(t, d.VPS, vpsRelay+"\n"+strings.Replace(forwards, "\toption masq '1'\n", "", 1)+debianHomeDocker)
	d.other.do("up")
	if out, err := d.Router.Run("ip", "-6", "addr", "add", "2001:db8:fdd2:7::1/64", "dev", "br-lan",
		"nodad"); err != nil {
		t.Fatal(err, out)
	}
	serveTCP(t, d.Host, 80)
	serveUDP(t, d.Host, 80)
	d.put("DS4RELAY_DEB", "/root/ds4relay.deb")

	d.chapter(t, "networkd", d.networkd)
	d.chapter(t, "NetworkManager, ufw and Docker, from a boot on", d.neighbours)
	d.chapter(t, "ifupdown", d.ifupdown)
}

// reaches checks the forwards from the client: to the machine, and to the host with masq.
func (d *debianHome) reaches(when string) {
	d.t.Helper()
	seenTCP(d.t, d.Client, public+":90", client4)
	seenTCP(d.t, d.Client, public+":8080", pi4)
	seenUDP(d.t, d.Client, public+":8080", pi4, 1400)
	if d.t.Failed() {
		d.t.Errorf("that was %s\n%s", when, d.state())
	}
}

// state is for a person who looks for the cause.
func (d *debianHome) state() string {
	_, out := d.try("ip addr; ip -6 route; ip -6 tunnel show; ds4relay status; iptables-save; journalctl --no-pager -n " +
		"60 -o short-precise -u 'ds4relay*' -u systemd-networkd -u NetworkManager -u networking")
	return out
}

// comes waits until the relay is as its file says, with this endpoint on the card.
func (d *debianHome) comes(endpoint string) {
	d.t.Helper()
	if status, out := d.try("for i in $(seq 150); do ip -6 -o addr show dev ens3 deprecated | grep -q '" + endpoint +
		"/128' && ds4relay status && exit; sleep 0.3; done; exit 1"); status != 0 {
		d.t.Fatalf("the endpoint %s does not come: %s\n%s", endpoint, out, d.state())
	}
}

// networkd runs the card. The relay is set up as docs/home.md says.
func (d *debianHome) networkd(t *testing.T) {
	d.server.write("/usr/local/lib/answers", homeServer)
	d.server.write("/etc/systemd/system/answers.service", homeServerUnit)
	d.server.write("/etc/systemd/network/20-ens3.network", homeNetworkd)
	d.do("ip addr flush dev ens3 scope global; rm /etc/network/interfaces; systemctl --no-reload disable networking; " +
		"systemctl --no-reload enable answers; systemctl daemon-reload; systemctl start systemd-networkd answers; " +
		"dpkg -i /root/ds4relay.deb")
	d.server.write("/etc/config/ds4relay", debianHomeRelay)
	d.do("ds4relay check; systemctl enable --now ds4relay")
	d.comes(homeEndpoint)
	if out := d.do("ds4relay export"); !strings.Contains(out, "option peeraddr '"+homeEndpoint+"'") {
		t.Errorf("the VPS's file:\n%s", out)
	}
	d.reaches("with networkd")
	d.comesBack("systemctl restart systemd-networkd")
	d.reaches("after a restart of networkd")
	d.moves(movedPrefix, homePrefix, movedEndpoint)
	d.reaches("with another prefix")
}

// moves changes the home's prefix, and waits until both ends have followed.
func (d *debianHome) moves(to, from, endpoint string) {
	d.t.Helper()
	d.router.announces(to, from)
	d.comes(endpoint)
	d.other.write(strings.Replace(d.other.text, from, to, 1))
	d.other.do("up")
}

// neighbours: a boot starts NetworkManager, which runs the card, ufw, which denies what comes in, and Docker, which
// then gets a container.
func (d *debianHome) neighbours(t *testing.T) {
	d.server.write("/etc/NetworkManager/system-connections/ens3.nmconnection", homeNM)
	d.server.write("/etc/NetworkManager/conf.d/lab.conf", "[keyfile]\nunmanaged-devices=interface-name:ctl\n")
	d.do("chmod 600 /etc/NetworkManager/system-connections/*; rm /etc/systemd/network/20-ens3.network; systemctl " +
		"--no-reload enable NetworkManager docker; ufw allow in on ctl; sed -i s/ENABLED=no/ENABLED=yes/ /etc/ufw/ufw.conf")
	if state := d.reboot(); state != "running" {
		t.Errorf("after a boot the system is %s: %s", state, d.do("systemctl --failed"))
	}
	d.comes(movedEndpoint)
	d.reaches("after a boot")
	if out := d.do("iptables -S"); !strings.Contains(out, "-P INPUT DROP") || !strings.Contains(out, "-N DOCKER") {
		t.Errorf("ufw and Docker do not do what this is about: %s", out)
	}
	// The container has the machine's /usr: what is in the image are links to it.
	d.do("tar -C / -c bin lib lib64 | docker import - answers && docker run -d --name answers -p 8085:80 -v " +
		"/usr:/usr:ro answers perl /usr/local/lib/answers 80")
	d.server.write("/etc/config/ds4relay", debianHomeRelay+debianHomeDocker)
	d.do("systemctl reload ds4relay; for i in $(seq 60); do timeout 1 bash -c ': </dev/tcp/172.17.0.2/80' && exit; " +
		"sleep 0.3; done; docker ps -a; exit 1")
	seenTCP(t, d.Client, public+":85", client4)
	seenTCP(t, d.Client, public+":8085", client4)
	d.do("systemd-run -q perl /usr/local/lib/answers 91")
	refusedTCP(t, d.Router, pi4+":91")
	if status, out := d.try("ds4relay doctor 2>&1"); status != 0 {
		t.Errorf("doctor: exit status %d\n%s", status, out)
	}
	d.comesBack("systemctl restart NetworkManager")
	d.reaches("after a restart of NetworkManager")
	d.moves(homePrefix, movedPrefix, homeEndpoint)
	d.reaches("with the former prefix again")
}

// ifupdown runs the card and the relay.
func (d *debianHome) ifupdown(t *testing.T) {
	d.server.write("/etc/network/interfaces", homeIfupdown)
	d.do("systemctl stop NetworkManager; systemctl disable --now ds4relay; ip addr flush dev ens3; ip link set ens3 " +
		"down addrgenmode eui64; systemctl start networking; ifup --force ens3")
	d.comes(homeEndpoint)
	d.reaches("with ifupdown")
	d.do("systemctl restart networking")
	d.comes(homeEndpoint)
	d.reaches("after a restart of networking")
	d.moves(movedPrefix, homePrefix, movedEndpoint)
	d.reaches("with another prefix")
}
