// Package program starts other programs. Each has a limit: one that hangs is an error, and does not hang the caller.
package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Command is a program to be run.
type Command struct {
	Name      string // as in PATH, or a path
	Args      []string
	Input     string        // standard input
	Limit     time.Duration // then the program and those that it started are killed
	Output    io.Writer     // takes both outputs as they come; nil: Run returns them
	EndWithUs bool          // the kernel kills the program when this process dies
	Env       []string      // the environment in place of this process's own, if there are any
	Apart     bool          // a session of its own: without a terminal, nobody can be asked anything
	Most      int           // bytes that Run returns of each output at most, the rest is read and dropped; 0: all
}

// grace is how long outputs are still read after the program has ended: somebody else may have them open, and a busy
// router may take seconds for what is still in the pipe.
const grace = 5 * time.Second

// ErrNotFound is returned where the program is not installed.
var ErrNotFound = exec.ErrNotFound

// A LimitError is returned where a program did not end within its limit. What it had to do may be done.
type LimitError struct {
	Name  string
	Limit time.Duration
}

// Error implements error.
func (e *LimitError) Error() string {
	return fmt.Sprintf("%s did not end within %v, and was killed", e.Name, e.Limit)
}

// Run runs the program to its end. An *exec.ExitError says that it failed, a *LimitError that it did not end; problems
// is what it wrote to its standard error.
func (c Command) Run() (output, problems string, err error) {
	return c.RunContext(context.Background())
}

// RunContext also kills the program when ctx ends.
func (c Command) RunContext(ctx context.Context) (output, problems string, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.Limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Name, c.Args...)
	// A group of its own: a script that is killed takes along what it waits for.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: !c.Apart, Setsid: c.Apart}
	cmd.Env = c.Env
	if c.EndWithUs {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = grace
	cmd.Stdin = strings.NewReader(c.Input)
	out, said := bounded{most: c.Most}, bounded{most: c.Most}
	cmd.Stdout, cmd.Stderr = &out, &said
	if c.Output != nil {
		cmd.Stdout, cmd.Stderr = c.Output, c.Output
	}
	err = cmd.Run()
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded) && err != nil:
		err = &LimitError{c.Name, c.Limit}
	case errors.Is(err, exec.ErrWaitDelay):
		err = nil // it has ended well; what it left running has kept an output open
	}
	return out.kept.String(), strings.TrimSpace(said.kept.String()), err
}

// bounded keeps the beginning of what is written.
type bounded struct {
	kept bytes.Buffer
	most int
}

func (b *bounded) Write(p []byte) (int, error) {
	kept := p
	if b.most > 0 {
		kept = p[:min(len(p), b.most-b.kept.Len())]
	}
	b.kept.Write(kept)
	return len(p), nil
}
