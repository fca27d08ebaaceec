// Package remote is what the lab and the agent on a router of its own say to each other: a request and an answer for
// each connection, in JSON.
package remote

import (
	"encoding/json"
	"fmt"
	"net"
	"time"
)

// Address is where the agent listens, on a network that only the lab is in.
const Address = "169.254.46.2:7"

// Started is what the agent says on its machine's console when it listens.
const Started = "lab agent: started"

// Limit bounds one command.
const Limit = 2 * time.Minute

// Request is a command and its standard input.
type Request struct {
	Args  []string
	Input string
}

// Answer is what the command printed, its exit status, and the most memory that it had, in bytes.
type Answer struct {
	Output string
	Status int
	Memory int64
}

// Run has the agent run a command.
func Run(input string, args ...string) (answer Answer, err error) {
	return Within(Limit, input, args...)
}

// Within is Run with a limit of its own, such as for a machine that may go while it is asked: nothing tells of that.
func Within(limit time.Duration, input string, args ...string) (answer Answer, err error) {
	conn, err := net.DialTimeout("tcp4", Address, 5*time.Second)
	if err != nil {
		return answer, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return answer, err
	}
	if err := json.NewEncoder(conn).Encode(Request{args, input}); err != nil {
		return answer, err
	}
	if err := json.NewDecoder(conn).Decode(&answer); err != nil {
		return answer, fmt.Errorf("the router's agent: %w", err)
	}
	return answer, nil
}
