package paired

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/pushed"
)

// Limits of a session of a home: how long it may take to say what it wants, and to get an answer.
const (
	homeTime   = 20 * time.Second
	answerTime = 40 * time.Second
)

// Ask hands what a home says to the service, and returns the answer. most limits what it says, in bytes.
func Ask(socket string, header Header, in io.Reader, most int) []byte {
	refused := func(text *message.Text) []byte { return pushed.NewAnswer(pushed.Refuse(text)).JSON() }
	body, err := saidBy(in, most)
	if err != nil {
		return refused(message.Of(err))
	}
	first, err := json.Marshal(header)
	if err != nil {
		return refused(message.Of(err))
	}
	conn, err := net.DialTimeout("unix", socket, homeTime)
	if err != nil {
		return refused(message.New("the VPS's service does not answer; there: systemctl status ds4relay-receive.socket"))
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(answerTime))
	_, err = conn.Write(slices.Concat(first, []byte("\n"), body))
	if half, ok := conn.(*net.UnixConn); ok && err == nil {
		err = half.CloseWrite()
	}
	// An error may mean that the service has answered before it had read all.
	said, readErr := io.ReadAll(io.LimitReader(conn, pushed.MaxAnswer))
	switch err = errors.Join(err, readErr); {
	case len(said) > 0:
		return said
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refused(message.New("the VPS is still at work; ask again in a minute"))
	}
	return refused(message.New("the VPS's service has ended without an answer; its log says more (journalctl -t " +
		"ds4relay)"))
}

// saidBy reads what a home says, in homeTime.
func saidBy(in io.Reader, most int) ([]byte, error) {
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		data, err := io.ReadAll(io.LimitReader(in, int64(most)+1))
		done <- result{data, err}
	}()
	select {
	case r := <-done:
		if len(r.data) > most {
			return nil, message.New("the VPS reads at most %d bytes", most)
		}
		return r.data, r.err
	case <-time.After(homeTime):
		return nil, message.New("the VPS has waited %d seconds for the end of what this home says", int(homeTime.Seconds()))
	}
}
