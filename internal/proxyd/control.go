package proxyd

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/proxy"
)

const (
	// fdsAtOnce: a message can carry 253 descriptors (SCM_MAX_FD, include/net/scm.h).
	fdsAtOnce = 250
	// maxAskers limits the connections of unprivileged users.
	maxAskers = 16
	// handOverTime is how long another process may take from hand-over to taken.
	handOverTime = 30 * time.Second
)

// listen answers on the control socket, replacing an earlier process.
func (d *daemon) listen() error {
	path := controlPath(d.Run)
	// In a service the directory exists, and its parent is read-only.
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	fresh := fmt.Sprintf("%s.%d", path, os.Getpid())
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	// Everybody may read the status; other rights are decided for each connection.
	if err := errors.Join(os.Chmod(fresh, 0o666), os.Rename(fresh, path)); err != nil {
		return errors.Join(err, l.Close(), os.Remove(fresh))
	}
	go d.accept(l)
	go func() {
		<-d.handed
		l.Close()
	}()
	return nil
}

// unlisten removes the control socket, unless it is another process's.
func (d *daemon) unlisten() { os.Remove(controlPath(d.Run)) }

func (d *daemon) accept(l *net.UnixListener) {
	askers := make(chan struct{}, maxAskers)
	for {
		conn, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(answerTime / 100) // out of descriptors
			continue
		}
		peer, err := credentials(conn)
		if err != nil {
			conn.Close()
			continue
		}
		c := &asker{daemon: d, conn: conn, pid: peer.Pid, trusted: peer.Uid == 0 || peer.Uid == uint32(os.Geteuid())}
		if c.trusted {
			go c.serve()
			continue
		}
		select {
		case askers <- struct{}{}:
			go func() {
				defer func() { <-askers }()
				c.serve()
			}()
		default:
			conn.Close()
		}
	}
}

func credentials(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var peer *unix.Ucred
	var failure error
	err = raw.Control(func(fd uintptr) {
		peer, failure = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return peer, errors.Join(err, failure)
}

// asker is a client of the control socket.
type asker struct {
	*daemon
	conn    *net.UnixConn
	pid     int32
	trusted bool // root, or the service's own user
}

func (c *asker) serve() {
	defer c.conn.Close()
	_ = c.conn.SetDeadline(time.Now().Add(answerTime))
	lines := bufio.NewScanner(c.conn)
	for lines.Scan() {
		switch question := lines.Text(); {
		case question == askStatus:
			c.reply(answer{Report: c.report()})
		case !c.trusted:
			c.reply(answer{Error: question + " is for root"})
		case question == askReload:
			c.reply(failure(c.reload()))
		case question == askUpgrade:
			_ = c.conn.SetDeadline(time.Now().Add(upgradeTime))
			c.busy.Add(1)
			c.reply(failure(c.upgrade()))
			c.busy.Done()
			return
		case question == askHandOver:
			c.handOver(lines)
		default:
			c.reply(answer{Error: fmt.Sprintf("unknown question %q", question)})
			return
		}
	}
}

func failure(err error) answer {
	if err == nil {
		return answer{}
	}
	var mistake ConfigurationError
	return answer{Error: err.Error(), Configuration: errors.As(err, &mistake)}
}

func (c *asker) reply(a answer) {
	data, err := json.Marshal(a)
	if err == nil {
		_, _ = c.conn.Write(append(data, '\n')) // the client may have gone
	}
}

// handOver passes the listening sockets to another process. Until that one sends taken, this one listens too.
func (c *asker) handOver(lines *bufio.Scanner) {
	d := c.daemon
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		c.reply(answer{Error: "this process is ending"})
		return
	}
	_ = c.conn.SetDeadline(time.Now().Add(handOverTime))
	sockets := d.server.Sockets()
	d.formersMu.Lock()
	defer d.formersMu.Unlock()
	for _, f := range d.formers {
		if raw, err := f.conn.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { sockets = append(sockets, proxy.Socket{Name: formerName, FD: int(fd)}) })
		}
	}
	for len(sockets) > 0 {
		batch := sockets[:min(fdsAtOnce, len(sockets))]
		sockets = sockets[len(batch):]
		var names strings.Builder
		var fds []int
		for _, s := range batch {
			names.WriteString(s.Name + "\n")
			fds = append(fds, s.FD)
		}
		n, _, err := c.conn.WriteMsgUnix([]byte(names.String()), unix.UnixRights(fds...), nil)
		if err == nil {
			_, err = c.conn.Write([]byte(names.String()[n:]))
		}
		if err != nil {
			return
		}
	}
	if _, err := c.conn.Write([]byte("\n")); err != nil {
		return
	}
	if !lines.Scan() || lines.Text() != tellTaken {
		return
	}
	d.over = true
	for _, f := range d.formers {
		f.conn.Close()
	}
	d.formers = nil
	// systemd accepts this only from its main process, which is the other one from then on.
	notify(fmt.Sprintf("MAINPID=%d", c.pid))
	d.server.Release()
	c.reply(answer{})
	_ = c.conn.SetDeadline(time.Time{}) // it asks for the status of the remaining sessions
	close(d.handed)
}

// upgrade starts the program that is installed now, with the same arguments, and waits until it has taken over. The new
// process is a child of this one's parent, the service manager, which must be notified when it ends.
func (d *daemon) upgrade() error {
	path, err := os.Executable()
	if err != nil {
		return err
	}
	args := append([]string{}, os.Args...)
	if !d.TakeOver {
		args = append(args, "--take-over")
	}
	pidfd := -1
	_, err = syscall.ForkExec(path, args, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_PARENT, PidFD: &pidfd}})
	if err != nil {
		return fmt.Errorf("start %s: %w", path, err)
	}
	ended := make(chan struct{})
	go func() {
		defer unix.Close(pidfd)
		wait := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		for {
			n, err := unix.Poll(wait, int(upgradeTime/time.Millisecond))
			if err != unix.EINTR {
				if n > 0 {
					close(ended)
				}
				return
			}
		}
	}()
	select {
	case <-d.handed:
		return nil
	case <-ended:
		return fmt.Errorf("%s has ended without taking over (its log says why); the former version goes on", path)
	case <-time.After(handOverTime):
		return fmt.Errorf("%s has not taken over within %s; the former version goes on", path, handOverTime)
	}
}
