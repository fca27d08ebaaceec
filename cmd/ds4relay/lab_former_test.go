//go:build lab

package main

import (
	"embed"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/lab"
)

// former is the output of `plan` of the previous release for the ends of TestUpgrade.
//
//go:embed testdata/former
var former embed.FS

// TestUpgrade: the first up of the new release, on one end after the other, takes over what the previous release
// installed. Connections of clients, and those that a host has opened itself, survive.
func TestUpgrade(t *testing.T) {
	r := newRelay(t, lab.Options{}, forwardAll+"\toption egress 'all'\n"+forwardWeb)
	first := map[*end]string{}
	for _, e := range []*end{r.vps, r.router} {
		first[e] = e.snapshot()
		script, err := former.ReadFile("testdata/former/" + strings.TrimPrefix(e.host.Name, "ds4-") + ".sh")
		if err != nil {
			t.Fatal(err)
		}
		if out, err := e.host.RunInput(string(script), "sh", "-e"); err != nil {
			t.Fatal(err, out)
		}
	}
	// Its record of its changes.
	if err := os.Mkdir(r.vps.runDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	record := `[{"Key":"net/ipv4/conf/eth0/forwarding","Value":"0","Device":""}]`
	if err := os.WriteFile(filepath.Join(r.vps.runDir(), "sysctls"), []byte(record), 0o600); err != nil {
		t.Fatal(err)
	}
	serveTCP(t, r.Host, 80)
	serveTCP(t, r.Host2, 80)
	serveTCP(t, r.Client, 90)
	serveUDP(t, r.Host, 5000)
	r.reaches(t)
	web, all, own := open(t, r.Client, public+":8080"), open(t, r.Client, public+":80"), open(t, r.Host, client4+":90")
	for _, e := range []*end{r.vps, r.router} {
		e.do("-q", "up")
		seenTCP(t, r.VPS, public+":8080", public)
		alive(t, e.host.Name+": a client's stream", web)
		alive(t, e.host.Name+": a client's stream to the host of all", all)
		alive(t, e.host.Name+": the host's own stream", own)
		r.reaches(t)
		if out := e.do("up"); !strings.HasPrefix(out, "Nothing to do") {
			t.Errorf("%s: a second up: %s", e.host.Name, out)
		}
		e.listens(t, "the former release at the other end", "heard", 0)
	}
	for _, e := range []*end{r.router, r.vps} {
		e.do("-q", "down")
		same(t, e.host.Name+" after down", first[e], e.snapshot())
	}
}
