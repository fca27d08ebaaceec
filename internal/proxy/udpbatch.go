package proxy

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batchSize is how many datagrams one system call takes or sends.
	batchSize = 32
	// maxDatagram is more than UDP's length field can tell.
	maxDatagram = 64 << 10
	// slot: a datagram's place begins in another set of the CPU's cache than that of the one before.
	slot = maxDatagram + 4<<10 + 64
	// controlSize has room for where a datagram was sent to, and the size of its segments.
	controlSize = 96
)

// mmsghdr is as recvmmsg(2) has it.
type mmsghdr struct {
	header unix.Msghdr
	n      uint32
}

// batch is the datagrams that a loop is handing over. It reads some, sends them, and keeps none: what cannot be sent is
// dropped.
type batch struct {
	in       [batchSize]mmsghdr
	iovs     [batchSize]unix.Iovec
	names    [batchSize]unix.RawSockaddrInet6 // large enough for IPv4's
	controls [batchSize][controlSize]byte
	data     []byte
	segments [batchSize]int   // their length where several datagrams came together (UDP_GRO), else 0
	next     [batchSize]int16 // the next one of the same session, or none

	// One more than are sent at once: for the segments of those that the kernel does not cut up itself.
	out         [batchSize + 1]mmsghdr
	outIovs     [batchSize + 1][2]unix.Iovec // a PROXY header, and the datagram
	outControls [batchSize + 1][controlSize]byte
	outSizes    [batchSize + 1]int
	outOf       [batchSize + 1]int16 // what came in
}

const none = -1

func newBatch() *batch {
	// What is not used of it is not in memory.
	b := &batch{data: make([]byte, batchSize*slot)}
	for i := range b.in {
		b.iovs[i].Base = &b.data[i*slot]
		b.iovs[i].SetLen(maxDatagram)
		h := &b.in[i].header
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Iov = &b.iovs[i]
		h.SetIovlen(1)
		h.Control = &b.controls[i][0]
	}
	for j := range b.out {
		b.out[j].header.Iov = &b.outIovs[j][0]
	}
	return b
}

// receive takes the datagrams that are there, at most batchSize.
func (b *batch) receive(fd int) (int, error) {
	for i := range b.in {
		h := &b.in[i].header
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(controlSize)
	}
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.in)), batchSize,
			unix.MSG_DONTWAIT, 0, 0)
		if errno == 0 {
			return int(n), nil
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// length is that of datagram i, or of several that came together.
func (b *batch) length(i int) int { return int(b.in[i].n) }

// inspect reads what the kernel says beside datagram i: where it was sent to, if the socket asks for that, and its
// segments.
func (b *batch) inspect(i int) destination {
	var local destination
	b.segments[i] = 0
	for rest := b.controls[i][:b.in[i].header.Controllen]; len(rest) >= unix.SizeofCmsghdr; {
		header, data, next, err := unix.ParseOneSocketControlMessage(rest)
		if err != nil {
			break
		}
		switch {
		case header.Level == unix.SOL_IP && header.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0]))
			// Spec_dst is this machine's address, also where the datagram was a broadcast.
			local = destination{mapped(info.Spec_dst), uint32(info.Ifindex)}
		case header.Level == unix.SOL_IPV6 && header.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0]))
			local = destination{info.Addr, info.Ifindex}
		case header.Level == unix.SOL_UDP && header.Type == unix.UDP_GRO && len(data) >= 4:
			if size := int(int32(binary.NativeEndian.Uint32(data))); size > 0 && size < b.length(i) {
				b.segments[i] = size
			}
		}
		rest = next
	}
	return local
}

// destination is an address of this machine that a datagram was sent to, and the device that it came in by.
type destination struct {
	addr   [16]byte // an IPv4 address in IPv6's form
	device uint32
}

func mapped(v4 [4]byte) [16]byte {
	return [16]byte{10: 0xff, 11: 0xff, 12: v4[0], 13: v4[1], 14: v4[2], 15: v4[3]}
}

// outlet is where datagrams go to.
type outlet struct {
	fd       int
	name     *unix.RawSockaddrInet6 // nil where the socket is connected
	nameSize uint32
	control  []byte // where they come from
	header   []byte // in front of each
	single   bool   // the kernel cannot cut up segments on this way
}

