//go:build !openwrt

package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink/nl"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/setup"
)

// TestSockets: the lines of /proc/net, of a machine with little-endian words.
func TestSockets(t *testing.T) {
	if nl.NativeEndian() != binary.LittleEndian {
		t.Skip("the lines are those of a little-endian machine")
	}
	dir := t.TempDir()
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	for file, lines := range map[string]string{
		"tcp": "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 101 1\n" +
			"   1: 0100007F:0277 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 102 1\n" +
			"   2: 146433C6:0016 097100CB:C350 01 00000000:00000000 02:0009B2A5 00000000     0        0 103 4\n",
		"tcp6": "   0: B80D0120000000000000000001000000:01BB 00000000000000000000000000000000:0000 0A " +
			"00000000:00000000 00:00000000 00000000     0        0 104 1\n" +
			"   1: 0000000000000000FFFF0000146433C6:0050 00000000000000000000000000000000:0000 0A " +
			"00000000:00000000 00:00000000 00000000     0        0 105 1\n",
		"udp": " 1: 00000000:CA86 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 106 2 0 0\n" +
			" 2: 00000000:9999 08080808:0035 01 00000000:00000000 00:00000000 00000000 0 0 107 2 0 0\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(head+lines), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := sockets(dir)
	want := []socket{{config.TCP, netip.MustParseAddrPort("0.0.0.0:22"), "101"},
		{config.TCP, netip.MustParseAddrPort("127.0.0.1:631"), "102"},
		{config.TCP, netip.MustParseAddrPort("[2001:db8::1]:443"), "104"},
		{config.TCP, netip.MustParseAddrPort("198.51.100.20:80"), "105"},
		{config.UDP, netip.MustParseAddrPort("0.0.0.0:51846"), "106"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, got\n%v\nwant\n%v", err, got, want)
	}
	if err := os.WriteFile(dir+"/tcp", []byte("0: zz:0016 x 0A 0 0 0 0 0 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sockets(dir); err == nil {
		t.Error("garbage is an address")
	}
}

// TestNamed: a socket that systemd has handed over is its program's.
func TestNamed(t *testing.T) {
	proc := t.TempDir()
	for pid, p := range map[string]struct{ name, inode string }{"1": {"systemd", "7"}, "20": {"sshd", "7"},
		"21": {"systemd", "8"}, "3": {"nginx", "9"}} {
		dir := filepath.Join(proc, pid)
		if err := os.MkdirAll(dir+"/fd", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/comm", []byte(p.name+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("socket:["+p.inode+"]", dir+"/fd/3"); err != nil {
			t.Fatal(err)
		}
	}
	at := netip.MustParseAddrPort("0.0.0.0:1")
	got := named([]socket{{1, at, "7"}, {2, at, "8"}, {3, at, "9"}, {4, at, "10"}}, proc)
	for i, want := range []string{"sshd", "systemd", "nginx", ""} {
		if got[i].Program != want {
			t.Errorf("%d: %q, want %q", i, got[i].Program, want)
		}
	}
}

// loopbackSockets opens a TCP and a UDP socket, and returns how settled returns them, without inodes.
func loopbackSockets(t *testing.T) (tcp net.Listener, udp net.PacketConn, want []socket) {
	t.Helper()
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tcp.Close() })
	if udp, err = net.ListenPacket("udp4", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { udp.Close() })
	return tcp, udp, []socket{{config.TCP, netip.MustParseAddrPort(tcp.Addr().String()), ""},
		{config.UDP, netip.MustParseAddrPort(udp.LocalAddr().String()), ""}}
}

// TestSettled: a socket that goes away, and one that comes, do not count.
func TestSettled(t *testing.T) {
	has := func(list []socket, want socket) bool {
		return slices.ContainsFunc(list, func(s socket) bool { return s.proto == want.proto && s.local == want.local })
	}
	_, udp, want := loopbackSockets(t)
	var later []socket
	list, err := settled(func() {
		udp.Close()
		_, _, later = loopbackSockets(t)
	})
	if err != nil || !has(list, want[0]) || has(list, want[1]) || has(list, later[0]) {
		t.Errorf("%v: %v, of %v, later %v", err, list, want, later)
	}
}

// TestMachine: on this machine, the sockets of this test are found with its program.
func TestMachine(t *testing.T) {
	tcp, udp, _ := loopbackSockets(t)
	m, err := Machine("a b c d")
	if err != nil {
		t.Fatal(err)
	}
	for addr, proto := range map[net.Addr]uint8{tcp.Addr(): config.TCP, udp.LocalAddr(): config.UDP} {
		at := netip.MustParseAddrPort(addr.String())
		if want := (setup.Socket{Proto: proto, Addr: at.Addr(), Port: at.Port(), Program: "kernel.test"}); !slices.Contains(
			m.Sockets, want) {
			t.Errorf("%+v is not in %+v", want, m.Sockets)
		}
	}
	loopback := setup.Addr{Addr: netip.MustParseAddr("127.0.0.1"), Device: "lo"}
	if len(m.Addrs) == 0 || fmt.Sprint(m.Addrs[0]) != fmt.Sprint(loopback) || m.Session != "a b c d" {
		t.Errorf("%+v", m)
	}
}

// TestSSHDConfig: blocks of sshd_config for one port or address do not hide the rest, and count where they match.
func TestSSHDConfig(t *testing.T) {
	keygen, err := exec.LookPath("ssh-keygen")
	if _, statErr := os.Stat(sshd); errors.Join(err, statErr) != nil {
		t.Skip("no ssh server: ", errors.Join(err, statErr))
	}
	dir := t.TempDir()
	if out, err := exec.Command(keygen, "-q", "-t", "ed25519", "-N", "", "-f", dir+"/key").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text := "HostKey " + dir + "/key\nMatch LocalPort 2222 LocalAddress 198.51.100.144\nForceCommand false\n"
	if err := os.WriteFile(dir+"/config", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(sshd, "-t", "-f", dir+"/config").CombinedOutput(); err != nil {
		t.Skipf("the ssh server cannot run here: %v: %s", err, out) // such as without /run/sshd
	}
	for session, forced := range map[string]bool{"": false, "203.0.113.9 4000 198.51.100.144 2222": true,
		"203.0.113.9 4000 198.51.100.144 22": false, "2001:db8::9 4000 2001:db8::1 2222": false} {
		text := sshdConfig(session, "-f", dir+"/config")
		if !strings.Contains(text, "port 22\n") || strings.Contains(text, "forcecommand false") != forced {
			t.Errorf("in the session %q: %s", session, text)
		}
	}
}
