package metrics

// prefix is what all names begin with.
const prefix = "ds4relay_"

// Catalogue has a line for each metric, in the order of the output: its name without the prefix, and what it is. The
// name says the type: counters end with _total, infos (their value is 1) with _info, all others are gauges; it says the
// unit too, _bytes or _seconds.
const Catalogue = `info The version of ds4relay.
configuration_valid Whether the configuration is correct (1) or has mistakes (0).
configuration_differs Whether the kernel differs from the configuration (1) or not (0).
conntrack_entries Connections that this machine keeps track of.
conntrack_entries_limit Connections that it can keep track of.
relay_info What a relay is.
relay_up Whether the tunnel is set up (1) or not (0).
relay_active Of several VPSs, whether this one has the public address now, or at home whether its relay is used (1).
peer_heard_seconds Time since the other end was last heard.
peer_silent Whether the other end is silent (1) or heard (0).
wireguard_info Which key the other end has, and where it is.
wireguard_handshake_seconds Time since the last handshake.
tunnel_mtu_bytes The tunnel's MTU.
tunnel_receive_bytes_total Bytes from the other end.
tunnel_receive_packets_total Packets from the other end.
tunnel_receive_errors_total Packets from the other end with errors.
tunnel_transmit_bytes_total Bytes to the other end.
tunnel_transmit_packets_total Packets to the other end.
tunnel_transmit_errors_total Packets that could not be sent to the other end.
forward_info What a forward is.
forward_host_up Whether the host is there (1) or missing (0).
forward_open_connections Open connections.
forward_open_bytes Bytes that the open connections have carried.
forward_connections_total Connections since the counting began.
forward_bytes_total Bytes since the counting began.
forward_packets_total Packets since the counting began.
lost_events_total Ends of connections that the kernel could not report.`
