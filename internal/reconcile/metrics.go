//go:build !openwrt

package reconcile

import (
	"github.com/ds4relay/ds4relay/internal/metrics"
	"github.com/ds4relay/ds4relay/internal/plain"
)

// Metrics returns the status as figures; docs/metrics.md lists them. Disabled relays have none. The status is nil if
// the configuration has a mistake.
func Metrics(version string, s *Status) *metrics.Set {
	set := &metrics.Set{}
	set.Add("info", 1, metrics.Label("version", version))
	set.Is("configuration_valid", s != nil, "")
	if s == nil {
		return set
	}
	if len(s.Unseen) == 0 {
		set.Is("configuration_differs", !s.OK(), "")
	}
	if c := s.Connections; c != nil {
		set.Add("conntrack_entries", uint64(c.Count), "")
		set.Add("conntrack_entries_limit", uint64(c.Max), "")
	}
	for i := range s.Relays {
		if s.Relays[i].Enabled {
			s.Relays[i].metrics(set)
		}
	}
	return set
}

func (r *RelayStatus) metrics(set *metrics.Set) {
	relay := metrics.Label("relay", r.Name)
	set.Add("relay_info", 1, relay+","+metrics.Label("role", string(r.Role))+","+metrics.Label("ipaddr", r.IPAddr)+","+
		metrics.Label("device", r.Device)+","+metrics.Label("transport", string(r.Transport)))
	set.Is("relay_up", r.Up, relay)
	if r.Active != nil {
		set.Is("relay_active", *r.Active, relay)
	}
	if r.HeardS != nil {
		set.Add("peer_heard_seconds", uint64(*r.HeardS), relay)
	}
	if r.OtherEnd == "heard" || r.OtherEnd == "silent" {
		set.Is("peer_silent", r.OtherEnd == "silent", relay)
	}
	if r.PeerPublicKey != "" {
		set.Add("wireguard_info", 1, relay+","+metrics.Label("peer_public_key", r.PeerPublicKey)+","+
			metrics.Label("endpoint", r.Endpoint))
	}
	if r.HandshakeS != nil {
		set.Add("wireguard_handshake_seconds", uint64(*r.HandshakeS), relay)
	}
	set.Add("tunnel_mtu_bytes", uint64(r.MTU), relay)
	if c := r.Counters; c != nil {
		set.Add("tunnel_receive_bytes_total", c.RxBytes, relay)
		set.Add("tunnel_receive_packets_total", c.RxPackets, relay)
		set.Add("tunnel_receive_errors_total", c.RxErrors, relay)
		set.Add("tunnel_transmit_bytes_total", c.TxBytes, relay)
		set.Add("tunnel_transmit_packets_total", c.TxPackets, relay)
		set.Add("tunnel_transmit_errors_total", c.TxErrors, relay)
	}
	for i := range r.Forwards {
		f := &r.Forwards[i]
		forward := relay + "," + metrics.Label("forward", f.Section)
		set.Add("forward_info", 1, forward+","+metrics.Label("name", string(plain.Escape([]byte(f.Name))))+","+
			metrics.Label("dest_ip", f.DestIP))
		if f.Host == "up" || f.Host == "missing" {
			set.Is("forward_host_up", f.Host == "up", forward)
		}
		if f.Flows == nil {
			continue
		}
		set.Add("forward_open_connections", uint64(f.Flows.Open), forward)
		if f.Flows.In != nil {
			set.Add("forward_open_bytes", f.Flows.In.Bytes, forward+`,direction="in"`)
			set.Add("forward_open_bytes", f.Flows.Out.Bytes, forward+`,direction="out"`)
		}
	}
}
