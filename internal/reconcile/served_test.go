package reconcile

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel/fake"
)

// unreadable is a kernel whose record of clients cannot be read.
type unreadable struct{ *fake.Kernel }

func (unreadable) Served(string) (string, error) { return "", errors.New("permission denied") }

// TestServed: a relay of a router has been used if a host answers now, or has with the same public address.
func TestServed(t *testing.T) {
	web := &config.Forward{}
	home := func(address string) *config.Relay {
		return &config.Relay{Name: "home", Role: config.Router, IPAddr: netip.MustParseAddr(address),
			Forwards: []*config.Forward{{}, web}}
	}
	noted := fake.New("eth0")
	if err := noted.NoteServed("home", "198.51.100.144"); err != nil {
		t.Fatal(err)
	}
	yes, no := true, false
	for _, c := range []struct {
		what     string
		kernel   Kernel
		relay    *config.Relay
		answered int
		want     *bool
	}{
		{"no client yet", fake.New("eth0"), home("198.51.100.144"), 0, &no},
		{"a client now", fake.New("eth0"), home("198.51.100.144"), 1, &yes},
		{"a client before", noted, home("198.51.100.144"), 0, &yes},
		{"a client before, by another address", noted, home("198.51.100.145"), 0, &no},
		{"not known", unreadable{fake.New("eth0")}, home("198.51.100.144"), 0, nil},
		{"not known before, a client now", unreadable{fake.New("eth0")}, home("198.51.100.144"), 1, &yes},
		{"a VPS", noted, &config.Relay{Name: "home", Role: config.VPS, Forwards: []*config.Forward{web}}, 1, nil},
	} {
		got := (&End{Kernel: c.kernel}).served(c.relay,
			map[*config.Forward]*Flows{web: {Open: 2, Answered: c.answered}})
		if (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
	if got := (&End{Kernel: noted}).served(home("198.51.100.145"), nil); got == nil || *got {
		t.Error("without the list of connections")
	}
}
