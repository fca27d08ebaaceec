//go:build !openwrt && !lab

package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/paired"
	"github.com/ds4relay/ds4relay/internal/pushed"
	"github.com/ds4relay/ds4relay/internal/testport"
)

// pairedVPS is a VPS that homes reach by the machine's own sshd, with the service but without a kernel. sshd runs
// without privileges, as a user of a namespace, or as the one who runs the tests.
type pairedVPS struct {
	t       *testing.T
	dir     string // of the test
	lib     paired.Dir
	port    uint16
	user    string
	program string
	stderr  string // of the last call
}

// sshUser is the user ID that sshd has; root needs another one.
const sshUser = 4242

func newPairedVPS(t *testing.T) *pairedVPS {
	t.Helper()
	for _, program := range []string{"/usr/sbin/sshd", "ssh", "ssh-keygen", "unshare", "setpriv"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	v := &pairedVPS{t: t, dir: passable(t), user: "ds4relay"}
	v.lib = paired.Dir(filepath.Join(v.dir, "lib"))
	v.program = filepath.Join(v.dir, "ds4relay")
	v.run("go", "build", "-o", v.program, ".")
	v.write("config", `
config relay 'home'
	option ipaddr '198.51.100.144'
	option ip6addr '2001:db8:6ef9::/64'
	list keep 'tcp:22'
	list allow 'tcp:1-65535'
`)
	v.serve()
	v.sshd()
	return v
}

// passable is a folder that every user may write to.
func passable(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for path, mode := range map[string]os.FileMode{filepath.Dir(dir): 0o755, dir: 0o777} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// serve answers as the service does, which systemd starts for each connection.
func (v *pairedVPS) serve() {
	v.t.Helper()
	service := &paired.Service{Dir: v.lib, Config: filepath.Join(v.dir, "config"), Apart: time.Millisecond,
		Defaults: func() config.Defaults { return config.Defaults{Role: config.VPS, Homes: v.lib.Read()} },
		Facts:    func([]*config.Relay) (pushed.Facts, error) { return pushed.Facts{}, nil },
		Running:  func() ([]string, error) { return []string{"home"}, nil },
		Edited:   func(*config.Config) bool { return false },
		Up:       func(string) error { return nil },
		End:      func(string) int { return 0 },
		Log:      func(text *message.Text) { v.t.Log("the service: ", text) },
	}
	listener, err := net.Listen("unix", filepath.Join(v.dir, "run-receive.sock"))
	if err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() { listener.Close() })
	if err := os.Chmod(filepath.Join(v.dir, "run-receive.sock"), 0o666); err != nil {
		v.t.Fatal(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = service.Serve(conn)
			}()
		}
	}()
}

func (v *pairedVPS) sshd() {
	v.t.Helper()
	v.port = testport.Free(v.t)
	v.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(v.dir, "host"))
	v.write("sshd_config", fmt.Sprintf(`Port %d
ListenAddress 127.0.0.1
HostKey %[2]s/host
AuthorizedKeysFile %[2]s/authorized
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowTcpForwarding yes
AllowStreamLocalForwarding yes
GatewayPorts yes
PermitTunnel yes
X11Forwarding yes
PermitUserEnvironment yes
Subsystem sftp internal-sftp
`, v.port, v.dir))
	daemon := []string{"/usr/sbin/sshd", "-D", "-e", "-f", filepath.Join(v.dir, "sshd_config")}
	if os.Getuid() == 0 {
		if out, err := exec.Command("unshare", "--mount", "true").CombinedOutput(); err != nil {
			v.t.Skipf("no namespace for mounts: %v: %s", err, out)
		}
		passwd, err := os.ReadFile("/etc/passwd")
		if err != nil {
			v.t.Fatal(err)
		}
		lines := []string{}
		for line := range strings.Lines(string(passwd)) {
			if !strings.HasPrefix(line, v.user+":") {
				lines = append(lines, line)
			}
		}
		v.write("passwd", strings.Join(lines, "")+fmt.Sprintf("%s:x:%d:%[2]d::%s:/bin/sh\n", v.user, sshUser, v.dir))
		if err := os.Chown(filepath.Join(v.dir, "host"), sshUser, sshUser); err != nil {
			v.t.Fatal(err)
		}
		daemon = append([]string{"unshare", "--mount", "sh", "-c", `mount --bind "$0" /etc/passwd && exec "$@"`,
			filepath.Join(v.dir, "passwd"), "setpriv", "--reuid", fmt.Sprint(sshUser), "--regid", fmt.Sprint(sshUser),
			"--clear-groups"}, daemon...)
	} else {
		v.user = os.Getenv("USER")
	}
	var log bytes.Buffer
	cmd := exec.Command(daemon[0], daemon[1:]...)
	cmd.Stderr = &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if v.t.Failed() {
			v.t.Log("sshd: ", log.String())
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", v.port))
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			v.t.Fatalf("sshd does not start: %s", log.String())
		}
	}
}

