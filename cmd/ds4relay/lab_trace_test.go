//go:build lab

package main

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/lab"
)

// screen collects the output of a running program.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// traces starts trace at an end, and waits until it listens; wait returns its complete output.
func (e *end) traces(args ...string) (wait func() string) {
	e.t.Helper()
	out, problems, done := &screen{}, &screen{}, make(chan int, 1)
	go e.host.Do(func() error {
		a := &app{stdout: out, stderr: problems, env: func(string) string { return "" }}
		done <- a.main(append([]string{"-c", e.config, "--run", e.runDir(), "trace"}, args...))
		return nil
	})
	for deadline := time.Now().Add(6 * patience); !strings.Contains(problems.String(), "waiting for") &&
		time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	return func() string {
		if code := <-done; code != 0 {
			e.t.Errorf("%s: trace: exit status %d: %s", e.host.Name, code, problems.String())
		}
		return out.String()
	}
}

// inOrder fails the test unless the text contains these words in this order.
func inOrder(t *testing.T, what, text string, words ...string) {
	t.Helper()
	rest := text
	for _, word := range words {
		i := strings.Index(rest, word)
		if i < 0 {
			t.Errorf("%s: no %q behind those before it:\n%s", what, word, text)
			return
		}
		rest = rest[i+len(word):]
	}
}

// TestTrace follows a connection at both ends at the same time, and then one whose host is behind a firewall.
func TestTrace(t *testing.T) {
	r := newRelay(t, lab.Options{}, forwardAll+forwardWeb)
	serveTCP(t, r.Host2, 80)
	r.up()
	vps, router := r.vps.traces("-t", "20", "-c", "6", client4), r.router.traces("-t", "20", "-c", "6")
	seenTCP(t, r.Client, public+":8080", client4)
	text := vps()
	t.Logf("trace on the VPS\n%s", text)
	inOrder(t, "VPS", text,
		"relay home (vps), 2001:db8:6ef9:0:198:51:100:144 is here, 2001:db8:fdd2:0:198:51:100:144 is the other end\n",
		"eth0        in   from the internet            203.0.113.10:", " > 198.51.100.144:8080 tcp SYN mss 1460",
		"wrap1       out  into the tunnel, DNAT done   203.0.113.10:", " > 192.168.1.211:80 tcp SYN mss 1420",
		"eth0        out  in IPv6, to the other end    203.0.113.10:", "100 bytes",
		"eth0        in   in IPv6, from the other end  192.168.1.211:80 > ", "100 bytes",
		"wrap1       in   out of the tunnel            192.168.1.211:80 > 203.0.113.10:", "tcp SYN ACK",
		"eth0        out  to the internet              198.51.100.144:8080 > 203.0.113.10:", "tcp SYN ACK",
		"conntrack: tcp from 203.0.113.10 to 198.51.100.144:8080, translated to 192.168.1.211:80")
	text = router()
	t.Logf("trace on the router\n%s", text)
	inOrder(t, "router", text, "wan         in   in IPv6, from the other end", "wrap1       in   out of the tunnel",
		"br-lan      out  to the host", "br-lan      in   from the host", "wrap1       out  into the tunnel",
		"wan         out  in IPv6, to the other end", "mark 0x46000000")
	if strings.Contains(text, "stops") {
		t.Errorf("router:\n%s", text)
	}

	if err := r.Host2.NFT("table ip wall { chain in { type filter hook input priority 0; policy " +
		"drop; }; }"); err != nil {
		t.Fatal(err)
	}
	vps, router = r.vps.traces("-t", "4"), r.router.traces("-t", "4")
	refusedTCP(t, r.Client, public+":8080")
	text = vps()
	t.Logf("trace on the VPS, with a silent host\n%s", text)
	inOrder(t, "VPS, with a silent host", text, "in IPv6, to the other end",
		`It stops after "in IPv6, to the other end", on the way, or at the other end`)
	text = router()
	t.Logf("trace on the router, with a silent host\n%s", text)
	inOrder(t, "router, with a silent host", text, "to the host",
		`It stops after "to the host", at the host, or on its way to it: no packet was seen "from the host"`)
}
