package packetio

import (
	"encoding/binary"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/message"
)

var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// Send puts an IPv4 packet into a tunnel: past this machine's routing and netfilter, which the packet in IPv6 then
// meets.
func Send(device string, packet []byte) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return message.New("%s: %v", device, err)
	}
	// Not SOCK_DGRAM: that wants a link address, of 16 bytes for an ip6tnl, which SockaddrLinklayer cannot hold.
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return message.New("open a packet socket: %v", err)
	}
	defer unix.Close(socket)
	to := &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_IP), Ifindex: link.Attrs().Index}
	if err := unix.Sendto(socket, packet, 0, to); err != nil {
		return message.New("send into %s: %v", device, err)
	}
	return nil
}

// Numbers of bpf(2).
const (
	progLoad      = 5
	progTestRun   = 10
	schedCLS      = 3  // BPF_PROG_TYPE_SCHED_CLS
	cloneRedirect = 13 // BPF_FUNC_clone_redirect
	ingress       = 1  // BPF_F_INGRESS
)

// Inject makes this machine treat a packet as if it had just come in by the device. There is no other way to try that
// from within: what a machine sends to itself is not translated, and comes by lo. A program of four instructions is run
// once over the packet (BPF_PROG_TEST_RUN) and hands it to the device's input; nothing of it stays. Where the kernel
// has no bpf(2), an IPv6 packet comes by lo: past the filters of the device, but out of a tunnel like any other.
func Inject(device string, packet []byte) error {
	err := redirect(device, packet)
	if err != nil && packet[0]>>4 == 6 {
		return loop(packet)
	}
	return err
}

func loop(packet []byte) error {
	if err := raw(packet, false); err != nil {
		return message.New("send to this machine: %v", err)
	}
	return nil
}

// SendIPv6 sends an IPv6 packet with one of this machine's addresses as its source. It is never fragmented, and may be
// larger than what the kernel has learnt about the path.
func SendIPv6(packet []byte) error { return raw(packet, true) }

// raw sends an IPv6 packet. With asIs it is bound to its source, which routes may depend on, and not fragmented.
func raw(packet []byte, asIs bool) error {
	socket, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return message.New("open a raw socket: %v", err)
	}
	defer unix.Close(socket)
	if asIs {
		err = unix.SetsockoptInt(socket, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
		if err == nil {
			err = unix.Bind(socket, &unix.SockaddrInet6{Addr: [16]byte(packet[8:])})
		}
	}
	if err != nil {
		return err
	}
	return unix.Sendto(socket, packet, 0, &unix.SockaddrInet6{Addr: [16]byte(packet[24:])})
}

func redirect(device string, packet []byte) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return message.New("%s: %v", device, err)
	}
	program, err := redirector(link.Attrs().Index)
	if err != nil {
		return message.New("load a program with bpf(2): %v", err)
	}
	defer unix.Close(program)
	frame := make([]byte, 14, 14+len(packet)) // Ethernet; taken off again where the device has none
	copy(frame, link.Attrs().HardwareAddr)
	binary.BigEndian.PutUint16(frame[12:], unix.ETH_P_IP)
	if packet[0]>>4 == 6 {
		binary.BigEndian.PutUint16(frame[12:], unix.ETH_P_IPV6)
	}
	frame = append(frame, packet...)
	run := struct { // of union bpf_attr
		program, result uint32
		size, outSize   uint32
		data, out       uint64
		repeat          uint32
		duration        uint32
	}{program: uint32(program), size: uint32(len(frame)), data: uint64(uintptr(unsafe.Pointer(&frame[0])))}
	if _, err := bpf(progTestRun, unsafe.Pointer(&run), unsafe.Sizeof(run)); err != nil {
		return message.New("run a program with bpf(2): %v", err)
	}
	if run.result != 0 {
		return message.New("hand a packet to %s: %v", device, unix.Errno(-int32(run.result)))
	}
	return nil
}

// redirector loads the program `return bpf_clone_redirect(skb, index, BPF_F_INGRESS)`.
func redirector(index int) (int, error) {
	type instruction struct {
		code, registers uint8
		offset          int16
		value           int32
	}
	move := func(register uint8, value int32) instruction { // mov rN, value
		if !littleEndian {
			register <<= 4
		}
		return instruction{0xb7, register, 0, value}
	}
	program := []instruction{move(2, int32(index)), move(3, ingress), {code: 0x85, value: cloneRedirect}, {code: 0x95}}
	license := []byte("Apache-2.0\x00")
	load := struct { // of union bpf_attr
		kind, count           uint32
		instructions, license uint64
		logLevel, logSize     uint32
		log                   uint64
		version, flags        uint32
	}{kind: schedCLS, count: uint32(len(program)), instructions: uint64(uintptr(unsafe.Pointer(&program[0]))),
		license: uint64(uintptr(unsafe.Pointer(&license[0])))}
	return bpf(progLoad, unsafe.Pointer(&load), unsafe.Sizeof(load))
}

func bpf(command int, attr unsafe.Pointer, size uintptr) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(attr), size)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