// transmit sends first and those that follow it; failed is told why some could not be sent.
func (b *batch) transmit(o *outlet, first int16, failed func(error)) (bytes, dropped uint64) {
	n := 0
	flush := func() {
		sent, lost := b.flush(o, n, failed)
		bytes, dropped, n = bytes+sent, dropped+lost, 0
	}
	for i := first; i != none; i = b.next[i] {
		whole, part := b.length(int(i)), b.segments[i]
		if part == 0 || !o.single && len(o.header) == 0 {
			part = whole
		}
		for begin := 0; ; begin += part {
			b.put(o, n, i, begin, min(begin+part, whole))
			if n++; n == batchSize {
				flush()
			}
			if begin+part >= whole {
				break
			}
		}
	}
	flush()
	return bytes, dropped
}

// put makes bytes of datagram i the jth to be sent.
func (b *batch) put(o *outlet, j int, i int16, begin, end int) {
	h, iovs, control := &b.out[j].header, &b.outIovs[j], &b.outControls[j]
	parts := 0
	if len(o.header) > 0 {
		iovs[0].Base = &o.header[0]
		iovs[0].SetLen(len(o.header))
		parts = 1
	}
	iovs[parts].Base = &b.data[int(i)*slot+begin]
	iovs[parts].SetLen(end - begin)
	h.SetIovlen(parts + 1)
	h.Name, h.Namelen = (*byte)(unsafe.Pointer(o.name)), o.nameSize
	size := copy(control[:], o.control)
	if segment := b.segments[i]; segment > 0 && end-begin > segment {
		size += putControl(control[size:], unix.SOL_UDP, unix.UDP_SEGMENT,
			binary.NativeEndian.AppendUint16(nil, uint16(segment)))
	}
	h.Control = nil
	if size > 0 {
		h.Control = &control[0]
	}
	h.SetControllen(size)
	b.outSizes[j], b.outOf[j] = end-begin, i
}

// putControl writes a control message (cmsg(3)) and returns its size.
func putControl(to []byte, level, kind int32, data []byte) int {
	header := (*unix.Cmsghdr)(unsafe.Pointer(&to[0]))
	header.Level, header.Type = level, kind
	header.SetLen(unix.CmsgLen(len(data)))
	copy(to[unix.CmsgLen(0):], data)
	return unix.CmsgSpace(len(data))
}

// flush sends the first n that were put.
func (b *batch) flush(o *outlet, n int, failed func(error)) (bytes, dropped uint64) {
	again := false
	for j := 0; j < n; {
		count, err := b.send(o.fd, j, n)
		for range count {
			bytes += uint64(b.outSizes[j])
			j++
			again = false
		}
		switch {
		case err == nil:
		case err == unix.EAGAIN, err == unix.ENOBUFS:
			// Nothing waits here for room.
			for ; j < n; j++ {
				dropped += b.parts(j)
			}
		case b.parts(j) > 1 && (err == unix.EINVAL || err == unix.EMSGSIZE || err == unix.EIO):
			// The segments are larger than the way's MTU, or there is no checksum offload for them (udp(7),
			// UDP_SEGMENT).
			o.single = true
			sent, lost := b.each(o, j, failed)
			bytes, dropped = bytes+sent, dropped+lost
			j++
		case !again && o.name == nil:
			// It may be the answer to an earlier datagram (ICMP), and this one is not sent yet.
			failed(err)
			again = true
		default:
			failed(err)
			dropped += b.parts(j)
			j++
			again = false
		}
	}
	return bytes, dropped
}

// parts is how many datagrams the jth to be sent is.
func (b *batch) parts(j int) uint64 {
	segment := b.segments[b.outOf[j]]
	if segment == 0 {
		return 1
	}
	return uint64(max(1, (b.outSizes[j]+segment-1)/segment))
}

// each sends the segments of the jth one by one.
func (b *batch) each(o *outlet, j int, failed func(error)) (bytes, dropped uint64) {
	i := b.outOf[j]
	whole, part := b.length(int(i)), b.segments[i]
	for begin := 0; begin < whole; begin += part {
		b.put(o, batchSize, i, begin, min(begin+part, whole))
		if _, err := b.send(o.fd, batchSize, batchSize+1); err != nil {
			failed(err)
			dropped++
			continue
		}
		bytes += uint64(b.outSizes[batchSize])
	}
	return bytes, dropped
}

// send sends those from first on, before last; the error is of the one that follows those that it could send.
func (b *batch) send(fd, first, last int) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.out[first])),
			uintptr(last-first), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		if errno == 0 {
			return int(n), nil
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}
