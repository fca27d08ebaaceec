package proxy

import (
	"bytes"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
)

// churnUDP runs sessions through a proxy, many at a time, until next returns false. Each sends bursts of datagrams of
// all sizes, which must come back unchanged and in order. Clients leave silently; their sessions are evicted or expire.
func churnUDP(t *testing.T, next func() (seed uint64, ok bool)) {
	const many = 32
	// What all of them send at a time has to fit into the target's socket and the proxy's: with little room some wait.
	const burst = 128 << 10 // bytes at most, as the kernel counts them
	room := min(enlarge(t, listenPacket(t, "[::1]:0")), 2*udpBuffer)
	sending := make(chan struct{}, max(1, min(many, room/burst)))
	// Answers are the questions with their bits inverted, so that they cannot be confused.
	p := udp(t, packetTarget(t, "[::1]:0", func(d datagram) []byte {
		subtle.XORBytes(d.data, d.data, allOnes)
		return repeat(d)
	}))
	p.MaxSessions = 4 * many
	// On a busy machine an answer takes long. No session that waits for one is evicted: at most as many as may send
	// wait, which is less than their share of the table.
	s := start(t, Options{AnswerTime: patience}, p)
	var mu sync.Mutex
	var all sync.WaitGroup
	for range many {
		all.Add(1)
		go func() {
			defer all.Done()
			for {
				mu.Lock()
				seed, ok := next()
				mu.Unlock()
				if !ok || t.Failed() {
					return
				}
				if err := playUDP(p.Listen[0].String(), seed, sending); err != nil {
					t.Errorf("session %d: %v", seed, err)
				}
			}
		}()
	}
	all.Wait()
	brief := *p
	brief.IdleTimeout = time.Second
	if err := s.Apply([]*config.Proxy{&brief}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the last session's end", func() bool { return s.Status()[0].Sessions == 0 })
	if status := s.Status()[0]; status.Dropped > 0 || len(status.Refused) > 0 || status.BytesUp != status.BytesDown {
		t.Errorf("%+v", status)
	}
}

var allOnes = bytes.Repeat([]byte{0xff}, maxDatagram)

// playUDP is one session; sending has room for those that have sent and wait for answers.
func playUDP(to string, seed uint64, sending chan struct{}) error {
	rng := rand.New(rand.NewPCG(seed, 3))
	c, err := net.Dial("udp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	got := make([]byte, maxDatagram)
	for burst := range 1 + rng.IntN(4) {
		sending <- struct{}{}
		err := playBurst(c, rng, seed, burst, got)
		<-sending
		if err != nil {
			return err
		}
	}
	return nil
}

// playBurst sends datagrams and waits for their answers.
func playBurst(c net.Conn, rng *rand.Rand, seed uint64, burst int, got []byte) error {
	var sent [][]byte
	total := 0
	for range 1 + rng.IntN(8) {
		size := rng.IntN(1500)
		if rng.IntN(10) == 0 {
			size = rng.IntN(65508)
		}
		// Data in flight fits a socket's default buffer, in case it cannot be enlarged.
		if total += size; total > 40000 && len(sent) > 0 {
			break
		}
		data := binary.LittleEndian.AppendUint64(nil, seed)
		for len(data) < size {
			data = binary.LittleEndian.AppendUint64(data, rng.Uint64())
		}
		sent = append(sent, data[:size])
		if _, err := c.Write(data[:size]); err != nil {
			return err
		}
	}
	for i, want := range sent {
		n, err := c.Read(got)
		subtle.XORBytes(got[:n], got[:n], allOnes)
		if err != nil || !bytes.Equal(got[:n], want) {
			return fmt.Errorf("burst %d: %d bytes came that are not datagram %d of %d (%d bytes), %v", burst, n, i,
				len(sent), len(want), err)
		}
	}
	return nil
}

// TestRandomDatagrams compares the data of UDP sessions.
func TestRandomDatagrams(t *testing.T) {
	seed := uint64(0)
	churnUDP(t, func() (uint64, bool) {
		seed++
		return seed, seed <= uint64(*randomConnections)
	})
}
