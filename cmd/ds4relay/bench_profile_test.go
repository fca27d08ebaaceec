//go:build lab && bench

package main

import (
	"cmp"
	"encoding/binary"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// samplePeriod is the time between two samples, in nanoseconds, which are instructions on the CPU that counts them. The
// kernel's least is 10,000. A prime number does not keep step with anything that recurs.
const samplePeriod = 20011

// sampleBuffer is the size of the buffer of samples, in bytes: for about 300,000 samples.
const sampleBuffer = 64 << 20

// kernelParts are parts of the kernel, with the beginnings of their functions' names. Of several parts the first
// counts. A sample belongs to the innermost function on its stack that belongs to a part, so what a part calls to
// allocate, copy or lock counts as its own.
var kernelParts = []struct {
	name      string
	functions *regexp.Regexp
}{
	{"WireGuard", regexp.MustCompile(`^(wg_|chacha|poly1305|curve25519|_?_?blake2s|padata)`)},
	{"tunnel", regexp.MustCompile(`^(_?_?ip6_tnl|ip4ip6|ip6ip6|ipxip6|ip6_tunnel|gro_cell|tunnel46|tunnel6|iptunnel)`)},
	{"flowtable", regexp.MustCompile(`^(nf_flow|flow_offload|nft_flow)`)},
	{"address translation", regexp.MustCompile(`^(_?_?nf_nat|nft_nat|nft_masq|inet_proto_csum_replace)`)},
	{"rules", regexp.MustCompile(`^(_?_?nft_|nf_hook|nf_tables|nf_reject)`)},
	{"connection tracking", regexp.MustCompile(`^(_?_?nf_conntrack|_?_?nf_ct|_?_?nf_confirm|ipv[46]_conntrack|` +
		`ipv[46]_confirm|hash_conntrack|early_drop|get_l4proto)`)},
	{"routing", regexp.MustCompile(`^(_?_?fib|_?_?ip_route|_?_?ip6_route|_?_?mkroute|ip_mkroute|ip6_pol|ip6_rt|rt6?_|` +
		`__ip_rt|ip_rt|ip6_mtu|ipv[46]_mtu|find_exception|_?_?dst_|ip6_dst|ipv[46]_dst)`)},
	{"GRO and segments", regexp.MustCompile(`^(_?_?skb_segment|_?_?skb_gso|skb_mac_gso|skb_gro|dev_gro|napi_gro|gro_|` +
		`inet_g[rs]o|ipv6_g[rs]o|tcp[46]?_g[rs]o|validate_xmit)`)},
	{"IP", regexp.MustCompile(`^(_?_?ip_|_?_?ip6_|_?_?ipv[46]_|_?_?neigh_|arp_|ndisc|icmp)`)},
	{"sockets and TCP", regexp.MustCompile(`^(_?_?tcp_|_?_?sock_|_?_?inet6?_|_?_?sk_|_?_?sys_|lock_sock|release_sock|` +
		`do_tcp|do_accept|ksys_|vfs_|secure_|reqsk|udp)`)},
	{"cards and bridge", regexp.MustCompile(`^(veth|_?_?br_|_?_?dev_|_?_?netif|_?_?napi|process_backlog|net_rx|net_tx|` +
		`eth_|enqueue_to|netdev)`)},
	{"tasks", regexp.MustCompile(`^(_?_?schedule|do_futex|_?_?futex|_?_?wake|try_to_wake|ttwu|do_epoll|ep_|__x64_sys|` +
		`pick_next|finish_task|cpu_startup|hrtimer|do_nanosleep|run_ksoftirqd|smpboot|kthread|worker|process_one|tick_|` +
		`rcu_|update_|exit_to_user|syscall_|do_syscall|entry_)`)},
}

// profiler samples where the CPU is.
type profiler struct {
	t         *testing.T
	fd        int
	ring      []byte
	addresses []uint64 // of the kernel's functions, ascending
	functions []string
}

func newProfiler(t *testing.T) *profiler {
	t.Helper()
	// Samples that take long do not make the kernel take fewer.
	if err := os.WriteFile("/proc/sys/kernel/perf_cpu_time_max_percent", []byte("0"), 0o644); err != nil {
		t.Fatal(err)
	}
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK, Sample: samplePeriod,
		Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Sample_type: unix.PERF_SAMPLE_CALLCHAIN,
		Bits: unix.PerfBitDisabled | unix.PerfBitExcludeCallchainUser | unix.PerfBitExcludeIdle,
	}
	fd, err := unix.PerfEventOpen(&attr, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		t.Fatal("perf_event_open:", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	ring, err := unix.Mmap(fd, 0, os.Getpagesize()+sampleBuffer, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal("mmap:", err)
	}
	t.Cleanup(func() { unix.Munmap(ring) })
	return &profiler{t: t, fd: fd, ring: ring}
}

// readSymbols reads the addresses of the kernel's functions, those of its modules included.
func (p *profiler) readSymbols() {
	p.t.Helper()
	text, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		p.t.Fatal(err)
	}
	type symbol struct {
		address uint64
		name    string
	}
	var symbols []symbol
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if address, err := strconv.ParseUint(words[0], 16, 64); err == nil && strings.ContainsAny(words[1], "tTwW") {
			symbols = append(symbols, symbol{address, words[2]})
		}
	}
	slices.SortStableFunc(symbols, func(a, b symbol) int { return cmp.Compare(a.address, b.address) })
	p.addresses, p.functions = nil, nil
	for _, s := range symbols {
		p.addresses, p.functions = append(p.addresses, s.address), append(p.functions, s.name)
	}
}

