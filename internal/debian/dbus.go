//go:build !openwrt

package debian

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"

	"github.com/ds4relay/ds4relay/internal/plain"
)

// Names of ds4relay on the system bus.
const (
	BusName      = "net.ds4relay"
	BusPath      = dbus.ObjectPath("/net/ds4relay")
	busInterface = "net.ds4relay"
	errorName    = "net.ds4relay.Error"

	errLimits = "org.freedesktop.DBus.Error.LimitsExceeded"
	errAccess = "org.freedesktop.DBus.Error.AccessDenied"
)

// Limits of calls and answers. A call that exceeds one is refused and can be repeated; nobody can use up what others
// need.
const (
	maxUserCalls = 4  // of one user, including the running one
	maxCalls     = 32 // of all users except root, and of root
	maxAnswer    = 8 << 20
	maxError     = 64 << 10
	maxSenders   = 4096 // senders whose user is cached
	lookupTime   = 5 * time.Second
)

// Method is a method of the interface net.ds4relay. All arguments and results are strings.
type Method struct {
	Name      string
	Arguments []string // their names, at most two
	Result    string   // its name
	Most      int      // limit of each argument in bytes
	Root      bool     // for root only
	Call      func(arguments ...string) (string, error)
}

// announce is the method that a process calls after it has changed something, so that the signal Changed comes from the
// name that clients know.
const announce = "Announce"

// introspection describes the methods and the signal to clients.
func introspection(methods []Method) *introspect.Node {
	described := introspect.Interface{Name: busInterface, Signals: []introspect.Signal{{Name: "Changed"}},
		Methods: []introspect.Method{{Name: announce}}}
	for _, m := range methods {
		method := introspect.Method{Name: m.Name}
		for _, name := range m.Arguments {
			method.Args = append(method.Args, introspect.Arg{Name: name, Type: "s", Direction: "in"})
		}
		method.Args = append(method.Args, introspect.Arg{Name: m.Result, Type: "s", Direction: "out"})
		described.Methods = append(described.Methods, method)
	}
	return &introspect.Node{Name: string(BusPath), Interfaces: []introspect.Interface{introspect.IntrospectData,
		described}}
}

// service answers on the bus.
type service struct {
	conn *dbus.Conn
	who  *dbus.Conn // a second connection, to ask the bus for a sender's user while conn waits
	busy sync.Mutex // one call at a time: users without rights cannot load the machine
	last atomic.Int64

	mu      sync.Mutex
	users   map[string]uint32 // sender → user; the bus never reuses a name
	waiting map[uint32]int    // user → calls, including the running one
	calls   int               // calls of all users except root
}

// nobody is the user of a sender that has left the bus.
const nobody = ^uint32(0)

// user returns the user of a sender.
func (s *service) user(sender string) uint32 {
	s.mu.Lock()
	uid, ok := s.users[sender]
	s.mu.Unlock()
	if ok {
		return uid
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookupTime)
	defer cancel()
	if s.who.BusObject().CallWithContext(ctx, theBus+".GetConnectionUnixUser", 0, sender).Store(&uid) != nil {
		return nobody
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.users) >= maxSenders {
		clear(s.users)
	}
	s.users[sender] = uid
	return uid
}

// enter counts a call, unless a limit is reached.
func (s *service) enter(uid uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	most, all := maxUserCalls, s.calls
	if uid == 0 {
		most, all = maxCalls, 0
	}
	if s.waiting[uid] >= most || all >= maxCalls {
		return false
	}
	s.waiting[uid]++
	if uid != 0 {
		s.calls++
	}
	return true
}

func (s *service) leave(uid uint32) {
	s.last.Store(time.Now().UnixNano())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[uid]--; s.waiting[uid] == 0 {
		delete(s.waiting, uid)
	}
	if uid != 0 {
		s.calls--
	}
}

func (s *service) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting) == 0
}

