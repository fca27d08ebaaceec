//go:build lab

package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/lab"
	"github.com/ds4relay/ds4relay/internal/traffic"
)

// counting runs the service that counts what forwards carry, until the test ends or the returned function is called.
func (e *end) counting(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var said bytes.Buffer
	var ended sync.WaitGroup
	ended.Add(1)
	go func() {
		defer ended.Done()
		err := e.host.Do(func() error {
			a := &app{path: e.config, run: e.runDir(), stdout: &said, stderr: &said}
			return traffic.Run(ctx, a.trafficOptions())
		})
		if err != nil || said.Len() > 0 {
			t.Errorf("the service that counts: %v %s", err, said.String())
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); ended.Wait() })
	t.Cleanup(stop)
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if totals, err := traffic.Ask(e.runDir()); totals != nil && err == nil {
			return stop
		} else if time.Now().After(deadline) {
			t.Fatal("the service that counts does not answer", err)
		}
	}
}

// figure returns the value of a sample, or -1 if there is none.
func (e *end) figure(sample string) int {
	e.t.Helper()
	match := regexp.MustCompile(`(?m)^ds4relay_` + regexp.QuoteMeta(sample) + ` (\d+)$`).FindStringSubmatch(
		e.do("metrics"))
	if match == nil {
		return -1
	}
	n, _ := strconv.Atoi(match[1])
	return n
}

// TestMetrics: each byte of a forward is counted once, of open and of ended connections, past the rules and by them.
func TestMetrics(t *testing.T) {
	const size = 1 << 20
	r := newRelay(t, lab.Options{Second: true}, forwardWeb)
	serveTCP(t, r.Host2, 80)
	r.up()
	const in, connections = `forward_bytes_total{relay="home",forward="web",direction="in"}`,
		`forward_connections_total{relay="home",forward="web"}`
	if n := r.vps.figure(in); n != -1 {
		t.Errorf("nobody counts, and there is %d", n)
	}
	before := open(t, r.Client, public+":8080")
	stop := r.vps.counting(t)
	if acct, err := r.VPS.ReadSysctl("net.netfilter.nf_conntrack_acct"); acct != "1" || err != nil {
		t.Errorf("accounting while something counts: %s %v", acct, err)
	}
	alive(t, "a connection from before the counting", before)
	if n := r.vps.figure(connections); n != 0 {
		t.Errorf("%d connections were counted before there was any", n)
	}
	last := 0
	for round := 1; round <= 3; round++ {
		transfers(t, r.Client, public+":8080", size)
		n := r.vps.figure(in)
		if n < last+size || n > last+size*5/4 {
			t.Errorf("round %d: %d bytes, and %d before it, of %d", round, n, last, size)
		}
		last = n
	}
	// Without the forward its connections end, also one that was not looked at before.
	transfers(t, r.Client, public+":8080", size)
	r.vps.write(vpsRelay)
	r.vps.do("reload")
	if n := r.vps.figure(in); n != -1 {
		t.Errorf("a forward that is gone: %d bytes", n)
	}
	r.vps.write(vpsRelay + forwardWeb)
	r.vps.do("reload")
	if n := r.vps.figure(in); n < last+size || n > last+size*5/4 {
		t.Errorf("after the connections have ended: %d bytes, and %d before the last one of %d", n, last, size)
	}
	if n := r.vps.figure(connections); n != 4 {
		t.Errorf("%d connections, want 4", n)
	}
	stop()
	// The next one undoes what a killed one could not.
	if err := errors.Join(r.VPS.Sysctl("net.netfilter.nf_conntrack_acct", "1"),
		os.WriteFile(filepath.Join(r.vps.runDir(), "accounting"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	r.vps.counting(t)()
	if acct, err := r.VPS.ReadSysctl("net.netfilter.nf_conntrack_acct"); acct != "0" || err != nil {
		t.Errorf("accounting afterwards: %s %v", acct, err)
	}
}
