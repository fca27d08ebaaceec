//go:build lab && debian

package main

import (
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/transport"
)

// TestUbuntu is the life of a VPS with Ubuntu, whose network netplan and systemd-networkd set up, with either
// transport.
func TestUbuntu(t *testing.T) {
	d := newDebian(t, egressAll)
	d.do("netplan apply; modprobe -a ip6_tunnel wireguard nf_conntrack nf_tables") // netplan leaves compiled files
	before := d.do(settings)
	d.put("DS4RELAY_DEB", "/root/ds4relay.deb")
	d.chapter(t, "install", d.install)
	d.chapter(t, "systemd", func(*testing.T) {
		d.server.write("/etc/config/ds4relay", debianRelay+egressAll)
		d.do("ds4relay check && systemctl enable --now ds4relay || " +
			"{ journalctl --no-pager -u ds4relay; exit 1; }")
		d.works("with the unit")
	})
	d.chapter(t, "ufw, and a boot", func(t *testing.T) {
		d.ufw(t)
		d.reboot()
		d.settles()
		d.works("after a boot")
		d.ufwEnds(t)
	})
	d.chapter(t, "netplan", func(*testing.T) {
		d.do("netplan apply; systemctl restart systemd-networkd; systemctl restart ds4relay-watch")
		d.settles()
		d.works("after netplan apply")
	})
	d.chapter(t, "wireguard", func(t *testing.T) {
		d.do("ds4relay down")
		public := strings.TrimSpace(d.do("ds4relay genkey home"))
		there, ok := transport.ParseKey(public)
		if !ok {
			t.Fatalf("genkey: %q", public)
		}
		d.other.do("down")
		here := d.other.newKey()
		d.other.write(d.other.wireGuardHead("router", there, "\toption peeraddr '198.51.100.144'\n") + egressAll)
		d.server.write("/etc/config/ds4relay", "config relay 'home'\n\toption role 'vps'\n\toption ipaddr "+
			"'198.51.100.144'\n\toption transport 'wireguard'\n\toption public_key '"+here.String()+
			"'\n\toption device 'wrap1'\n\tlist keep 'tcp:22'\n\tlist keep 'tcp:7'\n"+egressAll)
		d.do("ds4relay check && systemctl reload ds4relay")
		d.other.do("up")
		d.works("with WireGuard")
	})
	d.chapter(t, "purge", func(t *testing.T) {
		d.do("apt-get purge -y ds4relay; rm -r /etc/ds4relay; " +
			"for family in ip ip6; do nft delete table $family filter || true; done")
		same(t, "the VPS after the purge", before, d.do(settings))
	})
}
