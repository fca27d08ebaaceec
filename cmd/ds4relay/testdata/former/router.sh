ip link add name wrap1 group 46 type ip6tnl mode ipip6 local 2001:db8:fdd2:0:198:51:100:144 remote 2001:db8:6ef9:0:198:51:100:144 encaplimit none hoplimit 64
ip link set dev wrap1 alias "ds4relay:home"
ip link set dev wrap1 mtu 1460
ip -6 addr add 2001:db8:fdd2:0:198:51:100:144/128 dev wrap1 metric 46 nodad noprefixroute preferred_lft 0
nft -f - <<'EOF'
table ip ds4relay {
	chain made_by_ds4relay { }
	# what may be reached through which tunnel: host . protocol . port; without ports; and all of a host
	set open_port { type ifname . ipv4_addr . inet_proto . inet_service; }
	set open_protocol { type ifname . ipv4_addr . inet_proto; }
	set open_host { type ifname . ipv4_addr; }

	chain t_wrap1_in {
		iifname . ip daddr . meta l4proto . th dport @open_port goto t_wrap1_new
		iifname . ip daddr . meta l4proto @open_protocol goto t_wrap1_new
		iifname . ip daddr @open_host goto t_wrap1_new
		drop
	}
	chain t_wrap1_new {
		ct mark set ct mark & 0x00ffffff | 0x46000000
		meta mark set meta mark & 0x00ffffff | 0x46000000
	}
	# the mark of a connection that came by the tunnel: on its packets out of it for rp_filter, on the answers for the
	# way back; errors about the answers go to the host, not back
	chain t_wrap1_prerouting {
		type filter hook prerouting priority mangle; policy accept;
		ct mark & 0xff000000 == 0x46000000 goto t_wrap1_marked
		iifgroup 46 iifname "wrap1" ct state new,invalid,untracked goto t_wrap1_in
	}
	chain t_wrap1_marked {
		iifgroup != 46 ct direction original accept
		meta mark set meta mark & 0x00ffffff | 0x46000000
	}
	chain t_wrap1_output {
		type route hook output priority mangle; policy accept;
		ct direction reply ct mark & 0xff000000 == 0x46000000 meta mark set meta mark & 0x00ffffff | 0x46000000
	}
	chain t_wrap1_forward {
		type filter hook forward priority mangle; policy accept;
		tcp flags & (syn | rst) == syn jump t_wrap1_mss
	}
	chain t_wrap1_mss {
		oifname "wrap1" tcp option maxseg size set 1420
		iifname "wrap1" tcp option maxseg size set 1420
	}

	# devices with forwarded hosts behind them, public addresses, and what is behind those
	set hairpin_device { type ifname; }
	set hairpin_pair { type ifname . ifname; }
	set hairpin_public { type ipv4_addr; }
	map hairpin_exception { type ipv4_addr . inet_proto . inet_service : verdict; }
	map hairpin_protocol_exception { type ipv4_addr . inet_proto : verdict; }
	map hairpin_port { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
	map hairpin_range { type ipv4_addr . inet_proto . inet_service : ipv4_addr; flags interval; }
	map hairpin_protocol { type ipv4_addr . inet_proto : ipv4_addr; }
	map hairpin_address { type ipv4_addr : ipv4_addr; }

	chain hairpin_prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		ip daddr @hairpin_public iifname @hairpin_device goto hairpin
	}
	chain hairpin {
		ip daddr . meta l4proto . th dport vmap @hairpin_exception
		ip daddr . meta l4proto vmap @hairpin_protocol_exception
		dnat to ip daddr . meta l4proto . th dport map @hairpin_port
		dnat to ip daddr . meta l4proto . th dport map @hairpin_range
		dnat to ip daddr . meta l4proto map @hairpin_protocol
		dnat to ip daddr map @hairpin_address
	}
	chain hairpin_postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ct original ip daddr @hairpin_public iifname . oifname @hairpin_pair masquerade
	}
}
add element ip ds4relay open_port { "wrap1" . 192.168.1.211 . tcp . 80, "wrap1" . 192.168.1.211 . udp . 80 }
add element ip ds4relay open_host { "wrap1" . 192.168.1.210 }
add element ip ds4relay hairpin_device { "br-lan" }
add element ip ds4relay hairpin_pair { "br-lan" . "br-lan" }
add element ip ds4relay hairpin_public { 198.51.100.144 }
add element ip ds4relay hairpin_port { 198.51.100.144 . tcp . 8080 : 192.168.1.211 . 80, 198.51.100.144 . udp . 8080 : 192.168.1.211 . 80 }
table ip6 ds4relay {
	chain made_by_ds4relay { }
	chain input {
		type filter hook input priority mangle; policy accept;
		icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } ip6 daddr 2001:db8:fdd2:0:198:51:100:144 meta mark set meta mark & 0x00ffffff | 0x46000000
	}
}
EOF
sysctl -qw net/ipv4/conf/wrap1/forwarding=1
sysctl -qw net/ipv4/conf/wrap1/src_valid_mark=1
ip link set dev wrap1 up
ip -4 route add default dev wrap1 proto 46 table 42
ip -4 rule add priority 4600 iif wrap1 lookup main suppress_prefixlength 0 protocol 46
ip -4 rule add priority 4601 iif wrap1 unreachable protocol 46
ip -4 rule add priority 4602 fwmark 0x46000000/0xff000000 lookup 42 protocol 46
ip -4 rule add priority 46000 iif lo ipproto icmp lookup 42 protocol 46
ip -4 rule add priority 4603 from 192.168.1.210 lookup main suppress_prefixlength 0 protocol 46
ip -4 rule add priority 4604 from 192.168.1.210 lookup 42 protocol 46
# end the connections that this concerns (as conntrack -D does)
