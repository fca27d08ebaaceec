package openwrt

import (
	"errors"
	"time"

	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/program"
)

// callTime bounds one call on ubus.
const callTime = 10 * time.Second

// Call calls a method on ubus with arguments in JSON ("" for none) and returns the answer in JSON. It runs the program
// ubus: the protocol's library is no Go, and the program is on every OpenWrt.
func Call(object, method, arguments string) ([]byte, error) {
	args := []string{"call", object, method}
	if arguments != "" {
		args = append(args, arguments)
	}
	out, problems, err := program.Command{Name: "ubus", Args: args, Limit: callTime}.Run()
	switch {
	case errors.Is(err, program.ErrNotFound):
		return nil, message.New("ubus call %s %s: this machine has no ubus", object, method)
	case err != nil:
		return nil, message.New("ubus call %s %s: %v %s", object, method, err, problems)
	}
	return []byte(out), nil
}
