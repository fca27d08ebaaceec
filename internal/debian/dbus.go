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

// ds4relay on the system bus.
const (
	BusName      = "net.ds4relay"
	BusPath      = dbus.ObjectPath("/net/ds4relay")
	busInterface = "net.ds4relay"
	errorName    = "net.ds4relay.Error"

	errLimits = "org.freedesktop.DBus.Error.LimitsExceeded"
	errAccess = "org.freedesktop.DBus.Error.AccessDenied"
)

// Bounds of calls and answers. Who reaches one is refused and can ask again; nobody can use up what others need.
const (
	maxUserCalls = 4  // of one user, that which runs included
	maxCalls     = 32 // of all users but root, and of root
	maxAnswer    = 8 << 20
	maxError     = 64 << 10
	maxSenders   = 4096 // whose users are remembered
	lookupTime   = 5 * time.Second
)

// Method is a method of the interface net.ds4relay. All arguments and results are strings.
type Method struct {
	Name      string
	Arguments []string // their names, at most two
	Result    string   // its name
	Most      int      // bytes that each argument may have
	Root      bool     // for root only
	Call      func(arguments ...string) (string, error)
}

// announce is the method that a process calls that has changed something: the signal Changed comes from the name that
// clients know.
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
	return &introspect.Node{Name: string(BusPath), Interfaces: []introspect.Interface{introspect.IntrospectData, described}}
}

// service is what answers on the bus.
type service struct {
	conn *dbus.Conn
	who  *dbus.Conn // asks the bus who somebody is, also while conn waits for that
	busy sync.Mutex // one call after the other: who may read only cannot have the machine do much at once
	last atomic.Int64

	mu      sync.Mutex
	users   map[string]uint32 // of senders; the bus gives no name twice
	waiting map[uint32]int    // calls of users, that which runs included
	calls   int               // of all users but root
}

// nobody is a user that the bus does not know any more.
const nobody = ^uint32(0)

// user is whose connection the sender is.
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

// enter counts a call, unless the user has enough of them.
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

// Serve answers on the system bus until nobody has asked for idle, or ctx ends.
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
	// One that asks for the first time has all others wait until the bus has said who that is: no queue grows meanwhile.
	conn, err := connect(ctx, func(sender string) { s.user(sender) })
	if err != nil {
		return unreachable(err)
	}
	defer conn.Close()
	s.conn = conn
	s.last.Store(time.Now().UnixNano())
	// The policy of the bus has only root call this; who does has gone before it could be asked who it was.
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
			table[m.Name] = func(sender dbus.Sender, a, b string) (string, *dbus.Error) { return s.call(sender, m, a, b) }
		}
	}
	if err := conn.ExportMethodTable(table, BusPath, busInterface); err != nil {
		return err
	}
	if err := conn.Export(introspect.NewIntrospectable(introspection(methods)), BusPath, "org.freedesktop.DBus.Introspectable"); err != nil {
		return err
	}
	reply, err := conn.RequestName(BusName, dbus.NameFlagDoNotQueue)
	if err != nil {
		return fmt.Errorf("take the name %s: %w (only root may, see /usr/share/dbus-1/system.d/%s.conf)", BusName, err, BusName)
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
				_, err := conn.ReleaseName(BusName) // who asks from now on starts another one
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
			return refused(errLimits, "%s: the argument %s has %d bytes; at most %d are taken", m.Name, m.Arguments[i], len(argument), m.Most)
		}
	}
	uid := s.user(string(sender))
	if m.Root && uid != 0 {
		return refused(errAccess, "%s is for root only", m.Name)
	}
	if !s.enter(uid) {
		return refused(errLimits, "%s: too many calls wait for an answer; at most %d of one user and %d of all do", m.Name, maxUserCalls, maxCalls)
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
		return refused(errLimits, "%s: the answer has %d bytes; at most %d go over the bus", m.Name, len(answer), maxAnswer)
	}
	return string(plain.Escape([]byte(answer))), nil
}

// announceTime bounds how long a process waits for the bus to take its announcement: at boot the bus may not run yet.
const announceTime = 500 * time.Millisecond

// Announce has the signal Changed sent. Without a bus there is nobody to tell.
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
		// An answer to another call means that the bus has taken this one.
		conn.Object(BusName, BusPath).Call(busInterface+"."+announce, dbus.FlagNoReplyExpected)
		var id string
		_ = conn.BusObject().Call("org.freedesktop.DBus.GetId", 0).Store(&id)
	}()
	select {
	case <-done:
	case <-time.After(announceTime):
	}
}
