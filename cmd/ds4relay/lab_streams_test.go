//go:build lab

package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/lab"
)

// Each stream carries the time in eight bytes, TCP once in every period, UDP more often.
const (
	streamPeriod   = time.Second
	streamSlots    = 50 // of a period: not all at once
	datagramPeriod = 3  // in slots
	stampBytes     = 8
)

// stream is one direction of traffic that goes on all the time.
type stream struct {
	kind    string
	number  int
	send    net.Conn     // written to by the streams' clock
	receive net.Conn     // where it arrives
	lossy   bool         // UDP
	seen    atomic.Int64 // when what has arrived last was sent, in ns since 1970
	last    atomic.Int64 // and when it arrived
	// wait is the longest time since the last call of restart that something took to arrive, or over UDP, that nothing
	// has arrived.
	wait atomic.Int64
	cut  atomic.Bool
}

// arrived takes note of a time stamp.
func (s *stream) arrived(stamp []byte) {
	now, sent := time.Now().UnixNano(), int64(binary.BigEndian.Uint64(stamp))
	s.seen.Store(sent)
	since := sent
	if last := s.last.Swap(now); s.lossy {
		since = last
	}
	if wait := now - since; wait > s.wait.Load() {
		s.wait.Store(wait)
	}
}

// streams is traffic between a client and a host of a home.
type streams struct {
	t      *testing.T
	all    []*stream
	stop   chan struct{}
	ending atomic.Bool
	doomed sync.Map // kinds of which some may be cut
	wait   sync.WaitGroup
}

// newStreams begins with nothing; begin starts the clock.
func newStreams(t *testing.T) *streams {
	s := &streams{t: t, stop: make(chan struct{})}
	t.Cleanup(s.end)
	return s
}

// end stops the traffic.
func (s *streams) end() {
	if s.ending.Swap(true) {
		return
	}
	close(s.stop)
	for _, one := range s.all {
		one.send.Close()
		one.receive.Close()
	}
	s.wait.Wait()
}

// add is one more stream, which send writes and receive reads. Neither end says anything else.
func (s *streams) add(kind string, send, receive net.Conn) {
	one := &stream{kind: kind, number: len(s.all), send: send, receive: receive}
	_, one.lossy = send.LocalAddr().(*net.UDPAddr)
	one.last.Store(time.Now().UnixNano())
	s.all = append(s.all, one)
	s.wait.Add(1)
	go func() {
		defer s.wait.Done()
		stamp := make([]byte, stampBytes)
		for {
			_, err := io.ReadFull(receive, stamp)
			switch {
			case s.ending.Load():
				return
			case err == nil:
				one.arrived(stamp)
			case !one.lossy:
				s.fails(one, err)
				return
			}
		}
	}()
}

// begin starts the clock of all streams.
func (s *streams) begin() {
	s.wait.Add(1)
	go func() {
		defer s.wait.Done()
		clock := time.NewTicker(streamPeriod / streamSlots)
		defer clock.Stop()
		stamp := make([]byte, stampBytes)
		for slot := 0; ; slot++ {
			select {
			case <-s.stop:
				return
			case <-clock.C:
			}
			for i, one := range s.all {
				period := streamSlots
				if one.lossy {
					period = datagramPeriod
				}
				if (slot+i)%period == 0 {
					binary.BigEndian.PutUint64(stamp, uint64(time.Now().UnixNano()))
					if _, err := one.send.Write(stamp); err != nil && !one.lossy {
						s.fails(one, err)
					}
				}
			}
		}
	}()
}

// fails notes that one end of a stream is broken.
func (s *streams) fails(one *stream, err error) {
	if _, ok := s.doomed.Load(one.kind); !one.cut.Swap(true) && !ok && !s.ending.Load() {
		s.t.Errorf("%s %d is cut: %v", one.kind, one.number, err)
	}
}

// cut counts the broken streams of a kind.
func (s *streams) cut(kind string) (n int) {
	for _, one := range s.all {
		if one.kind == kind && one.cut.Load() {
			n++
		}
	}
	return n
}

// since waits until something that was sent later has arrived on each stream of these kinds, and says what happened.
func (s *streams) since(what string, later time.Time, kinds ...string) {
	s.t.Helper()
	const bound = 4 * time.Minute // a busy machine, and TCP that has waited longer each time
	for end := time.Now().Add(bound); ; time.Sleep(20 * time.Millisecond) {
		stuck := s.behind(later, kinds...)
		if len(stuck) == 0 {
			break
		}
		if time.Now().After(end) {
			s.t.Fatalf("%s: %d streams are stuck: %v", what, len(stuck), stuck[:min(len(stuck), 10)])
		}
	}
	s.t.Logf("%s: the longest wait (median of the streams, and the most): %s", what, s.longest(kinds...))
}

// behind names the streams on which nothing has arrived that was sent after a time.
func (s *streams) behind(later time.Time, kinds ...string) (names []string) {
	for _, one := range s.all {
		if slices.Contains(kinds, one.kind) && one.seen.Load() <= later.UnixNano() {
			names = append(names, fmt.Sprint(one.kind, " ", one.number))
		}
	}
	return names
}

// restart forgets how long something has waited.
func (s *streams) restart() {
	for _, one := range s.all {
		one.wait.Store(0)
	}
}

// longest lists the median and the maximum of the waits of each kind.
func (s *streams) longest(kinds ...string) string {
	var list []string
	for _, kind := range kinds {
		var all []time.Duration
		for _, one := range s.all {
			if one.kind == kind {
				all = append(all, time.Duration(one.wait.Load()).Round(10*time.Millisecond))
			}
		}
		slices.Sort(all)
		list = append(list, fmt.Sprintf("%d %s %v, %v", len(all), kind, all[len(all)/2], all[len(all)-1]))
	}
	return strings.Join(list, "; ")
}

// pair opens a TCP connection from one host to another and returns its ends.
func pair(t *testing.T, from *lab.Host, to string, listener net.Listener) (client, server net.Conn) {
	t.Helper()
	client, err := from.Dial("tcp4", to, patience)
	if err != nil {
		t.Fatal(err)
	}
	if server, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// datagramsTo is a socket with one correspondent.
type datagramsTo struct {
	net.PacketConn
	to net.Addr
}

func (d datagramsTo) Read(b []byte) (int, error) {
	n, _, err := d.ReadFrom(b)
	return n, err
}

func (d datagramsTo) Write(b []byte) (int, error) { return d.WriteTo(b, d.to) }
func (d datagramsTo) RemoteAddr() net.Addr        { return d.to }

// pairUDP lets a client's datagram reach a server's socket and returns both ends.
func pairUDP(t *testing.T, from *lab.Host, to string, server net.PacketConn) (a, b net.Conn) {
	t.Helper()
	a, err := from.Dial("udp4", to, patience)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write(make([]byte, stampBytes)); err != nil {
		t.Fatal(err)
	}
	server.SetReadDeadline(time.Now().Add(patience))
	_, sender, err := server.ReadFrom(make([]byte, stampBytes))
	if err != nil {
		t.Fatal(err)
	}
	server.SetReadDeadline(time.Time{})
	return a, datagramsTo{server, sender}
}
