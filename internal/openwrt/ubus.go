package openwrt

import (
	"errors"
	"time"

	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/program"
)

// callTime limits one ubus call.
const callTime = 10 * time.Second

// Call calls a ubus method with arguments in JSON ("" for none) and returns the answer in JSON. It runs the program
// ubus, which every OpenWrt has: there is no Go library for the protocol.
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
