package vm

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ds4relay/ds4relay/internal/lab/remote"
)

// second is the second machine: a router or a Debian. When its system reboots, QEMU ends and is started again. This is
// faster than a reset, which keeps a full cache of translated code, and can be monitored like any boot.
type second struct {
	name  string
	qemu  string
	args  []string
	dir   string
	cards []int
	opts  *Options

	mu       sync.Mutex
	consoles []string
}

// maxBoots is how often a second machine may start in one run.
const maxBoots = 30

// start boots the machine, and again after each reboot of its system, until end. It calls lost if a boot fails later.
func (s *second) start(ctx context.Context, lost func(error)) (end func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	ready, done := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // Pdeathsig is tied to the forking thread
		defer runtime.UnlockOSThread()
		report := func(err error) {
			select {
			case ready <- err:
			default: // the first boot has been reported already
			}
		}
		err := fmt.Errorf("%s has started %d times", s.name, maxBoots)
		for range maxBoots {
			if bootErr := s.boot(ctx, report); bootErr != nil || ctx.Err() != nil {
				err = bootErr
				break
			}
		}
		report(err)
		if ctx.Err() == nil {
			lost(err)
		}
	}()
	end = func() {
		cancel()
		<-done
	}
	if err := <-ready; err != nil {
		end()
		return nil, err
	}
	return end, nil
}

// boot runs the machine until it ends. It calls report when the machine has started.
func (s *second) boot(ctx context.Context, report func(error)) error {
	for try := 1; ; try++ {
		err := s.run(ctx, try, report)
		var failed *bootError
		if !errors.As(err, &failed) || ctx.Err() != nil {
			return err
		}
		s.opts.note(failed.Boot)
		if try == bootTries {
			return err
		}
	}
}

// run boots the machine once. A bootError means that it did not start.
func (s *second) run(ctx context.Context, try int, report func(error)) error {
	s.mu.Lock()
	console := filepath.Join(s.dir, fmt.Sprintf("%s.%d.log", s.name, len(s.consoles)+1))
	s.consoles = append(s.consoles, console)
	s.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	args := append([]string{"-nodefaults", "-display", "none", "-no-reboot", "-serial", "file:" + console}, s.args...)
	args = append(args, cardArgs(s.dir, 1, s.cards, func(card int) string {
		return fmt.Sprintf("52:54:00:46:02:%02x", card)
	})...)
	cmd := exec.CommandContext(ctx, s.qemu, args...)
	var problems strings.Builder
	cmd.Stdout, cmd.Stderr = &problems, &problems
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%w (is %s installed?)", err, s.qemu)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	watch := watchBoot(s.name, try, cmd.Process.Pid, console)
	poll := time.NewTicker(bootPoll)
	defer poll.Stop()
	for !saysStarted(console, remote.Started) {
		select {
		case err := <-ended:
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case saysStarted(console, remote.Started):
				s.opts.note(watch.ended())
				report(nil)
				return nil
			}
			return watch.failed(fmt.Sprintf("ended before it had started (%v) %s", err, problems.String()))
		case <-poll.C:
		}
		if why := watch.failure(); why != "" && !saysStarted(console, remote.Started) {
			failed := watch.failed(why)
			cancel()
			<-ended
			return failed
		}
	}
	s.opts.note(watch.ended())
	report(nil)
	<-ended
	return nil
}

// log returns the console output of all boots.
func (s *second) log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var text strings.Builder
	for _, console := range s.consoles {
		text.WriteString(readLog(console))
	}
	return text.String()
}
