package ping

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func TestFormat(t *testing.T) {
	w4, w6 := &way{}, &way{}
	w4.Host, w6.Host = "198.51.100.144", "2001:db8::1"
	for _, d := range []int{1, 2, 3, 6} {
		w4.count(time.Duration(d)*time.Millisecond, nil)
		w6.count(2*time.Millisecond, nil)
	}
	w6.count(0, errors.New("lost"))
	want := `--- 198.51.100.144 ping statistics ---
4 packets transmitted, 4 received, 0% packet loss
rtt min/avg/max/mdev = 1.000/3.000/6.000/1.871 ms
--- 2001:db8::1 ping statistics ---
5 packets transmitted, 4 received, 20% packet loss
rtt min/avg/max/mdev = 2.000/2.000/2.000/0.000 ms
IPv4 by relay - IPv6 direct: +1.000 ms avg (+50.0%)
`
	if got := Format(w4.summary(), w6.summary()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestNothingReceived(t *testing.T) {
	got := Format(Summary{Host: "a", Sent: 3}, Summary{Host: "b"})
	if strings.Contains(got, "rtt") || strings.Contains(got, "NaN") || !strings.Contains(got, "100% packet loss") {
		t.Error(got)
	}
}

// mayPing skips a test where users may not ping.
func mayPing(t *testing.T) {
	t.Helper()
	_, _, err := Compare(t.Context(), "127.0.0.1", "::1", Options{Count: 1}, func(string, int, time.Duration, error) {})
	if errors.Is(err, os.ErrPermission) {
		t.Skip(err)
	}
}

func TestLoopback(t *testing.T) {
	mayPing(t)
	var seen []string
	v4, v6, err := Compare(t.Context(), "127.0.0.1", "::1", Options{Count: 3, Interval: time.Millisecond},
		func(host string, seq int, rtt time.Duration, err error) {
			if err != nil || rtt <= 0 {
				t.Errorf("%s %d: %v %v", host, seq, rtt, err)
			}
			seen = append(seen, host)
		})
	if err != nil {
		t.Fatal(err)
	}
	if v4.Received != 3 || v6.Received != 3 || v4.Min > v4.Avg || v4.Avg > v4.Max {
		t.Errorf("%+v\n%+v", v4, v6)
	}
	if got := strings.Join(seen, " "); got != "127.0.0.1 ::1 127.0.0.1 ::1 127.0.0.1 ::1" {
		t.Error(got)
	}
}

func TestWrongKind(t *testing.T) {
	_, _, err := Compare(t.Context(), "::1", "127.0.0.1", Options{Count: 1}, nil)
	if err == nil || !strings.Contains(err.Error(), "no IPv4 address for ::1: it is an address of the other kind") {
		t.Error(err)
	}
}

func TestCancel(t *testing.T) {
	mayPing(t)
	ctx, cancel := context.WithCancel(t.Context())
	v4, _, err := Compare(ctx, "127.0.0.1", "::1", Options{Count: 1000, Interval: time.Hour},
		func(host string, _ int, _ time.Duration, _ error) { cancel() })
	if err != nil || v4.Sent != 1 {
		t.Errorf("%+v %v", v4, err)
	}
}
