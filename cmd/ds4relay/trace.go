package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/packet"
	"github.com/ds4relay/ds4relay/internal/packetio"
	"github.com/ds4relay/ds4relay/internal/probe"
	"github.com/ds4relay/ds4relay/internal/state"
	"github.com/ds4relay/ds4relay/internal/trace"
)

// Limits of trace's options.
const (
	maxTraced    = 10000
	maxTraceTime = 3600
)

// trace prints the packets of one connection on this end's devices.
func (a *app) trace(f *flag.FlagSet) func([]string) error {
	count := f.Int("c", 40, "end after so many `LINES`, else 40")
	seconds := f.Int("t", 30, "end after so many `SECONDS`, else 30")
	return func(args []string) error { return a.traceClient(args, *count, *seconds) }
}

func (a *app) traceClient(args []string, count, seconds int) error {
	var client netip.Addr
	var err error
	switch {
	case len(args) > 1:
		return usageError("trace takes one client's IPv4 address, or none for the next connection")
	case count < 1 || count > maxTraced:
		return usageError(fmt.Sprintf("trace -c %d: allowed is a number of lines from 1 to %d", count, maxTraced))
	case seconds < 1 || seconds > maxTraceTime:
		return usageError(fmt.Sprintf("trace -t %d: allowed are seconds from 1 to %d", seconds, maxTraceTime))
	case len(args) == 1:
		if client, err = netip.ParseAddr(args[0]); err != nil || !client.Is4() {
			return usageError(fmt.Sprintf("trace %q: allowed is the IPv4 address of a client", args[0]))
		}
	}
	c, _, err := a.load(a.path)
	if err != nil {
		return err
	}
	if err := needRoot(); err != nil {
		return err
	}
	ways, err := a.ways(c)
	if err != nil {
		return err
	}
	return a.follow(trace.New(ways, client), client, count, time.Duration(seconds)*time.Second)
}

// ways returns the paths of the relays that are up.
func (a *app) ways(c *config.Config) ([]*trace.Way, error) {
	relays, _, err := a.running(c)
	if err != nil {
		return nil, err
	}
	if len(relays) == 0 {
		return nil, errors.New("no relay is up: nothing can be followed; ds4relay up")
	}
	m := &probe.Prober{Kernel: a.kernel()}
	var ways []*trace.Way
	for _, r := range relays {
		path, err := m.Path(r)
		if err != nil {
			return nil, err
		}
		ways = append(ways, &trace.Way{Relay: r, Access: path.Access, LAN: path.LAN, MTU: path.MTU,
			Remote: path.Remote, Tunnel: state.TunnelOf(r, path.Local, path.Peer)})
	}
	return ways, nil
}

func (a *app) follow(f *trace.Follower, client netip.Addr, count int, limit time.Duration) error {
	tap, err := packetio.Open()
	if err != nil {
		return err
	}
	defer tap.Close()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if !a.quiet {
		who := "the next connection"
		if client.IsValid() {
			who = "the next connection of " + client.String()
		}
		fmt.Fprintf(a.stderr, "waiting for %s, at most %v\n", who, limit)
	}
	lines := 0
	for deadline := time.Now().Add(limit); lines < count && ctx.Err() == nil && time.Now().Before(deadline); {
		// In short intervals, so that an interrupt takes effect.
		frame, ok, err := tap.Next(time.Now().Add(min(100*time.Millisecond, time.Until(deadline))))
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		p, ok := packet.Decode(frame.Data)
		if !ok {
			continue
		}
		found := f.Connection()
		for _, event := range f.Frame(trace.Frame{At: time.Now(), Device: frame.Device, Out: frame.Out, Packet: p}) {
			if found == nil {
				found = f.Connection()
				fmt.Fprintln(a.stdout, found.Way.Ends())
			}
			fmt.Fprintln(a.stdout, event)
			lines++
		}
	}
	found := f.Connection()
	if found == nil {
		return fmt.Errorf("no connection was seen within %v; a client has to try while this runs", limit)
	}
	if text := tracked(found); text != "" {
		fmt.Fprintln(a.stdout, text)
	}
	if text := f.End(); text != "" {
		fmt.Fprintln(a.stdout, text)
	}
	return nil
}

// tracked returns the connection tracking entry of the connection as text; "" if there is none.
func tracked(c *trace.Connection) (text string) {
	kernel.Flows(func(flow state.Flow) {
		if flow.Src != c.Client || flow.Proto != c.Proto || flow.Dst != c.First.Dst && flow.AnswerSrc != c.First.Dst {
			return
		}
		if config.HasPorts(c.Proto) && flow.DstPort != c.First.DstPort && flow.AnswerPort != c.First.DstPort {
			return
		}
		text = fmt.Sprintf("conntrack: %s from %s to %s", config.ProtoName(flow.Proto), flow.Src,
			endText(flow.Dst, flow.DstPort))
		if flow.AnswerSrc != flow.Dst || flow.AnswerPort != flow.DstPort {
			text += ", translated to " + endText(flow.AnswerSrc, flow.AnswerPort)
		}
		if flow.Mark != 0 {
			text += fmt.Sprintf(", mark %#x", flow.Mark)
		}
	}, func() { text = "" })
	return text
}

func endText(a netip.Addr, port uint16) string {
	if port == 0 {
		return a.String()
	}
	return netip.AddrPortFrom(a, port).String()
}
