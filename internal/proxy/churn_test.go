package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var (
	randomConnections = flag.Int("connections", 500, "how many connections TestRandomConnections makes")
	soakTime          = flag.Duration("soak", 2*time.Second, "how long TestSoak goes on")
)

// script is what both sides of a connection do, derived from a seed that both know.
type script struct {
	seed   uint64
	client actor
	target actor
}

// actor is what one side does.
type actor struct {
	bytes int
	reset bool // reset after sending, instead of a FIN
	slow  bool // pauses between reads
	pause int  // pauses after one chunk in this many; 0: never
}

func newScript(seed uint64) script {
	rng := rand.New(rand.NewPCG(seed, 1))
	draw := func() actor {
		a := actor{bytes: rng.IntN(3000), slow: rng.IntN(8) == 0}
		switch rng.IntN(20) {
		case 0:
			a.bytes = 0
		case 1, 2:
			a.bytes = rng.IntN(1 << 20)
		}
		if rng.IntN(4) == 0 {
			a.pause = 1 + rng.IntN(8)
		}
		return a
	}
	s := script{seed: seed, client: draw(), target: draw()}
	switch rng.IntN(8) {
	case 0:
		s.client.reset = true
	case 1:
		s.target.reset = true
	}
	return s
}

// content returns the bytes that a side sends; side 0 is the client.
func (s script) content(side uint64, n int) []byte {
	data := make([]byte, n)
	source := rand.NewChaCha8([32]byte{})
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], s.seed)
	key[8] = byte(side)
	source.Seed(key)
	source.Read(data)
	return data
}

// play acts out one side of the script and checks what the other side sends.
func (s script) play(c *net.TCPConn, side uint64, me, other actor) error {
	rng := rand.New(rand.NewPCG(s.seed, 2+side))
	c.SetDeadline(time.Now().Add(patience))
	var writing sync.WaitGroup
	var writeErr error
	writing.Add(1)
	go func() {
		defer writing.Done()
		rest := s.content(side, me.bytes)
		for len(rest) > 0 {
			chunk := rest[:min(len(rest), 1+rng.IntN(40000))]
			if _, writeErr = c.Write(chunk); writeErr != nil {
				return
			}
			rest = rest[len(chunk):]
			if me.pause > 0 && rng.IntN(me.pause) == 0 {
				time.Sleep(time.Duration(rng.IntN(2000)) * time.Microsecond)
			}
		}
		if me.reset {
			c.SetLinger(0)
			writeErr = c.Close()
			return
		}
		writeErr = c.CloseWrite()
	}()
	got, readErr := read(c, me.slow)
	writing.Wait()
	if want := s.content(1-side, other.bytes); !bytes.HasPrefix(want, got) {
		return fmt.Errorf("%d bytes came that were not sent so", len(got))
	}
	switch {
	case me.reset: // data in flight is lost, as it is without a proxy
		return nil
	case other.reset:
		// The kernel reports a reset once, to the first call.
		if !errors.Is(readErr, syscall.ECONNRESET) && !errors.Is(writeErr, syscall.ECONNRESET) &&
			!errors.Is(writeErr, syscall.EPIPE) {
			return fmt.Errorf("the other side has reset, but reading says %v and writing %v", readErr, writeErr)
		}
		return nil
	case readErr != nil || writeErr != nil || len(got) != other.bytes:
		return fmt.Errorf("%d bytes of %d came, reading says %v and writing %v", len(got), other.bytes, readErr,
			writeErr)
	}
	return nil
}

func read(c io.Reader, slow bool) ([]byte, error) {
	var all bytes.Buffer
	block := make([]byte, 32<<10)
	for {
		n, err := c.Read(block)
		all.Write(block[:n])
		switch {
		case err == io.EOF:
			return all.Bytes(), nil
		case err != nil:
			return all.Bytes(), err
		case slow:
			time.Sleep(500 * time.Microsecond)
		}
	}
}

// churn runs scripts through a proxy, many at a time, until next returns false.
func churn(t *testing.T, next func() (seed uint64, ok bool)) {
	const many = 64
	var failures atomic.Int32
	fail := func(err error) {
		if failures.Add(1) <= 10 {
			t.Error(err)
		}
	}
	p := tcp(t, target(t, "[::1]:0", func(c *net.TCPConn) {
		var seed [8]byte
		if _, err := io.ReadFull(c, seed[:]); errors.Is(err, syscall.ECONNRESET) {
			return // the client left before the target answered
		} else if err != nil {
			fail(fmt.Errorf("no script: %w", err))
			return
		}
		s := newScript(binary.LittleEndian.Uint64(seed[:]))
		if err := s.play(c, 1, s.target, s.client); err != nil {
			fail(fmt.Errorf("connection %d, target: %w", s.seed, err))
		}
	}))
	s := start(t, Options{}, p)
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
				if !ok {
					return
				}
				s := newScript(seed)
				c, err := net.DialTimeout("tcp", p.Listen[0].String(), patience)
				if err == nil {
					_, err = c.Write(binary.LittleEndian.AppendUint64(nil, seed))
				}
				if err == nil {
					err = s.play(c.(*net.TCPConn), 0, s.client, s.target)
					c.Close()
				}
				if err != nil {
					fail(fmt.Errorf("connection %d, client: %w", seed, err))
				}
			}
		}()
	}
	all.Wait()
	eventually(t, "the last session's end", func() bool { return s.Status()[0].Sessions == 0 })
}

// TestRandomConnections compares the data of connections with pauses, half-closes, resets and slow readers.
func TestRandomConnections(t *testing.T) {
	seed := uint64(0)
	churn(t, func() (uint64, bool) {
		seed++
		return seed, seed <= uint64(*randomConnections)
	})
}

// TestSoak: all descriptors are closed again, however connections and sessions end.
func TestSoak(t *testing.T) {
	files, goroutines := openFiles(t), runtime.NumGoroutine()
	t.Run("churn", func(t *testing.T) {
		end := time.Now().Add(*soakTime)
		start := uint64(time.Now().UnixNano())
		t.Logf("the first script is %d", start+1)
		more := func() func() (uint64, bool) {
			seed := start
			return func() (uint64, bool) {
				seed++
				return seed, time.Now().Before(end)
			}
		}
		var both sync.WaitGroup
		both.Add(1)
		go func() {
			defer both.Done()
			churn(t, more())
		}()
		both.Add(1)
		go func() {
			defer both.Done()
			churnUDP(t, more())
		}()
		both.Wait()
	})
	eventually(t, "the end of what was begun", func() bool {
		return openFiles(t) <= files && runtime.NumGoroutine() <= goroutines
	})
}
