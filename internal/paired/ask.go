package paired

import (
	"encoding/json"
	"errors"
	"io"
	"net"
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
	if len(said) == 0 {
		return refused(message.New("the VPS's service has ended without an answer: %v", errors.Join(err, readErr)))
	}
	return said
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
			return nil, message.New("has more than %d bytes", most)
		}
		return r.data, r.err
	case <-time.After(homeTime):
		return nil, message.New("nothing has come for %d seconds", int(homeTime.Seconds()))
	}
}
