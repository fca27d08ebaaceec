package proxyd

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Requests on the control socket, one word per line. The answer is a line of JSON; handOver first returns descriptors,
// until the client sends taken.
const (
	askStatus   = "status"
	askReload   = "reload"
	askUpgrade  = "upgrade"
	askHandOver = "hand-over"
	tellTaken   = "taken" // the other process listens, and may become the only one
)

// answer is a line of JSON.
type answer struct {
	Error         string  `json:"error,omitempty"`
	Configuration bool    `json:"configuration,omitempty"` // the error is a mistake in the file
	Report        *Report `json:"report,omitempty"`
}

// ErrNotRunning is returned for requests to a service that does not run.
var ErrNotRunning = errors.New("the proxies do not run")

// ConfigurationError reports mistakes in the configuration; nothing was changed.
type ConfigurationError string

func (e ConfigurationError) Error() string { return string(e) }

// controlPath returns the control socket of the service whose records are in run.
func controlPath(run string) string { return filepath.Join(run+"-proxy", "control") }

const (
	// answerTime limits the time for a request.
	answerTime = 10 * time.Second
	// upgradeTime limits the start of another program: its files may be on a slow disk.
	upgradeTime = time.Minute
	// maxAnswer and maxObjects limit an answer, in bytes and in JSON values: any program may be answering.
	maxAnswer  = 8 << 20
	maxObjects = 20000
)

var errAnswer = errors.New("what answers on the control socket is no ds4relay: its answer has no end")

func dial(run string) (*net.UnixConn, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: controlPath(run), Net: "unix"})
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return nil, ErrNotRunning
	case err != nil:
		return nil, fmt.Errorf("the proxies cannot be asked: %w", err)
	}
	return conn, nil
}

func running(run string) bool {
	conn, err := dial(run)
	if err == nil {
		conn.Close()
	}
	return !errors.Is(err, ErrNotRunning)
}

// ask sends a request and reads the answer.
func ask(conn net.Conn, question string, limit time.Duration) (*answer, error) {
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return nil, err
	}
	if _, err := conn.Write([]byte(question + "\n")); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(io.LimitReader(conn, maxAnswer)).ReadBytes('\n')
	switch {
	case err == io.EOF && len(line) == maxAnswer, bytes.Count(line, []byte("{")) > maxObjects:
		return nil, errAnswer
	case err != nil:
		return nil, err
	}
	var a answer
	if err := json.Unmarshal(line, &a); err != nil {
		return nil, err
	}
	switch {
	case a.Configuration:
		return &a, ConfigurationError(a.Error)
	case a.Error != "":
		return &a, errors.New(a.Error)
	}
	return &a, nil
}

func question(run, text string, limit time.Duration) (*answer, error) {
	conn, err := dial(run)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return ask(conn, text, limit)
}

// Ask returns the status of the running proxies.
func Ask(run string) (*Report, error) {
	a, err := question(run, askStatus, answerTime)
	if err != nil {
		return nil, err
	}
	return a.Report, nil
}

// Reload makes the service read its configuration again.
func Reload(run string) error {
	_, err := question(run, askReload, answerTime)
	return err
}

// Upgrade makes the service start the program that is installed now, which takes over.
func Upgrade(run string) error {
	_, err := question(run, askUpgrade, upgradeTime)
	return err
}

// former is the process that this one has taken over from.
type former struct{ conn *net.UnixConn }

// formerName is the name of a connection to a former process among the sockets that are handed over.
const formerName = "former"

// takeOver asks the service for its sockets. Until taken is sent, the service listens as before, and must not get other
// requests.
func (d *daemon) takeOver() (before *former, sockets []int, err error) {
	conn, err := dial(d.Run)
	if err != nil {
		return nil, nil, err
	}
	before = &former{conn}
	names, fds, err := before.receive()
	if err != nil {
		conn.Close()
		for _, fd := range fds {
			unix.Close(fd)
		}
		return nil, nil, fmt.Errorf("take over from the process that runs: %w", err)
	}
	for i, fd := range fds {
		if names[i] != formerName {
			sockets = append(sockets, fd)
			continue
		}
		file := os.NewFile(uintptr(fd), formerName)
		if conn, err := net.FileConn(file); err == nil {
			d.formers = append(d.formers, &former{conn.(*net.UnixConn)})
		}
		file.Close()
	}
	return before, sockets, nil
}

// receive reads lines, each with a descriptor, up to an empty line.
func (f *former) receive() (names []string, fds []int, err error) {
	if err := f.conn.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return nil, nil, err
	}
	if _, err := f.conn.Write([]byte(askHandOver + "\n")); err != nil {
		return nil, nil, err
	}
	buffer, rights, text := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*fdsAtOnce)), ""
	for !strings.HasSuffix("\n"+text, "\n\n") {
		n, oob, _, _, err := f.conn.ReadMsgUnix(buffer, rights)
		if err != nil {
			return nil, fds, err
		}
		if text += string(buffer[:n]); len(text) > maxAnswer {
			return nil, fds, errAnswer
		}
		if n == 0 || strings.HasPrefix(text, "{") && strings.HasSuffix(text, "\n") { // it is an error message
			return nil, fds, fmt.Errorf("it does not hand over: %s", strings.TrimSpace(text))
		}
		messages, err := unix.ParseSocketControlMessage(rights[:oob])
		if err != nil {
			return nil, fds, err
		}
		for _, m := range messages {
			more, err := unix.ParseUnixRights(&m)
			if err != nil {
				return nil, fds, err
			}
			fds = append(fds, more...)
		}
	}
	if names = strings.Fields(strings.ReplaceAll(text, " ", "_")); len(names) != len(fds) {
		return nil, fds, fmt.Errorf("%d of %d sockets came", len(fds), len(names))
	}
	return names, fds, nil
}

// taken says that this process listens, and waits until it is the only one.
func (f *former) taken() error {
	_, err := ask(f.conn, tellTaken, answerTime)
	return err
}

// report returns the status of the former process; nil when it has ended.
func (f *former) report() *Report {
	a, err := ask(f.conn, askStatus, answerTime)
	if err != nil {
		f.conn.Close()
		return nil
	}
	return a.Report
}
