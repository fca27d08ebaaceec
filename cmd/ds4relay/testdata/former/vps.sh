ip link add name wrap1 group 46 type ip6tnl mode ipip6 local 2001:db8:6ef9:0:198:51:100:144 remote 2001:db8:fdd2:0:198:51:100:144 encaplimit none hoplimit 64
ip link set dev wrap1 alias "ds4relay:home"
ip link set dev wrap1 mtu 1460
ip -6 addr add 2001:db8:6ef9:0:198:51:100:144/128 dev eth0 metric 46 nodad noprefixroute preferred_lft 0
nft -f - <<'EOF'
table ip ds4relay {
	chain made_by_ds4relay { }
	# public address . protocol . port → host . its port; ranges that keep their ports; without ports; all that is left
	# (1:1), and the same for some clients
	map port_forward { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
	map range_forward { type ipv4_addr . inet_proto . inet_service : ipv4_addr; flags interval; }
	map protocol_forward { type ipv4_addr . inet_proto : ipv4_addr; }
	map address_forward { type ipv4_addr : ipv4_addr; }
	map client_forward { type ipv4_addr . ipv4_addr : ipv4_addr; flags interval; }
	# what stays the VPS's own (accept), and what is forwarded for some clients only
	map port_exception { type ipv4_addr . inet_proto . inet_service : verdict; }
	map protocol_exception { type ipv4_addr . inet_proto : verdict; }
	set port_client { type ipv4_addr . inet_proto . inet_service . ipv4_addr; flags interval; }
	set protocol_client { type ipv4_addr . inet_proto . ipv4_addr; flags interval; }
	# who may come out of which tunnel, and from which public address the host's own connections come
	map host { type ifname . ipv4_addr . ct_state : verdict; size 65536; }
	map source { type ifname . ipv4_addr : ipv4_addr; }

	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		ip daddr . meta l4proto . th dport vmap @port_exception
		ip daddr . meta l4proto vmap @protocol_exception
		dnat to ip daddr . meta l4proto . th dport map @port_forward
		dnat to ip daddr . meta l4proto . th dport map @range_forward
		dnat to ip daddr . meta l4proto map @protocol_forward
		dnat to ip daddr map @address_forward
		dnat to ip daddr . ip saddr map @client_forward
	}
	chain limited_port {
		ip daddr . meta l4proto . th dport . ip saddr != @port_client accept
		dnat to ip daddr . meta l4proto . th dport map @port_forward
		dnat to ip daddr . meta l4proto . th dport map @range_forward
	}
	chain limited_protocol {
		ip daddr . meta l4proto . ip saddr != @protocol_client accept
		dnat to ip daddr . meta l4proto map @protocol_forward
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		iifgroup 46 snat to iifname . ip saddr map @source
	}
	chain input {
		type filter hook input priority mangle; policy accept;
		iifgroup 46 goto from_home
	}
	chain forward {
		type filter hook forward priority mangle; policy accept;
		tcp flags & (syn | rst) == syn jump mss
		iifgroup 46 goto from_home
	}
	chain mss {
		oifgroup 46 tcp option maxseg size set rt mtu
		iifgroup 46 tcp option maxseg size set rt mtu
	}
	# answers of the hosts, and their own connections where they may have some; errors may come from the router too
	chain from_home {
		iifname . ip saddr . ct state vmap @host
		ct state related accept
		drop
	}
	# a connection begins with its first packet: what goes on without one belonged to a forward that is gone
	chain opened {
		tcp flags & (fin | syn | rst | ack) != syn reject with tcp reset
	}
}
add element ip ds4relay port_forward { 198.51.100.144 . tcp . 8080 : 192.168.1.211 . 80, 198.51.100.144 . udp . 8080 : 192.168.1.211 . 80 }
add element ip ds4relay address_forward { 198.51.100.144 : 192.168.1.210 }
add element ip ds4relay port_exception { 198.51.100.144 . tcp . 22 : accept }
add element ip ds4relay host { "wrap1" . 192.168.1.210 . established : accept, "wrap1" . 192.168.1.210 . new : goto opened, "wrap1" . 192.168.1.211 . established : accept }
add element ip ds4relay source { "wrap1" . 192.168.1.210 : 198.51.100.144 }
table ip6 ds4relay {
	chain made_by_ds4relay { }
	# our endpoints, and those of the other ends
	set endpoint { type ipv6_addr; }
	set peer { type ipv6_addr; size 1024; }
	chain input {
		type filter hook input priority mangle; policy accept;
		meta l4proto 4 ip6 saddr @peer accept
		meta l4proto 4 ip6 daddr @endpoint drop
	}
}
add element ip6 ds4relay endpoint { 2001:db8:6ef9:0:198:51:100:144 }
add element ip6 ds4relay peer { 2001:db8:fdd2:0:198:51:100:144 }
table ip ds4relay_flows {
	chain made_by_ds4relay { }
	flowtable established {
		hook ingress priority 0
		devices = { "eth0", "wrap1" }
		counter
	}
	chain forward {
		type filter hook forward priority 10; policy accept;
		iifname { "wrap1" } oifname { "eth0" } meta l4proto { tcp, udp } ct state established flow add @established
	}
}
EOF
sysctl -qw net/ipv4/conf/eth0/forwarding=1
sysctl -qw net/ipv4/conf/wrap1/forwarding=1
ip link set dev wrap1 up
ip -4 route add 192.168.1.210/32 dev wrap1 proto 46
ip -4 route add 192.168.1.211/32 dev wrap1 proto 46
# end the connections that this concerns (as conntrack -D does)
