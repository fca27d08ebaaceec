//go:build !openwrt

package traffic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
)

// Options are what the service needs.
type Options struct {
	Run  string // the directory of records
	File string // the configuration
	// Load reads the configuration; it is called again when the file has changed. After an error the former one stays.
	Load func() ([]*config.Relay, error)
	// Say reports why counting has stopped.
	Say func(string)
}

// idle is after how long nobody seems to ask any more. Until the next question nothing is counted.
const idle = time.Hour

// look is the interval of looking for a change of the file.
const look = 10 * time.Second

// service answers on the socket. It listens to connections from the first question on.
type service struct {
	Options
	counter *counter
	file    os.FileInfo // as it was when the configuration was loaded
	asked   time.Time

	ends     *kernel.Ends // nil if nothing is counted
	stop     context.CancelFunc
	done     chan struct{} // closed when nobody reads ends any more
	switched bool          // on: the kernel's accounting, by this service
}

// Run answers until the context ends. Two of them cannot run at once.
func Run(ctx context.Context, options Options) error {
	listener, err := listen(options.Run)
	if err != nil {
		return fmt.Errorf("count what forwards carry: %w", err)
	}
	defer listener.Close()
	defer context.AfterFunc(ctx, func() { listener.SetDeadline(time.Unix(1, 0)) })()
	s := &service{Options: options, counter: newCounter()}
	defer s.end()
	for ctx.Err() == nil {
		var next time.Time
		if s.ends != nil {
			next = time.Now().Add(look)
		}
		listener.SetDeadline(next)
		if ctx.Err() != nil {
			break
		}
		conn, err := listener.Accept()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			s.wake()
		case err != nil:
			time.Sleep(look / 100) // out of descriptors
		default:
			s.serve(ctx, conn)
		}
	}
	return nil
}

// listen replaces the socket of a process that is gone.
func listen(run string) (*net.UnixListener, error) {
	if err := os.MkdirAll(run, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(run, SocketName)
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("another process does it (%s)", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return nil, err
	}
	return listener, nil
}

func (s *service) serve(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	totals, err := s.answer(ctx)
	if err != nil {
		totals = &Totals{Error: err.Error()}
	}
	conn.SetDeadline(time.Now().Add(answerTime))
	_ = json.NewEncoder(conn).Encode(totals) // the one who asked may be gone
}

// answer begins to count if nobody has asked for a while.
func (s *service) answer(ctx context.Context) (*Totals, error) {
	s.asked = time.Now()
	if err := s.reload(); err != nil {
		return nil, err
	}
	s.endIfBroken()
	if s.ends == nil {
		if err := s.begin(ctx); err != nil {
			return nil, err
		}
	}
	if err := s.counter.look(s.ends); err != nil {
		s.end()
		return nil, err
	}
	counted, err := kernel.Accounting()
	return &Totals{Counted: counted, Lost: s.counter.lost, Forwards: s.counter.report()}, err
}

// reload reads the configuration if the file has changed.
func (s *service) reload() error {
	file, err := os.Stat(s.File)
	if err == nil && s.file != nil && os.SameFile(file, s.file) && file.Size() == s.file.Size() &&
		file.ModTime().Equal(s.file.ModTime()) {
		return nil
	}
	relays, loadErr := s.Load()
	if loadErr == nil {
		s.counter.configure(relays)
	}
	s.file = file
	if s.counter.index == nil {
		return loadErr
	}
	return nil
}

// record is a file that is there while the kernel's accounting is on only for this service.
func (s *service) record() string { return filepath.Join(s.Run, "accounting") }

func (s *service) begin(ctx context.Context) error {
	counted, err := kernel.Accounting()
	_, recorded := os.Stat(s.record())
	switch {
	case err == nil && counted:
		s.switched = recorded == nil // by one that was killed
	case err == nil && os.WriteFile(s.record(), nil, 0o600) == nil:
		// Without it connections are still counted.
		s.switched = kernel.SetAccounting(true) == nil
	}
	if s.ends, err = kernel.ListenEnds(); err != nil {
		s.end()
		return err
	}
	s.counter.restart()
	reading, stop := context.WithCancel(ctx)
	s.stop, s.done = stop, make(chan struct{})
	go func(ends *kernel.Ends, done chan struct{}) {
		defer close(done)
		if err := s.counter.follow(reading, ends); reading.Err() == nil {
			s.Say(err.Error())
		}
	}(s.ends, s.done)
	return nil
}

// end stops counting and undoes what begin did.
func (s *service) end() {
	if s.stop != nil {
		s.stop()
		<-s.done
		s.stop, s.done = nil, nil
	}
	if s.ends != nil {
		s.ends.Close()
		s.ends = nil
	}
	if s.switched {
		if kernel.SetAccounting(false) == nil {
			os.Remove(s.record())
		}
		s.switched = false
	}
}

// wake is called from time to time while something is counted.
func (s *service) wake() {
	s.endIfBroken()
	if s.ends == nil {
		return
	}
	if time.Since(s.asked) > idle {
		s.end()
		return
	}
	_ = s.reload() // the former configuration stays
}

// endIfBroken ends the counting if nobody reads what the kernel reports.
func (s *service) endIfBroken() {
	if s.done == nil {
		return
	}
	select {
	case <-s.done:
		s.end()
	default:
	}
}
