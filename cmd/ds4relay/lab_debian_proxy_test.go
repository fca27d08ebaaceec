//go:build lab && debian

package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/lab"
)

const (
	proxied     = public + ":443"
	proxyConfig = "config proxy 'web'\n\tlist listen '0.0.0.0:443'\n\toption target '[2001:db8:fdd2::210]:443'\n"
)

// clients connect one after the other until end is called, which fails the test if one was refused or cut.
func (d *debianRelayLab) clients(when string) (end func()) {
	stop := make(chan struct{})
	var all sync.WaitGroup
	count := 0
	all.Add(1)
	go func() {
		defer all.Done()
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond): // leave CPU time for others
			}
			_, conn, err := askTCP(d.Client, proxied)
			if err != nil {
				d.t.Errorf("a new client %s: %v", when, err)
				return
			}
			conn.Close()
			count++
		}
	}()
	return func() {
		close(stop)
		all.Wait()
		d.t.Logf("%d clients %s", count, when)
	}
}

// TestDebianProxy tests a VPS with a proxy and no relay, from installation to purge.
func TestDebianProxy(t *testing.T) {
	d := newDebian(t, forwardAll)
	serve(t, d.Host, "tcp6", 443)
	d.put("DS4RELAY_DEB", "/root/ds4relay.deb")
	d.put("DS4RELAY_DEB_NEXT", "/root/next.deb")
	d.do("dpkg -i /root/ds4relay.deb")
	const unit = "ds4relay-proxy"
	main := func() string { return strings.TrimSpace(d.do("systemctl show -p MainPID --value " + unit)) }
	seen := func(when string) {
		t.Helper()
		t.Log(when)
		seenTCP(t, d.Client, proxied, lab.VPSIPv6.String())
	}

	// A configuration without a proxy is no failure.
	d.do("systemctl enable --now " + unit + "; for i in $(seq 100); do [ $(systemctl is-active " + unit +
		") = inactive ] && exit; sleep 0.1; done; systemctl status " + unit)
	d.server.write("/etc/config/ds4relay", proxyConfig)
	if status, out := d.try("ds4relay status"); status != exitDiffers ||
		!strings.Contains(out, "proxy web: not running") {
		t.Errorf("status of a proxy that does not run: exit status %d, %s", status, out)
	}
	d.do("systemctl start " + unit)
	first := main()
	if out := d.do("cat /proc/" + first + "/status"); strings.Contains(out, "Uid:\t0") ||
		!strings.Contains(out, "CapEff:\t0000000000000400") {
		t.Errorf("the proxy's user and capabilities (only to use ports below 1024): %s", out)
	}
	security := d.do("systemd-analyze security --threshold=20 " + unit + " | tail -n 1")
	t.Log(strings.TrimSpace(security))
	if !strings.Contains(security, "OK") {
		t.Errorf("%s", security)
	}
	seen("after the start")

	stream := open(t, d.Client, proxied)
	end := d.clients("over reloads")
	for i, reload := range []string{"systemctl reload " + unit, "ds4relay reload", "systemctl reload " + unit} {
		d.server.write("/etc/config/ds4relay", proxyConfig+fmt.Sprintf("\toption max_sessions '%d'\n", 1000+i))
		d.do(reload)
	}
	if status, out := d.try("echo nonsense >>/etc/config/ds4relay; systemctl reload " + unit); status == 0 {
		t.Errorf("a reload with a mistake succeeds: %s", out)
	}
	d.server.write("/etc/config/ds4relay", proxyConfig)
	d.do("systemctl reload " + unit)
	end()
	alive(t, "a connection after reloads", stream)
	if out := d.do("systemctl status " + unit + "; ds4relay status; setpriv --reuid 65534 --regid 65534 " +
		"--clear-groups ds4relay proxy --status"); main() != first ||
		!strings.Contains(out, "proxies: 1") || strings.Count(out, "tcp 0.0.0.0:443 → [2001:db8:fdd2::210]:443") != 2 {
		t.Errorf("after reloads: %s", out)
	}

	end = d.clients("over the upgrade")
	d.do("dpkg -i /root/next.deb")
	end()
	alive(t, "a connection after the upgrade", stream)
	second := main()
	if out := d.do("systemctl status " + unit); second == first || !strings.Contains(out, "active (running)") {
		t.Errorf("the proxy's process was %s, is %s: %s", first, second, out)
	}
	out := d.do("ds4relay proxy --status --json; ds4relay proxy --status")
	if !strings.Contains(out, os.Getenv("DS4RELAY_VERSION_NEXT")) ||
		!strings.Contains(out, "proxy web: draining (process "+first) {
		t.Errorf("status after the upgrade: %s", out)
	}
	stream.Close()
	gone := "for i in $(seq 100); do [ -e /proc/%s ] || exit 0; sleep 0.1; done; exit 1"
	d.do(fmt.Sprintf(gone, first))
	d.do("systemctl reload " + unit + "; systemctl is-active " + unit)
	seen("when the former process has gone")

	end = d.clients("over a restart")
	d.do("systemctl restart " + unit)
	end()
	d.do("kill -9 " + main())
	early, err := d.Client.Dial("tcp4", proxied, patience)
	if err != nil {
		t.Fatalf("a client right after a crash: %v", err)
	}
	early.SetDeadline(time.Now().Add(time.Minute))
	if _, err := early.Read(make([]byte, 64)); err != nil {
		t.Errorf("a client that waits for the process after a crash: %v", err)
	}
	early.Close()
	if third := main(); third == second {
		t.Errorf("still process %s", third)
	}

	d.do("systemctl stop " + unit)
	refusedTCP(t, d.Client, proxied)
	d.do("systemctl is-enabled " + unit + "; systemctl start " + unit)
	seen("after a stop and a start")
	d.do("dpkg -P ds4relay")
	refusedTCP(t, d.Client, proxied)
	if out := d.do("systemctl list-unit-files 'ds4relay*' --no-legend; ls -d /run/ds4relay* 2>/dev/null || true; " +
		"pgrep ds4relay || true"); strings.TrimSpace(out) != "" {
		t.Errorf("after the purge there is: %s", out)
	}
	// Somebody else's user of that name gets a warning, and stays.
	d.do("useradd --system --home-dir /srv/ds4relay ds4relay")
	if out := d.do("dpkg -i /root/ds4relay.deb 2>&1"); !strings.Contains(out, "there is another user ds4relay") {
		t.Errorf("installing beside another user ds4relay: %s", out)
	}
	d.do("dpkg -P ds4relay")
	if out := d.do("getent passwd ds4relay; userdel ds4relay"); !strings.Contains(out, ":/srv/ds4relay:") {
		t.Errorf("after the purge somebody else's user ds4relay is: %s", out)
	}
}