func (v *pairedVPS) write(name, text string) {
	v.t.Helper()
	if err := os.WriteFile(filepath.Join(v.dir, name), []byte(text), 0o644); err != nil {
		v.t.Fatal(err)
	}
}

func (v *pairedVPS) run(name string, args ...string) string {
	v.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		v.t.Fatalf("%s: %v: %s", name, err, out)
	}
	return string(out)
}

// authorize gives sshd the keys as they are now; they run the program of this test.
func (v *pairedVPS) authorize() {
	v.t.Helper()
	data, err := os.ReadFile(v.lib.Keys().Path)
	if err != nil {
		v.t.Fatal(err)
	}
	v.write("authorized", strings.ReplaceAll(string(data), "/usr/sbin/ds4relay", v.program+" --run "+v.dir+"/run"))
}

// call runs a program with an input, and returns what it prints.
func (v *pairedVPS) call(input string, args ...string) (out string, err error) {
	v.t.Helper()
	v.authorize()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(input)
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), "HOME="+v.dir)
	var said bytes.Buffer
	cmd.Stderr = &said
	data, err := cmd.Output()
	v.stderr = said.String()
	if ctx.Err() != nil {
		v.t.Errorf("%s goes on for ever: %s", strings.Join(args, " "), data)
	}
	return string(data), errors.Join(err, ctx.Err())
}

// An sshClient is a program that homes use.
type sshClient struct {
	name string
	// args are its arguments up to the host, and key makes a key and returns its public half.
	args func(v *pairedVPS, key string) []string
	key  func(v *pairedVPS, path string) string
	host func(v *pairedVPS) []string
}

var sshClients = []sshClient{
	{"ssh", func(v *pairedVPS, key string) []string {
		return []string{"ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o",
			"UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes", "-o",
			"ExitOnForwardFailure=yes", "-p", fmt.Sprint(v.port), "-i", key}
	}, func(v *pairedVPS, path string) string {
		v.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path)
		return v.run("ssh-keygen", "-y", "-f", path)
	}, func(v *pairedVPS) []string { return []string{v.user + "@127.0.0.1"} }},
	{"dbclient", func(v *pairedVPS, key string) []string {
		return []string{"dbclient", "-y", "-y", "-o", "ExitOnForwardFailure=yes", "-p", fmt.Sprint(v.port), "-i", key}
	}, func(v *pairedVPS, path string) string {
		v.run("dropbearkey", "-t", "ed25519", "-f", path)
		for line := range strings.Lines(v.run("dropbearkey", "-y", "-f", path)) {
			if strings.HasPrefix(line, "ssh-ed25519 ") {
				return line
			}
		}
		return ""
	}, func(v *pairedVPS) []string { return []string{v.user + "@127.0.0.1"} }},
}

