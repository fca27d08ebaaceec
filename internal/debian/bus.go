//go:build !openwrt

package debian

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/godbus/dbus/v5"
)

// Limits of a message from the bus, in bytes. The bus itself allows 32 MiB.
const (
	maxFields = 8 << 10
	maxBody   = 512 << 10
)

// theBus is the sender of the bus's own messages.
const theBus = "org.freedesktop.DBus"

// systemBus returns the bus's socket.
func systemBus() (string, error) {
	address := os.Getenv("DBUS_SYSTEM_BUS_ADDRESS")
	if address == "" {
		return "/run/dbus/system_bus_socket", nil
	}
	for one := range strings.SplitSeq(address, ";") {
		keys, ok := strings.CutPrefix(one, "unix:")
		if !ok {
			continue
		}
		for key := range strings.SplitSeq(keys, ",") {
			if path, ok := strings.CutPrefix(key, "path="); ok {
				return dbus.UnescapeBusAddressValue(path)
			}
			if name, ok := strings.CutPrefix(key, "abstract="); ok {
				name, err := dbus.UnescapeBusAddressValue(name)
				return "@" + name, err
			}
		}
	}
	return "", fmt.Errorf("no socket of this machine in DBUS_SYSTEM_BUS_ADDRESS %q", address)
}

// connect opens a guarded connection to the system bus. arrived is called for every call before godbus gets it.
func connect(ctx context.Context, arrived func(sender string)) (*dbus.Conn, error) {
	path, err := systemBus()
	if err != nil {
		return nil, err
	}
	socket, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	g := &guard{Conn: socket, in: bufio.NewReader(socket), arrived: arrived}
	conn, err := dbus.NewConn(g, dbus.WithContext(ctx))
	if err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	g.refuse = func(call head, text string) {
		conn.Send(&dbus.Message{Type: dbus.TypeError, Body: []any{text}, Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldDestination: dbus.MakeVariant(call.sender),
			dbus.FieldReplySerial: dbus.MakeVariant(call.serial),
			dbus.FieldErrorName:   dbus.MakeVariant(errLimits),
			dbus.FieldSignature:   dbus.MakeVariant(dbus.SignatureOf(text)),
		}}, nil)
	}
	if err := errors.Join(conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Geteuid()))}),
		conn.Hello()); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// A guard is the socket of the bus. It passes only valid calls of the service: anybody may send messages of any length
// to any name on the bus, with descriptors, and of types that make godbus close the connection. The bus's own messages
// and calls with at most two strings pass. Other calls are refused and everything else is dropped, both before they use
// memory.
type guard struct {
	net.Conn
	in      *bufio.Reader
	begun   bool   // authentication is done; messages follow
	message []byte // the unread rest of the current message
	arrived func(sender string)
	refuse  func(call head, text string)
}

// Write detects the end of the authentication, after which the bus sends messages (D-Bus specification, Authentication
// Protocol).
func (g *guard) Write(p []byte) (int, error) {
	g.begun = g.begun || bytes.Equal(p, []byte("BEGIN\r\n"))
	return g.Conn.Write(p)
}

func (g *guard) Read(p []byte) (int, error) {
	if !g.begun {
		return g.in.Read(p)
	}
	for len(g.message) == 0 {
		if err := g.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, g.message)
	g.message = g.message[n:]
	return n, nil
}

// next reads a message; g.message stays empty if it does not pass.
func (g *guard) next() error {
	fixed := make([]byte, 16)
	if _, err := io.ReadFull(g.in, fixed); err != nil {
		return err
	}
	var order binary.ByteOrder = binary.LittleEndian
	if fixed[0] == 'B' {
		order = binary.BigEndian
	}
	body, fields := int64(order.Uint32(fixed[4:])), (int64(order.Uint32(fixed[12:]))+7)&^7
	if fields > maxFields {
		return g.drop(fields + body)
	}
	start := make([]byte, 16+fields)
	copy(start, fixed)
	if _, err := io.ReadFull(g.in, start[16:]); err != nil {
		return err
	}
	h, ok := parseHead(start, order)
	others := h.sender != theBus
	switch {
	case !ok, others && h.kind != dbus.TypeMethodCall:
		return g.drop(body)
	case body > maxBody, others && h.signature != "" && h.signature != "s" && h.signature != "ss":
		if err := g.drop(body); err != nil {
			return err
		}
		if h.kind == dbus.TypeMethodCall && h.flags&dbus.FlagNoReplyExpected == 0 {
			g.refuse(h, fmt.Sprintf("a call takes at most two strings, together of at most %d bytes", maxBody))
		}
		return nil
	}
	whole := make([]byte, int64(len(start))+body)
	copy(whole, start)
	if _, err := io.ReadFull(g.in, whole[len(start):]); err != nil {
		return err
	}
	if h.kind == dbus.TypeMethodCall {
		g.arrived(h.sender)
	}
	g.message = whole
	return nil
}

func (g *guard) drop(n int64) error {
	_, err := io.CopyN(io.Discard, g.in, n)
	return err
}

// head holds the fields of a message's header that we need.
type head struct {
	kind              dbus.Type
	flags             dbus.Flags
	serial            uint32
	sender, signature string
}

// parseHead reads the fixed part of a header, and its fields: an array of structs of a code and a variant, each at a
// multiple of 8 (D-Bus specification, Message Format). ok is false if a field has a type that does not occur in the
// specification.
func parseHead(b []byte, order binary.ByteOrder) (h head, ok bool) {
	h = head{kind: dbus.Type(b[1]), flags: dbus.Flags(b[2]), serial: order.Uint32(b[8:])}
	end := 16 + int(order.Uint32(b[12:]))
	take := func(at, n int) []byte {
		if n < 0 || at+n > end {
			return nil
		}
		return b[at : at+n]
	}
	for at := 16; at < end; at = (at + 7) &^ 7 {
		field := take(at, 4) // the code, and a signature of one type with its length and a zero
		if field == nil || field[1] != 1 {
			return h, false
		}
		at += 4
		var text []byte
		switch field[2] {
		case 'u':
			at += 4
			continue
		case 'g':
			n := take(at, 1)
			if n == nil {
				return h, false
			}
			text = take(at+1, int(n[0]))
			at += 2 + int(n[0])
		case 's', 'o':
			n := take(at, 4)
			if n == nil || order.Uint32(n) > maxFields {
				return h, false
			}
			text = take(at+4, int(order.Uint32(n)))
			at += 5 + int(order.Uint32(n))
		default:
			return h, false
		}
		if text == nil {
			return h, false
		}
		switch dbus.HeaderField(field[0]) {
		case dbus.FieldSender:
			h.sender = string(text)
		case dbus.FieldSignature:
			h.signature = string(text)
		}
	}
	return h, h.sender != ""
}
