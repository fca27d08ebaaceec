package ping

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"
)

// Summary is what was measured on one way.
type Summary struct {
	Host           string
	Addr           netip.Addr
	Sent, Received int
	Min, Avg, Max  time.Duration
	// As ping(8) of iputils: the square root of the mean of squares less the square of the mean.
	Mdev time.Duration
}

// Loss is the part of the requests that was not answered, from 0 to 1.
func (s Summary) Loss() float64 {
	if s.Sent == 0 {
		return 0
	}
	return 1 - float64(s.Received)/float64(s.Sent)
}

func (w *way) count(rtt time.Duration, err error) {
	w.Sent++
	if err != nil {
		return
	}
	w.Received++
	if w.Received == 1 || rtt < w.Min {
		w.Min = rtt
	}
	w.Max = max(w.Max, rtt)
	w.sum += float64(rtt)
	w.squares += float64(rtt) * float64(rtt)
}

func (w *way) summary() Summary {
	if w.Received > 0 {
		mean := w.sum / float64(w.Received)
		w.Avg = time.Duration(mean)
		w.Mdev = time.Duration(math.Sqrt(max(0, w.squares/float64(w.Received)-mean*mean)))
	}
	return w.Summary
}

// Format writes both summaries as ping(8) does, and the difference of the averages.
func Format(v4, v6 Summary) string {
	var b strings.Builder
	for _, s := range []Summary{v4, v6} {
		fmt.Fprintf(&b, "--- %s ping statistics ---\n", s.Host)
		fmt.Fprintf(&b, "%d packets transmitted, %d received, %.4g%% packet loss\n", s.Sent, s.Received, 100*s.Loss())
		if s.Received > 0 {
			fmt.Fprintf(&b, "rtt min/avg/max/mdev = %.3f/%.3f/%.3f/%.3f ms\n", ms(s.Min), ms(s.Avg), ms(s.Max),
				ms(s.Mdev))
		}
	}
	if v4.Received > 0 && v6.Received > 0 {
		fmt.Fprintf(&b, "IPv4 by relay - IPv6 direct: %+.3f ms avg (%+.1f%%)\n", ms(v4.Avg-v6.Avg),
			100*(float64(v4.Avg)/float64(v6.Avg)-1))
	}
	return b.String()
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
