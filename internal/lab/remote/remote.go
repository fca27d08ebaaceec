// Package remote is the protocol between the lab and the agent on a second virtual machine: one request and one answer
// per connection, in JSON.
package remote

import (
	"encoding/json"
	"fmt"
	"net"
	"time"
)

// Address is where the agent listens, on a network that only the lab is connected to.
const Address = "169.254.46.2:7"

// Started is what the agent prints on its machine's console when it listens.
const Started = "lab agent: started"

// Limit is the time limit of a command.
const Limit = 5 * time.Minute

// Request is a command and its standard input.
type Request struct {
	Args  []string
	Input string
}

// Answer is a command's output, its exit status, and its peak memory in bytes.
type Answer struct {
	Output string
	Status int
	Memory int64
}

// Spun is what "agent -spin" prints: how often a loop of the lowest priority went round, and how many packets each
// network card received meanwhile.
type Spun struct {
	Rounds  int64
	Elapsed time.Duration
	Packets map[string]int64
}

// Run lets the agent run a command.
func Run(input string, args ...string) (answer Answer, err error) {
	return Within(Limit, input, args...)
}

// Within is Run with another time limit, for example for a machine that may be stopping: nothing announces its end.
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
