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
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// patience limits how long the tests wait.
const patience = 30 * time.Second

// stranger is an unprivileged user.
const stranger = 65534

// busDaemon runs a system bus with the installed policy, and the service on it.
func busDaemon(t *testing.T, methods []Method) (socket string) {
	t.Helper()
	daemon, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skip("there is no dbus-daemon here")
	}
	dir := t.TempDir()
	socket = filepath.Join(dir, "bus")
	policy, err := filepath.Abs(filepath.Join(files, "usr/share/dbus-1/system.d/net.ds4relay.conf"))
	if err != nil {
		t.Fatal(err)
	}
	// The default policy of Debian's system.conf. Without root, the tests' own user may take the name.
	text := `<busconfig><type>system</type><listen>unix:path=` + socket + `</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><deny own="*"/><deny send_type="method_call"/><allow send_type="signal"/>
<allow send_requested_reply="true" send_type="method_return"/><allow send_requested_reply="true" send_type="error"/>
<allow receive_type="method_call"/><allow receive_type="method_return"/><allow receive_type="error"/>
<allow receive_type="signal"/>
<allow send_destination="org.freedesktop.DBus"/></policy>
<policy user="` + strconv.Itoa(os.Geteuid()) +
		`"><allow own="net.ds4relay"/><allow send_destination="net.ds4relay"/></policy>
<include>` + policy + `</include></busconfig>`
	config := filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	// So that another user can reach the socket.
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(daemon, "--config-file="+config, "--nofork", "--nopidfile", "--nosyslog")
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	wait(t, "the bus", func() bool {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+socket)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, methods, time.Hour) }()
	t.Cleanup(func() {
		select {
		case err := <-ended:
			t.Errorf("the service has ended: %v", err)
		default:
			cancel()
			<-ended
		}
	})
	asker := client(t, socket, os.Geteuid())
	wait(t, "the service", func() bool { return ping(asker) == nil })
	return socket
}

func wait(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s does not come", what)
		}
	}
}

// client opens a connection as a user. The kernel tells the bus which user's thread connected.
func client(t *testing.T, socket string, uid int) *dbus.Conn {
	t.Helper()
	type result struct {
		conn *dbus.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // the thread ends with this goroutine
		if uid != os.Geteuid() {
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid),
				uintptr(uid)); errno != 0 {
				done <- result{nil, errno}
				return
			}
		}
		conn, err := dbus.Dial("unix:path=" + socket)
		done <- result{conn, err}
	}()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { r.conn.Close() })
	if err := r.conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(uid))}); err != nil {
		t.Fatal(err)
	}
	if err := r.conn.Hello(); err != nil {
		t.Fatal(err)
	}
	return r.conn
}

func call(conn *dbus.Conn, method string, arguments ...any) *dbus.Call {
	return conn.Object(BusName, BusPath).Go(busInterface+"."+method, dbus.FlagNoAutoStart, nil, arguments...)
}

func ping(conn *dbus.Conn) error {
	return conn.Object(BusName, BusPath).Call("org.freedesktop.DBus.Peer.Ping", dbus.FlagNoAutoStart).Err
}

func nameOf(err error) string {
	if e, ok := err.(dbus.Error); ok {
		return e.Name
	}
	return fmt.Sprint(err)
}

// users returns the users that a test can act as.
func users() []int {
	if os.Geteuid() != 0 {
		return []int{os.Geteuid()}
	}
	return []int{stranger, 0}
}

// TestBusWithstands: whatever a user sends, the service keeps running and does not use memory for it.
func TestBusWithstands(t *testing.T) {
	asked := make(chan string, 100)
	answer := ""
	socket := busDaemon(t, []Method{
		{Name: "Check", Arguments: []string{"config"}, Result: "json", Most: 1000,
			Call: func(a ...string) (string, error) {
				asked <- a[0]
				return answer, nil
			}},
		{Name: "Doctor", Arguments: []string{"check", "relay"}, Result: "json", Most: 100, Root: true,
			Call: func(a ...string) (string, error) {
				return "", fmt.Errorf("no check %q\xff\x00%s", a[0], strings.Repeat("x", 1<<20))
			}},
	})
	conn := client(t, socket, users()[0])
	unique := client(t, socket, os.Geteuid())
	var owner string
	if err := unique.BusObject().Call(theBus+".GetNameOwner", 0, BusName).Store(&owner); err != nil {
		t.Fatal(err)
	}
	huge := strings.Repeat("x", 20<<20)
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for name, arguments := range map[string][]any{
		"a long argument":   {strings.Repeat("x", 1001)},
		"a longer argument": {strings.Repeat("x", maxBody+1)},
		"a huge argument":   {huge},
		"a variant":         {dbus.MakeVariant(dbus.MakeVariant("x"))},
		"an array":          {[]string{"x", "y"}},
		"a dictionary":      {map[string]dbus.Variant{"x": dbus.MakeVariant(int32(1))}},
		"three strings":     {"x", "y", "z"},
		"two strings":       {"x", "y"},
		"nothing":           {},
		"a number":          {int64(1)},
		"a descriptor":      {dbus.UnixFD(file.Fd())},
		"an array of bytes": {make([]byte, 1<<20)},
	} {
		c := <-call(conn, "Check", arguments...).Done
		if c.Err == nil {
			t.Errorf("%s: taken", name)
		}
		if strings.Contains(name, "argument") && nameOf(c.Err) != errLimits {
			t.Errorf("%s: %v", name, c.Err)
		}
		if err := ping(conn); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if len(asked) > 0 {
		t.Errorf("%d wrong calls were made", len(asked))
	}
	// Signals can be sent to any connection by its unique name; a call may have a long path.
	for range 3 {
		conn.Send(&dbus.Message{Type: dbus.TypeSignal, Body: []any{huge}, Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldDestination: dbus.MakeVariant(owner), dbus.FieldPath: dbus.MakeVariant(dbus.ObjectPath("/x")),
			dbus.FieldInterface: dbus.MakeVariant(theBus), dbus.FieldMember: dbus.MakeVariant("NameLost"),
			dbus.FieldSignature: dbus.MakeVariant(dbus.SignatureOf(huge))}}, nil)
		conn.Object(BusName, dbus.ObjectPath("/"+strings.Repeat("x", 1<<20))).Go(busInterface+".Check",
			dbus.FlagNoReplyExpected, nil, "x")
	}
	// The longest accepted argument, and answers that are too long or not text.
	for _, c := range []struct{ answer, want string }{{"{}", ""}, {strings.Repeat("x", maxAnswer+1), errLimits},
		{"a\x00\xff\x1b", ""}} {
		answer = c.answer
		got := <-call(conn, "Check", strings.Repeat("x", 1000)).Done
		if c.want == "" && got.Err != nil || c.want != "" && nameOf(got.Err) != c.want {
			t.Errorf("an answer of %d bytes: %v", len(c.answer), got.Err)
		}
		<-asked
	}
	if os.Geteuid() == 0 {
		if c := <-call(unique, "Doctor", "x", "").Done; nameOf(c.Err) != errorName || len(c.Err.Error()) > 2*maxError {
			t.Errorf("a long error of %d bytes", len(fmt.Sprint(c.Err)))
		}
		if c := <-call(conn, "Doctor", "x", "").Done; nameOf(c.Err) != errAccess {
			t.Errorf("a stranger's Doctor: %v", c.Err)
		}
	}
	if err := ping(conn); err != nil {
		t.Error(err)
	}
}

