package probe

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/doctor"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/packet"
	"github.com/ds4relay/ds4relay/internal/packetio"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// Try implements doctor.Prober.
func (m *Prober) Try(t doctor.Trial) (seen doctor.Seen) {
	seen.Counters = map[string]uint64{}
	tap, err := packetio.Open()
	if err != nil {
		seen.Err = err
		return seen
	}
	defer tap.Close()
	var before map[string]uint64
	if t.Follow.IsValid() || t.FollowPort != 0 {
		if f := follow(t.Follow, t.FollowPort); f != nil {
			defer func() { seen.Verdicts = f.end() }()
		}
		before = counters()
	}
	var sockets []int
	defer func() {
		for _, socket := range sockets {
			unix.Close(socket)
		}
	}()
	for _, d := range t.Dials {
		if socket, err := begin(d); err != nil {
			seen.Err = err
		} else {
			sockets = append(sockets, socket)
		}
	}
	for _, data := range t.Packets {
		switch {
		case t.Into != "":
			err = packetio.Send(t.Into, data)
		case t.By != "":
			err = packetio.Inject(t.By, data)
		default:
			err = packetio.SendIPv6(data)
		}
		if err != nil {
			seen.Err = err
			return seen
		}
	}
	for deadline := time.Now().Add(t.Wait); ; {
		frame, ok, err := tap.Next(deadline)
		if err != nil || !ok {
			if err != nil {
				seen.Err = message.New("look for packets: %v", err)
			}
			break
		}
		p, ok := packet.Decode(frame.Data)
		s := doctor.Sighting{Device: frame.Device, Out: frame.Out, Packet: p}
		if !ok || !t.Match(s) {
			continue
		}
		seen.Sightings = append(seen.Sightings, s)
		if t.Key.Valid() && !s.Out && s.Proto == packet.UDP && s.Type == transport.Initiation {
			seen.Foreign = seen.Foreign || !t.Key.Addressed(udpPayload(frame.Data))
		}
		if t.Done(s) {
			break
		}
		if t.More != nil && t.More(s) {
			deadline = time.Now().Add(t.Longer)
		}
	}
	if before != nil {
		for name, n := range counters() {
			if n > before[name] {
				seen.Counters[name] = n - before[name]
			}
		}
	}
	return seen
}

// udpPayload returns the payload of a UDP packet without IPv6 extension headers.
func udpPayload(data []byte) []byte {
	header := 40
	if data[0]>>4 == 4 {
		header = int(data[0]&0xf) * 4
	}
	return data[min(header+8, len(data)):]
}

// begin sends the first packet of a connection, as this machine's programs do, and returns the socket.
func begin(d doctor.Dial) (socket int, err error) {
	kind, number := unix.SOCK_DGRAM, 0
	var data []byte
	switch d.Proto {
	case packet.TCP:
		kind = unix.SOCK_STREAM
	case packet.ICMP:
		kind, number, data = unix.SOCK_RAW, unix.IPPROTO_ICMP, packet.MakeEcho(d.To, d.To, 64, 1, 1, 56)[20:]
	}
	socket, err = unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, number)
	if err != nil {
		return socket, err
	}
	err = unix.Connect(socket, &unix.SockaddrInet4{Addr: d.To.As4(), Port: int(d.Port)})
	if err == unix.EINPROGRESS {
		err = nil
	}
	if err == nil && d.Proto != packet.TCP {
		_, err = unix.Write(socket, data)
	}
	if err != nil {
		unix.Close(socket)
	}
	return socket, err
}
