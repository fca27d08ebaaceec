//go:build lab

package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/lab"
)

// numbers sends a number every few milliseconds over a connection to an echoing server, until the returned function is
// called. That returns how long the longest pause between two answers was.
func numbers(t *testing.T, conn net.Conn) func() time.Duration {
	t.Helper()
	conn.SetDeadline(time.Now().Add(time.Minute))
	var stop atomic.Bool
	go func() {
		for i := 0; !stop.Load(); i++ {
			if _, err := fmt.Fprintf(conn, "%08d", i); err != nil {
				return
			}
			time.Sleep(25 * time.Millisecond)
		}
		conn.(*net.TCPConn).CloseWrite()
	}()
	result := make(chan time.Duration, 1)
	go func() {
		var longest time.Duration
		var number [8]byte
		for i, last := 0, time.Now(); ; i++ {
			_, err := io.ReadFull(conn, number[:])
			longest, last = max(longest, time.Since(last)), time.Now()
			if err == io.EOF && stop.Load() {
				break
			}
			if want := fmt.Sprintf("%08d", i); err != nil || string(number[:]) != want {
				t.Errorf("the stream has %q instead of %q: %v", number, want, err)
				break
			}
		}
		result <- longest
	}()
	return func() time.Duration {
		time.Sleep(100 * time.Millisecond)
		stop.Store(true)
		return <-result
	}
}

// edit replaces a text in the end's file.
func (e *end) edit(old, text string) {
	e.t.Helper()
	data, err := os.ReadFile(e.config)
	if err != nil || !strings.Contains(string(data), old) {
		e.t.Fatalf("%s has no %q: %v", e.config, old, err)
	}
	e.write(strings.ReplaceAll(string(data), old, text))
}

// onePeer fails the test unless an end's tunnel has one peer, the other end with its key of now.
func onePeer(t *testing.T, e, other *end) {
	t.Helper()
	var device kernel.WireGuardDevice
	err := e.host.Do(func() (err error) { device, err = kernel.ReadWireGuard("wrap1"); return err })
	if err != nil {
		t.Fatal(err)
	}
	key := strings.TrimSpace(other.do("pubkey", "home"))
	if len(device.Peers) != 1 || device.Peers[0].Key.String() != key {
		t.Errorf("%s has the peers %v, want %s only", e.host.Name, device.Peers, key)
	}
}

// TestWireGuardRotation: a TCP stream goes on while keys are replaced as docs/wireguard.md says: a new file, the public
// half into the other end's configuration, reload on the VPS, reload at home. The former keys are worth nothing then.
// It also goes on over another address of the VPS, and no packet that comes by the former one leads back.
func TestWireGuardRotation(t *testing.T) {
	t.Parallel() // it mostly waits
	r := newWireGuard(t, lab.Options{Prefix: "wgkeys-"}, public, forwardAll)
	serveTCP(t, r.Host, 80)
	r.up()
	files := map[*end]string{r.vps: r.vps.keyFile(), r.router: r.router.keyFile()}
	renew := func(e, other *end) {
		former := strings.TrimSpace(e.do("pubkey", "home"))
		e.edit("'"+files[e]+"'", "'"+files[e]+"2'")
		files[e] += "2"
		other.edit(former, strings.TrimSpace(e.do("genkey", "home")))
	}
	for _, c := range []struct {
		name   string
		idle   bool // no packet of the stream until the keys are replaced
		change func()
	}{
		{"both keys", false, func() { renew(r.vps, r.router); renew(r.router, r.vps) }},
		{"the home's key", true, func() { renew(r.router, r.vps) }},
		{"a preshared key", false, func() {
			secret := r.vps.do("genkey", "--preshared")
			for e, file := range files {
				if err := os.WriteFile(file+".psk", []byte(secret), 0o600); err != nil {
					t.Fatal(err)
				}
				e.edit("\toption public_key", "\toption preshared_key_file '"+file+".psk'\n\toption public_key")
			}
		}},
		{"the VPS's IPv6 address", true, func() {
			r.router.edit("peeraddr '"+public+"'", "peeraddr '2001:db8:6ef9::1'")
		}},
	} {
		conn := open(t, r.Client, public+":80")
		stop := func() time.Duration { return 0 }
		if !c.idle {
			stop = numbers(t, conn)
		}
		c.change()
		start := time.Now()
		r.vps.do("reload")
		r.router.do("reload")
		reloads := time.Since(start)
		if pause := stop(); pause > 2*reloads+2*time.Second { // TCP waits twice as long after each loss
			t.Errorf("%s: the stream paused for %v, the reloads took %v", c.name, pause, reloads)
		}
		if c.idle {
			alive(t, c.name, conn) // the tunnel waits neither for the home to send something nor for its next keepalive
		}
		onePeer(t, r.vps, r.router)
		onePeer(t, r.router, r.vps)
		for _, e := range []*end{r.vps, r.router} {
			if out := e.do("up"); !strings.HasPrefix(out, "Nothing to do") {
				t.Errorf("%s, %s: a second up: %s", e.host.Name, c.name, out)
			}
		}
	}
}