// Serve answers on the system bus until there was no call for the time idle, or ctx ends.
func Serve(ctx context.Context, methods []Method, idle time.Duration) error {
	unreachable := func(err error) error {
		return fmt.Errorf("the system bus cannot be reached: %w (is the package dbus installed?)", err)
	}
	who, err := connect(ctx, func(string) {})
	if err != nil {
		return unreachable(err)
	}
	defer who.Close()
	s := &service{who: who, users: map[string]uint32{}, waiting: map[uint32]int{}}
	// For a new sender, all calls wait until the bus has named its user, so no queue grows meanwhile.
	conn, err := connect(ctx, func(sender string) { s.user(sender) })
	if err != nil {
		return unreachable(err)
	}
	defer conn.Close()
	s.conn = conn
	s.last.Store(time.Now().UnixNano())
	// The bus's policy allows only root to call this. The caller is gone before we could ask who it was.
	table := map[string]any{announce: func() *dbus.Error {
		s.last.Store(time.Now().UnixNano())
		if err := conn.Emit(BusPath, busInterface+".Changed"); err != nil {
			return dbus.NewError(errorName, []any{err.Error()})
		}
		return nil
	}}
	for _, m := range methods {
		switch len(m.Arguments) {
		case 0:
			table[m.Name] = func(sender dbus.Sender) (string, *dbus.Error) { return s.call(sender, m) }
		case 1:
			table[m.Name] = func(sender dbus.Sender, a string) (string, *dbus.Error) { return s.call(sender, m, a) }
		default:
			table[m.Name] = func(sender dbus.Sender, a, b string) (string, *dbus.Error) {
				return s.call(sender, m, a, b)
			}
		}
	}
	if err := conn.ExportMethodTable(table, BusPath, busInterface); err != nil {
		return err
	}
	if err := conn.Export(introspect.NewIntrospectable(introspection(methods)), BusPath,
		"org.freedesktop.DBus.Introspectable"); err != nil {
		return err
	}
	reply, err := conn.RequestName(BusName, dbus.NameFlagDoNotQueue)
	if err != nil {
		return fmt.Errorf("take the name %s: %w (only root may, see /usr/share/dbus-1/system.d/%s.conf)", BusName, err,
			BusName)
	}
	if reply != dbus.RequestNameReplyPrimaryOwner {
		return fmt.Errorf("another process has the name %s already", BusName)
	}
	tick := time.NewTicker(idle / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-conn.Context().Done():
			return errors.New("the bus has ended the connection")
		case <-tick.C:
			if s.idle() && time.Since(time.Unix(0, s.last.Load())) > idle {
				_, err := conn.ReleaseName(BusName) // the next call starts another service
				return err
			}
		}
	}
}

func (s *service) call(sender dbus.Sender, m Method, arguments ...string) (string, *dbus.Error) {
	refused := func(name, format string, args ...any) (string, *dbus.Error) {
		return "", dbus.NewError(name, []any{fmt.Sprintf(format, args...)})
	}
	for i, argument := range arguments {
		if len(argument) > m.Most {
			return refused(errLimits, "%s: the argument %s has %d bytes; at most %d are taken", m.Name, m.Arguments[i],
				len(argument), m.Most)
		}
	}
	uid := s.user(string(sender))
	if m.Root && uid != 0 {
		return refused(errAccess, "%s is for root only", m.Name)
	}
	if !s.enter(uid) {
		return refused(errLimits, "%s: too many calls wait for an answer; at most %d of one user and %d of all do",
			m.Name, maxUserCalls, maxCalls)
	}
	defer s.leave(uid)
	s.busy.Lock()
	defer s.busy.Unlock()
	answer, err := m.Call(arguments...)
	switch {
	case err != nil:
		text := err.Error()
		return refused(errorName, "%s", plain.Escape([]byte(text[:min(len(text), maxError)])))
	case len(answer) > maxAnswer:
		return refused(errLimits, "%s: the answer has %d bytes; at most %d go over the bus", m.Name, len(answer),
			maxAnswer)
	}
	return string(plain.Escape([]byte(answer))), nil
}

// announceTime limits how long a process waits until the bus accepts its announcement: at boot the bus may not run yet.
const announceTime = 500 * time.Millisecond

// Announce makes the service send the signal Changed. Without a bus it does nothing.
func Announce() {
	address := "/run/dbus/system_bus_socket"
	if _, err := os.Stat(address); err != nil && !strings.Contains(os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"), "=") {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := dbus.ConnectSystemBus()
		if err != nil {
			return
		}
		defer conn.Close()
		// An answer to a later call means that the bus has accepted this one.
		conn.Object(BusName, BusPath).Call(busInterface+"."+announce, dbus.FlagNoReplyExpected)
		var id string
		_ = conn.BusObject().Call("org.freedesktop.DBus.GetId", 0).Store(&id)
	}()
	select {
	case <-done:
	case <-time.After(announceTime):
	}
}
