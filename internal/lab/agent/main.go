// Agent runs commands for the lab on a second virtual machine. It accepts requests from anybody, because its network
// contains only one other machine: the lab.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/lab/keys"
	"github.com/ds4relay/ds4relay/internal/lab/remote"
)

func main() {
	hold := flag.Bool("hold-keys", false, "keep the kernel from altering its code for packets, by hooks in a network "+
		"namespace of the agent's own")
	spinning := flag.Duration("spin", 0, "take what nobody else wants of the CPU for this long, and print a remote.Spun")
	flag.Parse()
	err := error(nil)
	if *spinning > 0 {
		if err := spin(*spinning); err != nil {
			fmt.Fprintln(os.Stderr, "agent:", err)
			os.Exit(1)
		}
		return
	}
	if *hold {
		err = holdKeys()
	}
	if err == nil {
		err = serve()
	}
	fmt.Println("agent:", err)
	os.Exit(1)
}

// holdKeys is keys.Hold in a separate namespace, where the machine's own programs, such as one that flushes the nft
// ruleset, cannot undo it.
func holdKeys() error {
	held := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := os.NewSyscallError("unshare", unix.Unshare(unix.CLONE_NEWNET))
		if err == nil {
			err = keys.Hold()
		}
		held <- err
		select {} // the thread keeps the namespace alive
	}()
	return <-held
}

// serve returns only if there is an error.
func serve() error {
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	listener, err := config.Listen(context.Background(), "tcp4", remote.Address)
	if err != nil {
		return err
	}
	if err := sayStarted(); err != nil {
		return err
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(remote.Limit))
			var request remote.Request
			if json.NewDecoder(conn).Decode(&request) == nil && len(request.Args) > 0 {
				json.NewEncoder(conn).Encode(run(request))
			}
		}()
	}
}

// sayStarted announces on the console that the agent is ready.
func sayStarted() error {
	console, err := os.OpenFile("/dev/console", os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer console.Close()
	_, err = fmt.Fprintln(console, remote.Started)
	return err
}

func run(request remote.Request) remote.Answer {
	cmd := exec.Command(request.Args[0], request.Args[1:]...)
	cmd.Stdin = strings.NewReader(request.Input)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	answer := remote.Answer{}
	var exit *exec.ExitError
	if err := cmd.Run(); errors.As(err, &exit) {
		answer.Status = exit.ExitCode()
	} else if err != nil {
		return remote.Answer{Status: 127, Output: err.Error()}
	}
	answer.Output = output.String()
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		answer.Memory = int64(usage.Maxrss) * 1024
	}
	return answer
}
