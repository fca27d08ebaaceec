package proxy

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batchSize is how many datagrams one system call receives or sends.
	batchSize = 32
	// maxDatagram is more than UDP's length field can express.
	maxDatagram = 64 << 10
	// slot is the distance between two datagrams, chosen so that they start in different sets of the CPU's cache.
	slot = maxDatagram + 4<<10 + 64
	// controlSize has room for a datagram's destination and its segment size.
	controlSize = 96
)

// mmsghdr is the struct of recvmmsg(2).
type mmsghdr struct {
	header unix.Msghdr
	n      uint32
}

// batch holds the datagrams that a loop is forwarding. It receives some and sends them at once; those that cannot be
// sent are dropped.
type batch struct {
	in       [batchSize]mmsghdr
	iovs     [batchSize]unix.Iovec
	names    [batchSize]unix.RawSockaddrInet6 // large enough for IPv4 too
	controls [batchSize][controlSize]byte
	data     []byte
	segments [batchSize]int   // segment size if UDP_GRO has merged datagrams, else 0
	next     [batchSize]int16 // next one of the same session, or none

	// One more than a call sends, for segments that the kernel does not split itself.
	out         [batchSize + 1]mmsghdr
	outIovs     [batchSize + 1][2]unix.Iovec // PROXY header and datagram
	outControls [batchSize + 1][controlSize]byte
	outSizes    [batchSize + 1]int
	outOf       [batchSize + 1]int16 // index of the received datagram
}

const none = -1

func newBatch() *batch {
	// Pages that are never used take no memory.
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

// receive receives at most batchSize waiting datagrams.
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

// length returns the length of datagram i, which may be several merged ones.
func (b *batch) length(i int) int { return int(b.in[i].n) }

// inspect reads the control messages of datagram i: its destination, if the socket asks for that, and its segment size.
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
			// Spec_dst is an address of this machine even if the datagram was a broadcast.
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

// destination is the local address that a datagram was sent to, and the device on which it arrived.
type destination struct {
	addr   [16]byte // IPv4 as IPv4-mapped
	device uint32
}

func mapped(v4 [4]byte) [16]byte {
	return [16]byte{10: 0xff, 11: 0xff, 12: v4[0], 13: v4[1], 14: v4[2], 15: v4[3]}
}

// outlet says where and how datagrams are sent.
type outlet struct {
	fd       int
	name     *unix.RawSockaddrInet6 // destination; nil if the socket is connected
	nameSize uint32
	control  []byte // sets the source address
	header   []byte // put before each datagram
	single   bool   // the kernel cannot split segments on this path
}

// transmit sends datagram first and those chained to it. It calls failed with each error.
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

// put makes bytes of datagram i the jth one to send.
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

// flush sends the first n.
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
			// No room: datagrams are dropped instead of waiting.
			for ; j < n; j++ {
				dropped += b.parts(j)
			}
		case b.parts(j) > 1 && (err == unix.EINVAL || err == unix.EMSGSIZE || err == unix.EIO):
			// The segments exceed the path MTU, or the device has no checksum offload (udp(7), UDP_SEGMENT).
			o.single = true
			sent, lost := b.each(o, j, failed)
			bytes, dropped = bytes+sent, dropped+lost
			j++
		case !again && o.name == nil:
			// The error may be an ICMP answer to an earlier datagram. Try this one again.
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

// parts returns how many datagrams the jth one to send contains.
func (b *batch) parts(j int) uint64 {
	segment := b.segments[b.outOf[j]]
	if segment == 0 {
		return 1
	}
	return uint64(max(1, (b.outSizes[j]+segment-1)/segment))
}

// each sends the segments of the jth one separately.
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

// send sends from first up to before last. It returns how many it sent, or the error of the first one.
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
