package proxyd

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/proxy"
)

// Options are for Run.
type Options struct {
	Run     string // directory of records; the control socket is beside it
	Version string
	// Successor is how long the service keeps running after SIGTERM, so that its successor can take over: procd starts
	// the next instance at the same time. If one takes over, that was the purpose of the signal.
	Successor time.Duration
	TakeOver  bool                            // take over from the running process, if there is one
	Load      func() ([]*config.Proxy, error) // reads the configuration
	Say       func(string)                    // takes lines of the log
}

// drainTime is how long sessions may continue after SIGTERM. During a restart, new clients wait that long.
const drainTime = 5 * time.Second

// daemon is this process.
type daemon struct {
	Options
	server *proxy.Server
	store  keeper
	busy   sync.WaitGroup // requests that are being answered
	handed chan struct{}  // closed when another process has taken over

	mu   sync.Mutex // held while the configuration or the listening process changes
	over bool       // this process no longer listens

	formersMu sync.Mutex
	formers   []*former
}

// Run runs the proxies until a signal ends it, or until a new version has taken over and the last session has ended. If
// the configuration has no proxy, it returns at once.
func Run(o Options) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	proxies, err := o.Load()
	if err != nil {
		return err
	}
	server, err := proxy.New(proxy.Options{Log: o.Say})
	if err != nil {
		return err
	}
	d := &daemon{Options: o, server: server, store: keeper{}, handed: make(chan struct{})}
	if err := d.start(proxies); err != nil {
		return errors.Join(err, server.Close())
	}
	if len(proxies) == 0 {
		o.Say("the configuration has no proxy")
		return server.Close()
	}
	return d.loop(signals)
}

func (d *daemon) start(proxies []*config.Proxy) error {
	d.server.Inherit(stored())
	var before *former
	if d.TakeOver {
		var fds []int
		var err error
		before, fds, err = d.takeOver()
		if err != nil && !errors.Is(err, ErrNotRunning) {
			return err
		}
		d.server.Inherit(fds)
	} else if conn, err := dial(d.Run); err == nil {
		conn.Close()
		return errors.New("the proxies run already (--status shows them, --take-over goes on in their place)")
	}
	if err := d.server.Apply(proxies); err != nil {
		return err
	}
	if len(proxies) > 0 {
		if err := d.listen(); err != nil {
			d.Say(fmt.Sprintf("status will not show the proxies: %v", err))
		}
	}
	if before != nil {
		if err := before.taken(); err != nil {
			before.conn.Close()
			d.Say(fmt.Sprintf("the process before has ended: %v", err))
		} else {
			d.formersMu.Lock()
			d.formers = slices.Insert(d.formers, 0, before)
			d.formersMu.Unlock()
		}
	}
	d.ready()
	return nil
}

// ready tells systemd that the configuration is in effect.
func (d *daemon) ready() {
	notify("READY=1", d.state())
	d.store.keep(d.server.Sockets())
}

// state returns the text for `systemctl status`.
func (d *daemon) state() string {
	proxies, sessions := 0, int64(0)
	for _, s := range d.server.Status() {
		if !s.Draining {
			proxies++
		}
		sessions += s.Sessions
	}
	return fmt.Sprintf("STATUS=proxies: %d, sessions: %d", proxies, sessions)
}

func (d *daemon) loop(signals <-chan os.Signal) error {
	var tick <-chan time.Time
	if every := watchdog(); every > 0 {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		select {
		case s := <-signals:
			if s != unix.SIGHUP {
				if d.relieved(signals) {
					return d.retire(signals)
				}
				return d.stop(signals)
			}
			if err := d.reload(); err != nil {
				d.Say(err.Error())
			}
		case <-tick:
			if d.server.Responds(watchdog()) {
				notify("WATCHDOG=1", d.state())
			}
		case <-d.handed:
			return d.retire(signals)
		}
	}
}

// reload reads the configuration again; if it has a mistake, nothing changes.
func (d *daemon) reload() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return errors.New("this process is ending")
	}
	proxies, err := d.Load()
	if err != nil {
		return ConfigurationError(err.Error())
	}
	reloading()
	err = d.server.Apply(proxies)
	d.ready()
	return err
}

// relieved waits for a successor.
func (d *daemon) relieved(signals <-chan os.Signal) bool {
	if d.Successor == 0 {
		return false
	}
	select {
	case <-d.handed:
		return true
	case <-signals:
	case <-time.After(d.Successor):
	}
	return false
}

// stop ends the service: sessions have a moment to finish, unless a second signal arrives.
func (d *daemon) stop(signals <-chan os.Signal) error {
	d.mu.Lock()
	handed := d.over
	d.over = true
	d.mu.Unlock()
	if handed { // while waiting for the lock
		return d.retire(signals)
	}
	notify("STOPPING=1")
	defer d.unlisten()
	return d.drain(signals)
}

func (d *daemon) drain(signals <-chan os.Signal) error {
	drained := make(chan error, 1)
	go func() { drained <- d.server.Drain(drainTime) }()
	select {
	case err := <-drained:
		if err != nil {
			d.Say(err.Error())
		}
	case <-signals:
	}
	return d.server.Close()
}

const (
	// retireCheck is how often a process that has handed over checks whether it still has sessions.
	retireCheck = 100 * time.Millisecond
	// endTime is how long a process may need to end, in addition to waiting for a successor and for its sessions.
	endTime = 5 * time.Second
)

// retire waits for the end of the last session. procd sends SIGTERM not only to end the service: a former instance gets
// it again with every reload (service_instance_update in procd's service/service.c). If the process that has taken over
// ends too, the signal was meant to end the service.
func (d *daemon) retire(signals <-chan os.Signal) error {
	var known time.Time // when the other process would have ended
	for d.server.Sessions() > 0 {
		select {
		case s := <-signals:
			switch {
			case s == unix.SIGHUP:
			case s == unix.SIGTERM && d.Successor > 0:
				known = time.Now().Add(d.Successor + drainTime + endTime)
			default:
				return d.drain(signals)
			}
		case <-time.After(retireCheck):
		}
		if time.Now().Before(known) && !running(d.Run) {
			return d.drain(signals)
		}
	}
	d.busy.Wait()
	return d.server.Close()
}

// report returns the status of this process and of earlier ones.
func (d *daemon) report() *Report {
	r := &Report{PID: os.Getpid(), Version: d.Version, Proxies: d.server.Status()}
	d.formersMu.Lock()
	defer d.formersMu.Unlock()
	d.formers = slices.DeleteFunc(d.formers, func(f *former) bool {
		before := f.report()
		if before != nil {
			r.Former = append(r.Former, *before)
		}
		return before == nil
	})
	return r
}
