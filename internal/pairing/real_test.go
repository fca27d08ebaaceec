package pairing

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"crypto/ed25519"
	"crypto/rand"

	"github.com/ds4relay/ds4relay/internal/testport"
)

// server is the machine's own sshd with a configuration of its own.
type server struct {
	vps  VPS
	port uint16
	dir  string
}

// serve starts sshd, with a host key of that type.
func serve(t *testing.T, hostKey string) *server {
	t.Helper()
	const sshd = "/usr/sbin/sshd"
	for _, program := range []string{sshd, "ssh-keygen", "ssh", "dbclient", "dropbearkey"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("needs openssh-server, openssh-client and dropbear-bin: ", err)
		}
	}
	me, err := osuser.Current()
	if err != nil {
		t.Fatal(err)
	}
	former := user
	user = me.Username
	t.Cleanup(func() { user = former })
	s := &server{dir: t.TempDir(), port: testport.Free(t)}
	file := func(name string) string { return filepath.Join(s.dir, name) }
	out, err := exec.Command("ssh-keygen", "-q", "-t", hostKey, "-N", "", "-f", file("host")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if os.Geteuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.vps = VPS{Version: 1, Hosts: []string{"127.0.0.1"}, Port: s.port, HostKey: publicOf(t, file("host.pub"))}
	configuration := fmt.Sprintf("Port %d\nListenAddress 127.0.0.1\nHostKey %s\nPidFile none\nStrictModes no\n"+
		"AuthorizedKeysFile %s\nUsePAM no\nPasswordAuthentication yes\n", s.port, file("host"), file("keys"))
	for name, text := range map[string]string{"config": configuration, "keys": ""} {
		if err := os.WriteFile(file(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(sshd, "-D", "-e", "-f", file("config"))
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("sshd: %s", said.String())
		}
	})
	for range 1200 {
		if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port)); err == nil {
			conn.Close()
			return s
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("sshd does not listen: %s", said.String())
	return nil
}

