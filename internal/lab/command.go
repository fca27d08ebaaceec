//go:build linux

package lab

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// runLimit is the time limit of Host.Run. Use Host.Command for longer programs. It is generous because an
// instruction-counting CPU's clock jumps ahead whenever the machine waits for its disk.
const runLimit = 30 * time.Minute

// runDelay is how long to wait for a program's output after its end: a busy computer may take seconds.
const runDelay = 30 * time.Second

// Cmd is an exec.Cmd whose process runs in a host's namespace. Closing the Net kills it.
type Cmd struct {
	*exec.Cmd
	host *Host
}

// Command returns a program to start on the host. Unlike with ip netns exec, /sys is the machine's.
func (h *Host) Command(name string, args ...string) *Cmd {
	return &Cmd{exec.Command(name, args...), h}
}

// CommandContext is Command with a context that kills the process.
func (h *Host) CommandContext(ctx context.Context, name string, args ...string) *Cmd {
	return &Cmd{exec.CommandContext(ctx, name, args...), h}
}

// Start is like exec.Cmd.Start.
func (c *Cmd) Start() error {
	if err := c.host.Do(c.Cmd.Start); err != nil {
		return fmt.Errorf("%s: %w", c.host.Name, err)
	}
	c.host.mu.Lock()
	defer c.host.mu.Unlock()
	c.host.children = append(c.host.children, c)
	return nil
}

// Run is like exec.Cmd.Run.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output is like exec.Cmd.Output.
func (c *Cmd) Output() ([]byte, error) {
	var out strings.Builder
	c.Stdout = &out
	err := c.Run()
	return []byte(out.String()), err
}

// CombinedOutput is like exec.Cmd.CombinedOutput.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	var out strings.Builder
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return []byte(out.String()), err
}

// Run runs a program on the host for at most half an hour and returns what it wrote to stdout and stderr. An error
// contains this text too.
func (h *Host) Run(args ...string) (string, error) {
	return h.RunInput("", args...)
}

// RunInput is Run with text for the program's stdin.
func (h *Host) RunInput(input string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), runLimit)
	defer cancel()
	cmd := h.CommandContext(ctx, args[0], args[1:]...)
	if input != "" {
		cmd.Stdin = strings.NewReader(input)
	}
	cmd.WaitDelay = runDelay
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %s: %w: %s", h.Name, strings.Join(args, " "), err,
			strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// NFT loads a ruleset with nft -f, in one transaction.
func (h *Host) NFT(ruleset string) error {
	_, err := h.RunInput(ruleset, "nft", "-f", "-")
	return err
}