// TestBusIsShared: only a few calls of one user may wait, over any number of connections; other users are answered
// meanwhile.
func TestBusIsShared(t *testing.T) {
	started, release := make(chan bool, 100), make(chan bool)
	socket := busDaemon(t,
		[]Method{{Name: "Check", Arguments: []string{"config"}, Result: "json", Most: 1000,
			Call: func(...string) (string, error) {
				started <- true
				<-release
				return "{}", nil
			}}})
	uid := users()[0]
	most := maxUserCalls
	if uid == 0 {
		most = maxCalls
	}
	var calls []*dbus.Call
	for range 5 {
		conn := client(t, socket, uid)
		for range 20 {
			calls = append(calls, call(conn, "Check", "x"))
		}
	}
	ended := func() (n int) {
		for _, c := range calls {
			n += len(c.Done)
		}
		return n
	}
	wait(t, "the refusals", func() bool { return ended() == len(calls)-most })
	if len(started) > 1 {
		t.Errorf("%d calls run at once", len(started))
	}
	var other *dbus.Call
	if uid == stranger {
		other = call(client(t, socket, 0), "Check", "x")
	}
	close(release)
	refused := 0
	for _, c := range calls {
		if done := <-c.Done; done.Err != nil {
			refused++
			if nameOf(done.Err) != errLimits || !strings.Contains(done.Err.Error(), "too many calls wait") {
				t.Error(done.Err)
			}
		}
	}
	if refused != len(calls)-most {
		t.Errorf("%d of %d calls were refused, wanted all but %d", refused, len(calls), most)
	}
	if other != nil {
		if done := <-other.Done; done.Err != nil {
			t.Errorf("another user: %v", done.Err)
		}
	}
	if c := <-call(client(t, socket, uid), "Check", "x").Done; c.Err != nil {
		t.Errorf("afterwards: %v", c.Err)
	}
}

// TestGuardTakesNoMemory: a message that is too long is refused before it is stored.
func TestGuardTakesNoMemory(t *testing.T) {
	const size = 30 << 20
	var first bytes.Buffer
	message := &dbus.Message{Type: dbus.TypeMethodCall, Body: []any{"x"}, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldPath: dbus.MakeVariant(BusPath), dbus.FieldMember: dbus.MakeVariant("Check"),
		dbus.FieldSender: dbus.MakeVariant(":1.7"), dbus.FieldSignature: dbus.MakeVariant(dbus.SignatureOf("x"))}}
	if err := message.EncodeTo(&first, binary.LittleEndian); err != nil {
		t.Fatal(err)
	}
	const body = 6 // the length, x and a zero
	good := bytes.Clone(first.Bytes())
	long := bytes.Clone(good[:len(good)-body])
	binary.LittleEndian.PutUint32(long[4:], size)
	var refused []head
	g := &guard{begun: true, arrived: func(string) {}, refuse: func(call head, _ string) {
		refused = append(refused, call)
	}}
	g.in = bufio.NewReader(io.MultiReader(bytes.NewReader(long), io.LimitReader(zeros{}, size), bytes.NewReader(good)))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got, err := io.ReadAll(g)
	runtime.ReadMemStats(&after)
	if err != nil || !bytes.Equal(got, good) || len(refused) != 1 || refused[0].sender != ":1.7" ||
		refused[0].signature != "s" {
		t.Errorf("%q, %v, refused %+v", got, err, refused)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
		t.Errorf("%d bytes were allocated", used)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// FuzzHead: no header crashes the service.
func FuzzHead(f *testing.F) {
	f.Add([]byte(
		"l\x01\x00\x01\x05\x00\x00\x00\x07\x00\x00\x00\x10\x00\x00\x00\x07\x01s\x00\x04\x00\x00\x00:1.7\x00\x00\x00\x00"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		g := &guard{begun: true, arrived: func(string) {}, refuse: func(head, string) {}}
		g.in = bufio.NewReader(bytes.NewReader(data))
		_, _ = io.Copy(io.Discard, g)
	})
}
