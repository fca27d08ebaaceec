package packetio

import (
	"maps"
	"slices"
	"time"
	"unsafe"

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
	to := 0 // all
	if len(t.devices) == 1 {
		for index := range t.devices {
			to = index
		}
	}
	return t, t.bind(to)
}

// OpenOn makes a tap for one device that the caller knows.
func OpenOn(device string, index int) (*Tap, error) {
	t := &Tap{devices: map[int]string{index: device}}
	return t, t.bind(index)
}

// bind opens the socket for the device with that index, or for all if it is 0.
func (t *Tap) bind(index int) error {
	// SOCK_DGRAM leaves the link header away, which tunnels do not have.
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return message.New("open a packet socket: %v", err)
	}
	unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) // less will do on a quiet machine
	to := &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL), Ifindex: index}
	if err := unix.Bind(socket, to); err != nil {
		unix.Close(socket)
		return message.New("bind a packet socket: %v", err)
	}
	t.socket = socket
	return nil
}

// instruction is unix.SockFilter: what a socket's filter does (linux/filter.h), and how many instructions a jump skips.
type instruction struct {
	code    uint16
	yes, no uint8
	k       uint32
}

// Kinds of instructions. load is of a byte; data begin with the IP header. verdict says how many bytes are seen.
const (
	load    = unix.BPF_LD | unix.BPF_B
	equal   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	verdict = unix.BPF_RET | unix.BPF_K
)

// answers is the filter of OnlyAnswers.
var answers = [...]instruction{
	{load | unix.BPF_ABS, 0, 0, 0}, // the version
	{unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K, 0, 0, 4},
	{equal, 2, 0, 4},
	{load | unix.BPF_ABS, 0, 0, 6}, // IPv6's next header
	{equal, 7, 6, unix.IPPROTO_ICMPV6},
	{load | unix.BPF_ABS, 0, 0, 9}, // IPv4's protocol
	{equal, 5, 0, unix.IPPROTO_ICMP},
	{unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, 0, 0, 0}, // the length of its header
	{load | unix.BPF_IND, 0, 0, 2},                      // the first byte of the destination port
	{equal, 2, 0, AnswerPort >> 8},
	{verdict, 0, 0, 0},
	{verdict, 0, 0, 0},
	{verdict, 0, 0, snapshot},
}

// AnswerPort is the first of the 256 ports of OnlyAnswers.
const AnswerPort = 0xb500

// OnlyAnswers lets the tap see nothing but ICMP, ICMPv6, and IPv4 packets to AnswerPort and the 255 ports that follow.
// So it costs little on a busy machine.
func (t *Tap) OnlyAnswers() error {
	err := unix.SetsockoptSockFprog(t.socket, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(answers)), Filter: (*unix.SockFilter)(unsafe.Pointer(&answers))})
	if err != nil {
		return message.New("attach a filter to a packet socket: %v", err)
	}
	return nil
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
