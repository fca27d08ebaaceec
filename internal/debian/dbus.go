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
)

// ds4relay on the system bus.
const (
	BusName      = "net.ds4relay"
	BusPath      = dbus.ObjectPath("/net/ds4relay")
	busInterface = "net.ds4relay"
	errorName    = "net.ds4relay.Error"
)

// Method is a method of the interface net.ds4relay. All arguments and results are strings.
type Method struct {
	Name      string
	Arguments []string // their names, at most two
	Result    string   // its name
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
	busy sync.Mutex // one call after the other: who may read only cannot have the machine do much at once
	last atomic.Int64
	open atomic.Int32
}

// Serve answers on the system bus until nobody has asked for idle, or ctx ends.
func Serve(ctx context.Context, methods []Method, idle time.Duration) error {
	conn, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("the system bus cannot be reached: %w (is the package dbus installed?)", err)
	}
	defer conn.Close()
	s := &service{conn: conn}
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
			if s.open.Load() == 0 && time.Since(time.Unix(0, s.last.Load())) > idle {
				_, err := conn.ReleaseName(BusName) // who asks from now on starts another one
				return err
			}
		}
	}
}

func (s *service) call(sender dbus.Sender, m Method, arguments ...string) (string, *dbus.Error) {
	s.open.Add(1)
	defer func() {
		s.last.Store(time.Now().UnixNano())
		s.open.Add(-1)
	}()
	if m.Root {
		var uid uint32
		err := s.conn.BusObject().Call("org.freedesktop.DBus.GetConnectionUnixUser", 0, string(sender)).Store(&uid)
		if err != nil || uid != 0 {
			return "", dbus.NewError("org.freedesktop.DBus.Error.AccessDenied", []any{m.Name + " is for root only"})
		}
	}
	s.busy.Lock()
	defer s.busy.Unlock()
	answer, err := m.Call(arguments...)
	if err != nil {
		return "", dbus.NewError(errorName, []any{err.Error()})
	}
	return answer, nil
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
