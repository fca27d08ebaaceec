package packetio

import (
	"maps"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/message"
)

const (
	snapshot = 512     // bytes kept of each packet: an error quotes at least 28 bytes behind its headers
	buffer   = 4 << 20 // bytes that the kernel holds for a slow reader
)

// Frame is a packet on a device, from its IP header on.
type Frame struct {
	Device string
	Out    bool // it leaves; else it has come in
	Data   []byte
}

// Tap sees the IP packets of some devices: what comes in before netfilter does, what goes out after it.
type Tap struct {
	socket  int
	devices map[int]string
}

// Open makes a tap for devices by name, or for all. Ports of a bridge are no devices of their own then: what crosses
// them crosses the bridge.
func Open(names ...string) (*Tap, error) {
	t := &Tap{devices: map[int]string{}}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, message.New("list links: %v", err)
	}
	bridges := map[int]bool{}
	for _, link := range links {
		bridges[link.Attrs().Index] = link.Type() == "bridge" || link.Type() == "bond"
	}
	for _, link := range links {
		attrs := link.Attrs()
		if slices.Contains(names, attrs.Name) || len(names) == 0 && !bridges[attrs.MasterIndex] {
			t.devices[attrs.Index] = attrs.Name
		}
	}
	for _, name := range names {
		if !slices.Contains(slices.Collect(maps.Values(t.devices)), name) {
			return nil, message.New("there is no device %s", name)
		}
	}
	// SOCK_DGRAM leaves the link header away, which tunnels do not have.
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, message.New("open a packet socket: %v", err)
	}
	unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) // less will do on a quiet machine
	to := &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL)}
	if len(t.devices) == 1 {
		for index := range t.devices {
			to.Ifindex = index
		}
	}
	if err := unix.Bind(socket, to); err != nil {
		unix.Close(socket)
		return nil, message.New("bind a packet socket: %v", err)
	}
	t.socket = socket
	return t, nil
}

// AnswerPort is the first of the 256 ports of OnlyAnswers.
const AnswerPort = 0xb500

// OnlyAnswers lets the tap see nothing but ICMP, ICMPv6, and IPv4 packets to AnswerPort and the 255 ports that follow.
// So it costs little on a busy machine.
func (t *Tap) OnlyAnswers() error {
	const (
		load    = unix.BPF_LD | unix.BPF_B // a byte; data begin with the IP header
		equal   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		verdict = unix.BPF_RET | unix.BPF_K // how many bytes are seen
	)
	answers := [...]unix.SockFilter{
		filter(load|unix.BPF_ABS, 0, 0, 0), // the version
		filter(unix.BPF_ALU|unix.BPF_RSH|unix.BPF_K, 4, 0, 0),
		filter(equal, 4, 2, 0),
		filter(load|unix.BPF_ABS, 6, 0, 0), // IPv6's next header
		filter(equal, unix.IPPROTO_ICMPV6, 7, 6),
		filter(load|unix.BPF_ABS, 9, 0, 0), // IPv4's protocol
		filter(equal, unix.IPPROTO_ICMP, 5, 0),
		filter(unix.BPF_LDX|unix.BPF_B|unix.BPF_MSH, 0, 0, 0), // the length of its header
		filter(load|unix.BPF_IND, 2, 0, 0),                    // the first byte of the destination port
		filter(equal, AnswerPort>>8, 2, 0),
		filter(verdict, 0, 0, 0),
		filter(verdict, 0, 0, 0),
		filter(verdict, snapshot, 0, 0),
	}
	err := unix.SetsockoptSockFprog(t.socket, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(answers)), Filter: &answers[0]})
	if err != nil {
		return message.New("attach a filter to a packet socket: %v", err)
	}
	return nil
}

// filter is an instruction of a socket's filter (linux/filter.h). yes and no are how many instructions a jump skips.
func filter(code uint16, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: code, K: k, Jt: yes, Jf: no}
}

// Close ends it.
func (t *Tap) Close() { unix.Close(t.socket) }

// Next waits for a packet until the deadline; ok is false where none came.
func (t *Tap) Next(deadline time.Time) (frame Frame, ok bool, err error) {
	data := make([]byte, snapshot)
	for {
		n, from, err := unix.Recvfrom(t.socket, data, unix.MSG_TRUNC)
		switch err {
		case nil:
		case unix.EINTR, unix.ENETDOWN: // which is told once, when a device goes down
			continue
		case unix.EAGAIN:
			left := time.Until(deadline)
			if left <= 0 {
				return frame, false, nil
			}
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(t.socket), Events: unix.POLLIN}},
				int(left.Milliseconds())+1); err != nil && err != unix.EINTR {
				return frame, false, err
			}
			continue
		default:
			return frame, false, err
		}
		link, isLink := from.(*unix.SockaddrLinklayer)
		if !isLink || link.Protocol != bigEndian(unix.ETH_P_IP) && link.Protocol != bigEndian(unix.ETH_P_IPV6) {
			continue
		}
		if name, ok := t.devices[link.Ifindex]; ok {
			return Frame{Device: name, Out: link.Pkttype == unix.PACKET_OUTGOING, Data: data[:min(n, snapshot)]},
				true, nil
		}
		if time.Now().After(deadline) {
			return frame, false, nil
		}
	}
}

// bigEndian is htons for constants that are given as numbers.
func bigEndian(n uint16) uint16 {
	if littleEndian {
		return n<<8 | n>>8
	}
	return n
}