// TestForcedCommands has the machine's real sshd, and the clients that homes have: a key that an invitation or a home
// has can do what it is for, and no other thing. sshd's own configuration allows all.
func TestForcedCommands(t *testing.T) {
	for _, client := range sshClients {
		t.Run(client.name, func(t *testing.T) {
			if _, err := exec.LookPath(client.name); err != nil {
				t.Skipf("%s is not installed", client.name)
			}
			v := newPairedVPS(t)
			// The invitation's key is one of OpenSSH, or of dropbear; who has made it does not matter.
			invited := filepath.Join(v.dir, "invited")
			public := strings.Fields(client.key(v, invited))
			blob, err := base64.StdEncoding.DecodeString(public[1])
			if err != nil || len(blob) < ed25519.PublicKeySize {
				t.Fatalf("the public key %v", public)
			}
			if err := v.lib.Keys().Invite("home", [32]byte(blob[len(blob)-ed25519.PublicKeySize:]),
				time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
			home := filepath.Join(v.dir, "key")
			enrolment := `{"version":1,"ssh":"` + strings.TrimSpace(client.key(v, home)) + `","public_key":""}`
			to := func(key string, options ...string) []string {
				return append(append(client.args(v, key), options...), client.host(v)...)
			}
			t.Run("an invitation runs nothing else", func(t *testing.T) { v.confined(t, client, to, invited) })
			if out, err := v.call(enrolment, append(to(invited), "sh", "-i")...); err != nil ||
				out != `{"version":1,"state":"ok"}`+"\n" {
				t.Fatalf("enrol: %v: %s", err, out)
			}
			thief := `{"version":1,"ssh":"` + strings.TrimSpace(client.key(v, filepath.Join(v.dir, "thief"))) +
				`","public_key":""}`
			if out, err := v.call(thief, append(to(invited), "enroll")...); err == nil || !strings.Contains(out,
				"has been used already") {
				t.Errorf("enrol once more: %v: %s", err, out)
			}
			if reused := v.lib.Read()["home"].Reused; reused == nil || reused.From != "127.0.0.1" {
				t.Errorf("the VPS notes %v", reused)
			}
			// Of 127.0.0.1 no endpoint can be made: one that the file has is needed for a push.
			data, err := os.ReadFile(filepath.Join(v.dir, "config"))
			if err != nil {
				t.Fatal(err)
			}
			v.write("config", string(data)+"\toption peeraddr '2001:db8:fd::1'\n")
			push := config.PushHeader + "config forward 'web'\n\toption proto 'tcp'\n\toption src_dport '443'\n" +
				"\toption dest_ip '192.168.1.210'\n"
			if out, err := v.call(push, append(to(home), "receive", "cabin")...); err != nil ||
				out != `{"version":1,"state":"ok"}`+"\n" {
				t.Errorf("push: %v: %s", err, out)
			}
			out, err := v.call(strings.Repeat("x", 10<<20), append(to(home), "receive")...)
			if err == nil || !strings.Contains(out, "reads at most") || len(out) > pushed.MaxAnswer {
				t.Errorf("push 10 MB: %v: %.1000s", err, out)
			}
			t.Run("a home runs nothing else", func(t *testing.T) { v.confined(t, client, to, home) })
		})
	}
}

// confined tries to do with a key what only a user of the VPS may do.
func (v *pairedVPS) confined(t *testing.T, client sshClient, to func(string, ...string) []string, key string) {
	open := passable(t)
	secret := filepath.Join(open, "made-by-a-shell")
	reached, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer reached.Close()
	got := make(chan struct{}, 100)
	go func() {
		for {
			conn, err := reached.Accept()
			if err != nil {
				return
			}
			got <- struct{}{}
			_, _ = io.WriteString(conn, "reached\n")
			conn.Close()
		}
	}()
	target := reached.Addr().String()
	taken := testport.Free(t)
	remote := fmt.Sprintf("127.0.0.1:%d:%s", taken, target)
	if client.name == "dbclient" {
		remote = fmt.Sprintf("%d:%s", taken, target)
	}
	terminal := "-tt" // also where there is none here
	if client.name == "dbclient" {
		terminal = "-t"
	}
	script := "touch " + secret + "; echo a-shell; tty\n"
	// What scp and sftp ask a server for, and say first.
	inputs := map[string]string{"scp": "C0644 6 secret\nhello\n\x00", "sftp": "\x00\x00\x00\x05\x01\x00\x00\x00\x03"}
	for name, args := range map[string][]string{
		"a command":         append(to(key), "sh", "-c", script),
		"a shell":           to(key, "-T"),
		"a terminal":        to(key, terminal),
		"another command":   append(to(key), "/usr/sbin/ds4relay receive --service"),
		"more commands":     append(to(key), "x; touch "+secret+"; $(touch "+secret+") `touch "+secret+"` | sh"),
		"scp":               append(to(key), "scp -t "+secret),
		"sftp":              append(to(key, "-s"), "sftp"),
		"remote forwarding": to(key, "-N", "-R", remote),
		"forward to a port": to(key, map[string]string{"ssh": "-W", "dbclient": "-B"}[client.name], target),
	} {
		t.Run(name, func(t *testing.T) {
			out, err := v.call(cmp.Or(inputs[name], script), args...)
			ends := client.name == "dbclient" && name == "forward to a port" // without an error
			if err == nil && !ends || strings.Contains(out, "a-shell\n") || strings.Contains(out, "/dev/pts") ||
				strings.Contains(out, "reached") || strings.Contains(out, "\x02\x00\x00\x00\x03") {
				t.Errorf("%v: %s", err, out)
			}
			if name == "a terminal" && client.name == "ssh" && !strings.Contains(v.stderr, "PTY allocation request failed") {
				t.Errorf("sshd gives it a terminal: %s", v.stderr)
			}
		})
	}
	if _, err := os.Stat(secret); !errors.Is(err, os.ErrNotExist) {
		t.Error("something else than ds4relay has run")
	}
	if len(got) > 0 {
		t.Errorf("%d connections were forwarded", len(got))
	}
}

// TestForgetBesideMistakes: a file with mistakes does not keep a home's key good, and forget says what is still to do.
// It has a machine of its own: namespaces.
func TestForgetBesideMistakes(t *testing.T) {
	own := []string{"unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc"}
	try := exec.Command(own[0], append(own[1:], "mount", "-t", "tmpfs", "none", "/var/lib")...)
	if out, err := try.CombinedOutput(); err != nil {
		t.Skipf("no namespaces: %v: %s", err, out)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"config": "config relay 'home'\n\toption ipaddr 'nonsense'\n",
		"script": "mount -t tmpfs none /var/lib\ninstall -D -m 644 /dev/null /var/lib/ds4relay/relays/home\n" +
			"cd " + dir + "\nfor i in 1 2; do ./ds4relay -c config --run run forget home; echo status $?; done\n" +
			"ls /var/lib/ds4relay/relays\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("go", "build", "-o", dir+"/ds4relay", ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.Command(own[0], append(own[1:], "sh", dir+"/script")...).CombinedOutput()
	if text := string(out); err != nil || strings.Count(text, "its home is forgotten") != 1 ||
		strings.Count(text, "nonsense") != 2 || !strings.HasSuffix(text, "status 2\n") {
		t.Errorf("%v: %s", err, text)
	}
}
