package openwrt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// callTime bounds one call on ubus.
const callTime = 10 * time.Second

// Call calls a method on ubus with arguments in JSON ("" for none) and returns the answer in JSON. It runs the program
// ubus: the protocol's library is no Go, and the program is on every OpenWrt.
func Call(object, method, arguments string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	args := []string{"call", object, method}
	if arguments != "" {
		args = append(args, arguments)
	}
	cmd := exec.CommandContext(ctx, "ubus", args...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	err := cmd.Run()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return nil, fmt.Errorf("ubus call %s %s: this machine has no ubus", object, method)
	case err != nil:
		return nil, fmt.Errorf("ubus call %s %s: %w %s", object, method, err, strings.TrimSpace(problems.String()))
	}
	return out.Bytes(), nil
}