func (p *profiler) function(address uint64) string {
	i, exact := slices.BinarySearch(p.addresses, address)
	if !exact {
		i--
	}
	if i < 0 {
		return "?"
	}
	return p.functions[i]
}

func (p *profiler) control(request uint) {
	p.t.Helper()
	if err := unix.IoctlSetInt(p.fd, request, 0); err != nil {
		p.t.Fatal("perf:", err)
	}
}

// sample runs something, and returns the shares of the parts in its time, and those of their functions.
func (p *profiler) sample(run func()) (parts, functions map[string]float64) {
	p.t.Helper()
	p.readSymbols()
	page := (*unix.PerfEventMmapPage)(unsafe.Pointer(&p.ring[0]))
	position := page.Data_head
	p.control(unix.PERF_EVENT_IOC_ENABLE)
	run()
	p.control(unix.PERF_EVENT_IOC_DISABLE)
	data := p.ring[os.Getpagesize():]
	read := func(n int) []byte {
		record := make([]byte, n)
		for i := range record {
			record[i] = data[(position+uint64(i))%sampleBuffer]
		}
		return record
	}
	parts, functions = map[string]float64{}, map[string]float64{}
	samples := 0
	for position < page.Data_head {
		head := read(8) // struct perf_event_header
		kind, size := binary.NativeEndian.Uint32(head), binary.NativeEndian.Uint16(head[6:])
		switch kind {
		case unix.PERF_RECORD_LOST:
			p.t.Fatal("the buffer of samples is too small")
		case unix.PERF_RECORD_SAMPLE:
			part, function := p.place(read(int(size))[16:]) // after the header and the number of addresses
			parts[part]++
			functions[function]++
			samples++
		}
		position += uint64(size)
	}
	page.Data_tail = page.Data_head
	for _, counts := range []map[string]float64{parts, functions} {
		for name := range counts {
			counts[name] /= float64(samples)
		}
	}
	return parts, functions
}

// place returns the part to which a call chain belongs, and the function in it, with the innermost one.
func (p *profiler) place(chain []byte) (part, function string) {
	const context = ^uint64(4095) // the addresses from here on are no addresses: PERF_CONTEXT_…, linux/perf_event.h
	innermost := ""
	for ; len(chain) >= 8; chain = chain[8:] {
		address := binary.NativeEndian.Uint64(chain)
		if address >= context {
			continue
		}
		name := p.function(address)
		if innermost == "" {
			innermost = name
		}
		for _, part := range kernelParts {
			if part.functions.MatchString(name) {
				if name != innermost {
					name += " → " + innermost
				}
				return part.name, part.name + ": " + name
			}
		}
	}
	if innermost == "" {
		return "programs", "programs"
	}
	return "other", "other: " + innermost
}
