// Package lab builds a DS-Lite home, a rented VPS and the internet between them in network namespaces. For tests, the
// demo and the benchmark it opens sockets there, runs programs, captures and crafts packets, and takes snapshots.
//
//	                      ┌───────── core ─────────┐
//	client 203.0.113.10 ──┤  IPv4 and IPv6 internet ├── vps 198.51.100.144, 2001:db8:6ef9::/64 on the link
//	2001:db8:c::10        └──┬──────────────────┬──┘
//	                  isp (IPv6 only)    carrier 192.0.2.1, 2001:db8:af::1 (AFTR: softwire, NAT)
//	                         │
//	     router wan 2001:db8:fdd1::2, prefix 2001:db8:fdd2::/56, ds-wan6_4 192.0.0.2 (B4)
//	      ├── br-lan 192.168.1.1/24, 2001:db8:fdd2::1/64: host .210, host2 .211
//	      └── lan2   192.168.2.1/24: lan2 .20
package lab
