package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/rpc"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// The first byte of a connection tells the server what to do.
const (
	askUp   = 'u' // receive everything
	askDown = 'd' // send as much as possible
	askEcho = 'e' // echo
	askOne  = 'c' // answer with one byte and close
)

const (
	blockSize   = 256 << 10
	dialTimeout = 10 * time.Second
	// lostAfter is the time after which a datagram counts as lost. No answer takes that long here.
	lostAfter = 100 * time.Millisecond
)

// Load is the load generator: a process in the client's or the host's namespace that takes commands over its stdin and
// stdout.
type Load struct {
	received atomic.Uint64 // bytes, with askUp or askDown
	mu       sync.Mutex
	open     []net.Conn
}

// stdio combines stdin and stdout.
type stdio struct {
	io.Reader
	io.WriteCloser
}

func runLoad() error {
	l := &Load{}
	if err := rpc.Register(l); err != nil {
		return err
	}
	rpc.ServeConn(stdio{os.Stdin, os.Stdout})
	return nil
}

// Serve listens on a port with TCP and UDP.
func (l *Load) Serve(port int, _ *struct{}) error {
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	address := fmt.Sprintf(":%d", port)
	listener, err := config.Listen(context.Background(), "tcp", address)
	if err != nil {
		return err
	}
	datagrams, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go l.serve(c)
		}
	}()
	go echoDatagrams(datagrams.(*net.UDPConn))
	return nil
}

func (l *Load) serve(c net.Conn) {
	defer c.Close()
	var ask [1]byte
	if _, err := io.ReadFull(c, ask[:]); err != nil {
		return
	}
	switch ask[0] {
	case askUp:
		l.take(c)
	case askDown:
		give(c)
	case askEcho:
		for {
			n, err := c.Read(ask[:])
			if err != nil {
				return
			}
			c.Write(ask[:n])
		}
	case askOne:
		c.Write(ask[:])
	}
}

func (l *Load) take(c net.Conn) {
	block := make([]byte, blockSize)
	for {
		n, err := c.Read(block)
		l.received.Add(uint64(n))
		if err != nil {
			return
		}
	}
}

func give(c net.Conn) {
	block := make([]byte, blockSize)
	for {
		if _, err := c.Write(block); err != nil {
			return
		}
	}
}

func echoDatagrams(c *net.UDPConn) {
	block := make([]byte, 2048)
	for {
		n, from, err := c.ReadFromUDPAddrPort(block)
		if err != nil {
			return
		}
		c.WriteToUDPAddrPort(block[:n], from)
	}
}

// Received returns how many bytes have arrived so far.
func (l *Load) Received(_ struct{}, n *uint64) error {
	*n = l.received.Load()
	return nil
}

func dial(address string, ask byte) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialTimeout, KeepAlive: -1}
	dialer.SetMultipathTCP(false)
	c, err := dialer.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	c.(*net.TCPConn).SetLinger(0) // Close then leaves no TIME_WAIT
	_, err = c.Write([]byte{ask})
	return c, err
}

// OpenArgs are for Open.
type OpenArgs struct {
	Address string
	Ask     byte
	Count   int
}

// Open opens connections that stay open until Close. With askUp and askDown they transfer data; with askEcho each has
// echoed one byte.
func (l *Load) Open(args OpenArgs, _ *struct{}) error {
	for range args.Count {
		c, err := dial(args.Address, args.Ask)
		if err != nil {
			return err
		}
		l.mu.Lock()
		l.open = append(l.open, c)
		l.mu.Unlock()
		switch args.Ask {
		case askUp:
			go give(c)
		case askDown:
			go l.take(c)
		default:
			if err := trip(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close resets the connections that Open has opened.
func (l *Load) Close(struct{}, *struct{}) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.open {
		c.Close()
	}
	l.open = nil
	return nil
}

func trip(c net.Conn) error {
	var b [1]byte
	if _, err := c.Write(b[:]); err != nil {
		return err
	}
	_, err := io.ReadFull(c, b[:])
	return err
}

// TripsArgs are for Trips.
type TripsArgs struct {
	Address string
	Count   int
}

// TripsReply holds quantiles.
type TripsReply struct{ P50, P99 time.Duration }

// Trips measures the round trip of one byte, repeatedly over one connection.
func (l *Load) Trips(args TripsArgs, reply *TripsReply) error {
	c, err := dial(args.Address, askEcho)
	if err != nil {
		return err
	}
	defer c.Close()
	took := make([]time.Duration, args.Count)
	for i := range took {
		start := time.Now()
		if err := trip(c); err != nil {
			return err
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	reply.P50, reply.P99 = took[len(took)/2], took[len(took)*99/100]
	return nil
}

// RateArgs are for Connects and Datagrams.
type RateArgs struct {
	Address string
	Workers int
	Window  int // datagrams in flight at a time
	Time    time.Duration
}

// RateReply holds the results of Connects and Datagrams.
type RateReply struct {
	PerSecond float64
	Lost      float64 // as a fraction
}

// Connects opens connections, each with a round trip of one byte; the server closes first.
func (l *Load) Connects(args RateArgs, reply *RateReply) error {
	var count atomic.Uint64
	err := workers(args, func() error {
		c, err := dial(args.Address, askOne)
		if err != nil {
			return err
		}
		defer c.Close()
		if n, err := io.Copy(io.Discard, c); err != nil || n != 1 {
			return fmt.Errorf("%d bytes came, %w", n, err)
		}
		c.(*net.TCPConn).SetLinger(-1)
		count.Add(1)
		return nil
	})
	reply.PerSecond = float64(count.Load()) / args.Time.Seconds()
	return err
}

// Datagrams sends datagrams of 64 bytes, Window at a time from each socket, and receives the echoes.
func (l *Load) Datagrams(args RateArgs, reply *RateReply) error {
	var sent, came atomic.Uint64
	var mu sync.Mutex
	var free []net.Conn
	defer func() {
		for _, c := range free {
			c.Close()
		}
	}()
	for range args.Workers {
		c, err := net.Dial("udp", args.Address)
		if err != nil {
			return err
		}
		free = append(free, c)
	}
	conns := free
	err := workers(args, func() error {
		mu.Lock()
		c := conns[len(conns)-1]
		conns = conns[:len(conns)-1]
		mu.Unlock()
		defer func() {
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
		}()
		block := make([]byte, 64)
		for range args.Window {
			// The error belongs to an earlier datagram that was refused. Only the echoes count.
			if _, err := c.Write(block); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
				return err
			}
		}
		sent.Add(uint64(args.Window))
		c.SetReadDeadline(time.Now().Add(lostAfter))
		for range args.Window {
			if _, err := c.Read(block); err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					return nil
				}
				if errors.Is(err, syscall.ECONNREFUSED) {
					continue
				}
				return err
			}
			came.Add(1)
		}
		return nil
	})
	reply.PerSecond = float64(came.Load()) / args.Time.Seconds()
	if n := sent.Load(); n > 0 {
		reply.Lost = 1 - float64(came.Load())/float64(n)
	}
	return err
}

// workers calls f repeatedly from args.Workers goroutines until the time is over.
func workers(args RateArgs, f func() error) error {
	end := time.Now().Add(args.Time)
	errs := make([]error, args.Workers)
	var all sync.WaitGroup
	for i := range errs {
		all.Add(1)
		go func() {
			defer all.Done()
			for errs[i] == nil && time.Now().Before(end) {
				errs[i] = f()
			}
		}()
	}
	all.Wait()
	return errors.Join(errs...)
}
