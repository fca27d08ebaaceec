//go:build !openwrt

package traffic

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/metrics"
	"github.com/ds4relay/ds4relay/internal/state"
)

// Totals are the answer of the service.
type Totals struct {
	// Counted reports whether the kernel counts bytes and packets (net.netfilter.nf_conntrack_acct).
	Counted  bool      `json:"counted"`
	Lost     uint64    `json:"lost"` // times that ends of connections were lost
	Forwards []Forward `json:"forwards"`
	Error    string    `json:"error,omitempty"` // why there are no totals
}

// Forward is what one forward has carried.
type Forward struct {
	Relay       string        `json:"relay"`
	Section     string        `json:"section"`
	Connections uint64        `json:"connections"`
	In          state.Traffic `json:"in"` // from and to the one who opened the connection
	Out         state.Traffic `json:"out"`
}

// SocketName is the socket's name in the directory of records.
const SocketName = "traffic"

const (
	answerTime = 20 * time.Second // at most, to look at all connections
	mostAnswer = 64 << 20         // bytes
)

// Ask returns the totals, or nil if the service does not run here or is not for this user.
func Ask(run string) (*Totals, error) {
	conn, err := net.DialTimeout("unix", filepath.Join(run, SocketName), answerTime)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask what forwards have carried: %w", err)
	}
	defer conn.Close()
	totals := &Totals{}
	if err = conn.SetDeadline(time.Now().Add(answerTime)); err == nil {
		err = json.NewDecoder(io.LimitReader(conn, mostAnswer)).Decode(totals)
	}
	if err != nil {
		return nil, fmt.Errorf("ask what forwards have carried: %w", err)
	}
	if totals.Error != "" {
		return nil, errors.New(totals.Error)
	}
	return totals, nil
}

// Metrics adds the totals to a set.
func (t *Totals) Metrics(set *metrics.Set) {
	if t == nil {
		return
	}
	for _, f := range t.Forwards {
		labels := metrics.Label("relay", f.Relay) + "," + metrics.Label("forward", f.Section)
		set.Add("forward_connections_total", f.Connections, labels)
		if !t.Counted {
			continue
		}
		in, out := labels+`,direction="in"`, labels+`,direction="out"`
		set.Add("forward_bytes_total", f.In.Bytes, in)
		set.Add("forward_bytes_total", f.Out.Bytes, out)
		set.Add("forward_packets_total", f.In.Packets, in)
		set.Add("forward_packets_total", f.Out.Packets, out)
	}
	set.Add("lost_events_total", t.Lost, "")
}
