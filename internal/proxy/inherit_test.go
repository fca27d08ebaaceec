package proxy

import (
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
)

// TestInherit: another server continues with the sockets of every kind, while the first one keeps its sessions. Sockets
// that it does not need are closed.
func TestInherit(t *testing.T) {
	freePort(t) // with the first socket the Go runtime opens descriptors of its own
	files := openFiles(t)
	t.Run("hand over", func(t *testing.T) {
		v4 := tcp(t, target(t, "[::1]:0", echo))
		v6, unused := *v4, *v4
		v6.Section, v6.Listen = "six",
			[]config.Listen{{Addr: netip.IPv6Loopback(), First: v4.Listen[0].First, Last: v4.Listen[0].Last}}
		unused.Section, unused.Listen = "unused", []config.Listen{freePort(t)}
		former := start(t, Options{}, v4, &v6, &unused)
		held := dialTCP(t, v4)
		if err := echoes(held, "before"); err != nil {
			t.Fatal(err)
		}
		var fds []int
		for _, s := range former.Sockets() {
			fd, err := unix.Dup(s.FD)
			if err != nil {
				t.Fatal(err)
			}
			fds = append(fds, fd)
		}
		if len(fds) != 3 {
			t.Fatalf("%d sockets", len(fds))
		}
		next := start(t, Options{})
		next.Inherit(fds)
		if err := next.Apply([]*config.Proxy{v4, &v6}); err != nil {
			t.Fatal(err)
		}
		former.Release()
		for _, p := range []*config.Proxy{v4, &v6} {
			if err := echoes(dialTCP(t, p), "after"); err != nil {
				t.Error(err)
			}
		}
		if err := echoes(held, "still"); err != nil {
			t.Error(err)
		}
		if a, b := former.Sessions(), next.Sessions(); a != 1 || b != 2 {
			t.Errorf("the former server has %d sessions, the next %d", a, b)
		}
		if !next.Responds(patience) {
			t.Error("the loops do not come round")
		}
		if c, err := net.Dial("tcp", unused.Listen[0].String()); err == nil {
			c.Close()
			t.Error("a socket that nobody has a use for is open")
		}
		held.Close()
		eventually(t, "the end of the last session", func() bool { return former.Sessions() == 0 })
	})
	eventually(t, "the end of what was opened", func() bool {
		runtime.GC() // io.Copy in the tests leaves pipes to the garbage collector
		return openFiles(t) <= files
	})
}

// TestResponds: a loop that hangs is noticed.
func TestResponds(t *testing.T) {
	s := start(t, Options{Loops: 2})
	release := make(chan struct{})
	s.loops[1].post(func() { <-release })
	if s.Responds(10 * time.Millisecond) {
		t.Error("a loop that hangs is not noticed")
	}
	close(release)
	if !s.Responds(patience) {
		t.Error("the loops do not come round")
	}
}