func publicOf(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	key, err := base64.StdEncoding.DecodeString(strings.Fields(string(text))[1])
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// allow lets a key run a command.
func (s *server) allow(t *testing.T, command, public string) {
	t.Helper()
	script := filepath.Join(s.dir, "script")
	for path, text := range map[string]string{script: command + "\n",
		filepath.Join(s.dir, "keys"): fmt.Sprintf("restrict,command=\"sh %s\" %s test\n", script, public)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// with lets only one of the two clients be found.
func with(t *testing.T, c client) {
	t.Helper()
	dir := t.TempDir()
	for _, program := range []string{c.ssh, c.keygen} {
		path, err := exec.LookPath(program)
		if err != nil {
			t.Skip(err)
		}
		if err := os.Symlink(path, filepath.Join(dir, program)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
}

// patience limits sessions on a busy machine, where sshd may take long for a login.
const patience = 2 * time.Minute

// TestRealClients: both clients, with the machine's own sshd.
func TestRealClients(t *testing.T) {
	s := serve(t, "ed25519")
	stranger := s.vps
	stranger.HostKey = append([]byte{}, s.vps.HostKey...)
	stranger.HostKey[len(stranger.HostKey)-1] ^= 1
	for _, c := range []client{dropbear, openssh} {
		t.Run(c.ssh, func(t *testing.T) {
			with(t, c)
			dir := Dir(filepath.Join(t.TempDir(), "ssh"))
			path, public, err := dir.MakeKey("home")
			if err != nil {
				t.Fatal(err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Fatalf("the key: %v, %v", info, err)
			}
			if err := dir.Keep("home", s.vps, path); err != nil {
				t.Fatal(err)
			}
			if again, same, err := dir.MakeKey("home"); err != nil || again != dir.Key("home") || same != public {
				t.Errorf("the key again: %s %s, %v", again, same, err)
			}
			names, _ := filepath.Glob(string(dir) + "/*")
			if len(names) != 2 {
				t.Errorf("files: %v", names)
			}
			vps, err := dir.VPS("home")
			if err != nil {
				t.Fatal(err)
			}
			run := t.TempDir()
			session := Session{VPS: vps, Key: dir.Key("home"), Input: "ds4relay-push 1\n", Run: run, Limit: patience}
			ask := func(command string) (string, error) {
				t.Helper()
				s.allow(t, command, public)
				return session.Do()
			}
			if answer, err := ask("cat; echo taken; exit 1"); answer != "ds4relay-push 1\ntaken\n" || err != nil {
				t.Errorf("an answer: %q, %v", answer, err)
			}
			if answer, err := ask("head -c 1000000 /dev/zero | tr '\\0' x"); len(answer) != maxAnswer || err != nil {
				t.Errorf("a megabyte: %d bytes, %v", len(answer), err)
			}
			answer, err := ask(`printf '\033]0;title\007\033[31m'`)
			if err != nil || !strings.Contains(answer, "\x1b") {
				t.Fatalf("escapes: %q, %v", answer, err)
			}
			if _, err = Read(answer, nil); err == nil || strings.ContainsAny(err.Error(), "\x1b\a") ||
				!strings.Contains(err.Error(), `\u001b[31m`) {
				t.Errorf("escapes: %v", err)
			}
			if _, err := ask(`printf '\033[31mno' >&2; exit 1`); err == nil || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("escapes of the other output: %v", err)
			}
			if answer, err := ask("exit 0"); err == nil || answer != "" {
				t.Errorf("no answer: %q, %v", answer, err)
			}
			session.Limit = 2 * time.Second
			if _, err := ask("sleep 1000"); !errors.Is(err, ErrSilent) {
				t.Errorf("a silent command: %v", err)
			}
			session.Limit = patience
			session.VPS = stranger
			if answer, err := ask("echo stranger"); !errors.Is(err, ErrHostKey) || answer != "" {
				t.Errorf("another host key: %q, %v", answer, err)
			}
			session.VPS = vps
			s.allow(t, "echo other", "ssh-ed25519 "+base64.StdEncoding.EncodeToString(vps.HostKey))
			if answer, err := session.Do(); !errors.Is(err, ErrDenied) || answer != "" {
				t.Errorf("a key that was taken back: %q, %v", answer, err)
			}
			// An address where nobody listens, then one that answers.
			session.VPS.Hosts = []string{"127.0.0.2", "localhost"}
			if answer, err := ask("echo second"); answer != "second\n" || err != nil {
				t.Errorf("the second address: %q, %v", answer, err)
			}
			// The home's endpoint is the session's source.
			session.VPS, session.From = vps, netip.MustParseAddr("127.0.0.3")
			if answer, err := ask("echo $SSH_CONNECTION"); !strings.HasPrefix(answer, "127.0.0.3 ") || err != nil {
				t.Errorf("from 127.0.0.3: %q, %v", answer, err)
			}
			// The invitation's key.
			oneTime(t, s, Session{VPS: vps, Input: "{}", Run: run, Limit: patience})
			if left, _ := filepath.Glob(run + "/*"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestBrokenKey: a key that cannot be read is no key; another one takes its place once the VPS has taken it.
func TestBrokenKey(t *testing.T) {
	for _, c := range []client{dropbear, openssh} {
		for name, text := range map[string]string{"empty": "", "not a key": "hello\n", "cut off": opensshBegin} {
			t.Run(c.ssh+" "+name, func(t *testing.T) {
				with(t, c)
				dir := Dir(t.TempDir())
				if err := os.WriteFile(dir.Key("home"), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				path, public, err := dir.MakeKey("home")
				if err != nil || path == dir.Key("home") || !strings.HasPrefix(public, keyType+" AAAA") {
					t.Fatalf("%s %s, %v", path, public, err)
				}
				if again, same, err := dir.MakeKey("home"); again != path || same != public || err != nil {
					t.Errorf("the next try: %s %s, %v", again, same, err)
				}
				vps := VPS{Version: 1, Hosts: []string{"127.0.0.1"}, Port: 22}
				if err := dir.Keep("home", vps, path); err != nil {
					t.Fatal(err)
				}
				if again, same, err := dir.MakeKey("home"); again != dir.Key("home") || same != public || err != nil {
					t.Errorf("once it is taken: %s %s, %v", again, same, err)
				}
			})
		}
	}
}

func oneTime(t *testing.T, s *server, session Session) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	session.OneTime = (*[64]byte)(private)
	blob := append([]byte("\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"), public...)
	s.allow(t, "cat; echo enrolled", "ssh-ed25519 "+base64.StdEncoding.EncodeToString(blob))
	if answer, err := session.Do(); answer != "{}enrolled\n" || err != nil {
		t.Errorf("the invitation's key: %q, %v", answer, err)
	}
}

// TestOtherKeyType: a server with the same address and a host key of another type is not the VPS, whatever a client
// asks without a terminal.
func TestOtherKeyType(t *testing.T) {
	s := serve(t, "rsa")
	s.vps.HostKey = append([]byte("\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"), make([]byte, 32)...)
	for _, c := range []client{dropbear, openssh} {
		t.Run(c.ssh, func(t *testing.T) {
			with(t, c)
			dir := Dir(t.TempDir())
			path, public, err := dir.MakeKey("home")
			if err != nil {
				t.Fatal(err)
			}
			s.allow(t, "echo stranger", public)
			session := Session{VPS: s.vps, Key: path, Input: "ds4relay-push 1\n", Run: t.TempDir(), Limit: patience}
			if answer, err := session.Do(); !errors.Is(err, ErrHostKey) || answer != "" {
				t.Errorf("%q, %v", answer, err)
			}
		})
	}
}

// TestSilentServer: what takes a connection and says nothing does not hold up the caller.
func TestSilentServer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	vps := VPS{Version: 1, Hosts: []string{"127.0.0.1"}, Port: uint16(listener.Addr().(*net.TCPAddr).Port),
		HostKey: append([]byte("\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"), make([]byte, 32)...)}
	for _, c := range []client{dropbear, openssh} {
		t.Run(c.ssh, func(t *testing.T) {
			with(t, c)
			dir := Dir(t.TempDir())
			path, _, err := dir.MakeKey("home")
			if err != nil {
				t.Fatal(err)
			}
			session := Session{VPS: vps, Key: path, Run: t.TempDir(), Limit: 2 * time.Second}
			if answer, err := session.Do(); answer != "" || err == nil || !strings.Contains(err.Error(), ErrSilent.Error()) {
				t.Errorf("%q, %v", answer, err)
			}
		})
	}
	if Limit > 20*time.Second {
		t.Errorf("a session may take %v", Limit)
	}
}
