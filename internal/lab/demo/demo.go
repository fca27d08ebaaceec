//go:build linux

// Package demo demonstrates a relay in the lab, from a home that nobody can reach to one with a public IPv4 address.
package demo

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ds4relay/ds4relay/internal/lab"
	"github.com/ds4relay/ds4relay/internal/lab/remote"
)

const vpsFile = `config relay 'home'
	option role     'vps'
	option ipaddr   '198.51.100.144'      # the VPS's public IPv4 address
	option ip6addr  '2001:db8:6ef9::/64'  # the VPS's IPv6 prefix
	option peeraddr '2001:db8:fdd2::/64'  # the home's
	list   keep     'tcp:22'              # ssh stays the VPS's own

config forward 'server'
	option proto    'all'
	option dest_ip  '192.168.1.210'
`

const routerFile = `config relay 'home'
	option role     'router'
	option ipaddr   '198.51.100.144'
	option ip6addr  '2001:db8:fdd2::/64'
	option peeraddr '2001:db8:6ef9::/64'

config forward 'server'
	option proto    'all'
	option dest_ip  '192.168.1.210'
`

const picture = `
  client --IPv4--> VPS ====IPv4 in IPv6====> router --LAN--> home server
  203.0.113.10     198.51.100.144            (DS-Lite)       192.168.1.210
`

// story prints the demo and keeps the first failure.
type story struct {
	w      io.Writer
	colour bool
	binary string
	dirs   map[*lab.Host]string // for each machine, the directory with its /etc/config and /run/ds4relay
	router *lab.Host            // stands for the router if that is its own virtual machine
	err    error
}

func (s *story) paint(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s *story) heading(text string) { fmt.Fprintf(s.w, "\n%s\n\n", s.paint("1;34", "== "+text)) }

func (s *story) say(text string) { fmt.Fprintln(s.w, text) }

func (s *story) prompt(h *lab.Host, command string) {
	name := strings.TrimPrefix(h.Name, "ds4-")
	fmt.Fprintln(s.w, s.paint("32", name+"# ")+s.paint("1", command))
}

func (s *story) file(h *lab.Host, text string) {
	s.prompt(h, "cat /etc/config/ds4relay")
	fmt.Fprintln(s.w, text)
	if h == s.router {
		_, err := s.onRouter(text, "sh", "-c", "cat >/etc/config/ds4relay")
		s.keep(err)
		return
	}
	s.keep(os.WriteFile(filepath.Join(s.dirs[h], "config", "ds4relay"), []byte(text), 0o644))
}

func (s *story) keep(err error) {
	if s.err == nil {
		s.err = err
	}
}

// run shows a command and its output; wanted says whether it must succeed.
func (s *story) run(h *lab.Host, wanted bool, args ...string) {
	if s.err != nil {
		return
	}
	s.prompt(h, strings.Join(args, " "))
	out, err := h.Run(args...)
	s.printed(out, err, wanted, strings.Join(args, " "))
}

func (s *story) printed(out string, err error, wanted bool, command string) {
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "[#] ") {
			line = s.paint("36", strings.TrimSuffix(line, "\n")) + "\n"
		}
		fmt.Fprint(s.w, line)
	}
	switch {
	case err != nil && wanted:
		s.keep(err)
	case err == nil && !wanted:
		s.keep(fmt.Errorf("%s: succeeded, but should fail here", command))
	}
	s.say("")
}

// relay runs ds4relay on a machine, with the machine's own /etc/config and /run/ds4relay in a mount namespace.
func (s *story) relay(h *lab.Host, args ...string) {
	if s.err != nil {
		return
	}
	s.prompt(h, "ds4relay "+strings.Join(args, " "))
	if h == s.router {
		out, err := s.onRouter("", append([]string{"ds4relay"}, args...)...)
		s.printed(out, err, true, "ds4relay")
		return
	}
	script := `mount --bind "$0/config" /etc/config && mount --bind "$0/run" /run/ds4relay && exec "$@"`
	out, err := h.Run(append([]string{"unshare", "--mount", "sh", "-c", script, s.dirs[h], s.binary}, args...)...)
	s.printed(out, err, true, "ds4relay")
}

// onRouter runs a command on the router's virtual machine.
func (s *story) onRouter(input string, args ...string) (string, error) {
	answer, err := remote.Run(input, args...)
	if err == nil && answer.Status != 0 {
		err = fmt.Errorf("%s: exit status %d", strings.Join(args, " "), answer.Status)
	}
	return answer.Output, err
}

// routerPatience is how long the router's virtual machine may take to boot.
const routerPatience = 2 * time.Minute

// waitForRouter waits until the router has booted.
func (s *story) waitForRouter() error {
	for deadline := time.Now().Add(routerPatience); ; time.Sleep(200 * time.Millisecond) {
		_, err := s.onRouter("", "true")
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

func (s *story) snapshot(h *lab.Host) (string, error) {
	if h == s.router {
		return s.onRouter("", "sh", "-c", "ip link; ip addr | grep inet; ip rule; ip route show table all; nft list "+
			"ruleset; sysctl net.ipv4.ip_forward")
	}
	return h.Snapshot()
}

// Run plays the demo with the given program and prints it to w.
func Run(w io.Writer, binary string, colour bool) (err error) {
	s := &story{w: w, colour: colour, binary: binary, dirs: map[*lab.Host]string{}}
	options := lab.Options{RPFilter: 1}
	arch := os.Getenv(lab.RouterEnvironment)
	if arch != "" {
		options = lab.Options{RouterVM: true}
	}
	net, err := lab.New(options)
	if err != nil {
		return err
	}
	if arch != "" {
		s.router = net.Router
		if err := s.waitForRouter(); err != nil {
			return errors.Join(err, net.Close())
		}
	}
	defer func() {
		if closeErr := net.Close(); err == nil {
			err = closeErr
		}
	}()
	dir, err := os.MkdirTemp("", "ds4relay-demo")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, path := range []string{"/etc/config", "/run/ds4relay"} { // mount points
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
	}
	for name, h := range map[string]*lab.Host{"vps": net.VPS, "router": net.Router, "client": net.Client} {
		s.dirs[h] = filepath.Join(dir, name)
		for _, sub := range []string{"config", "run"} {
			if err := os.MkdirAll(filepath.Join(s.dirs[h], sub), 0o755); err != nil {
				return err
			}
		}
	}
	stop, err := serve(net.Host)
	if err != nil {
		return err
	}
	defer stop()
	s.tell(net)
	return s.err
}

func (s *story) tell(n *lab.Net) {
	before := map[*lab.Host]string{}
	for _, h := range []*lab.Host{n.VPS, n.Router} {
		text, err := s.snapshot(h)
		s.keep(err)
		before[h] = text
	}

	s.heading("A home behind DS-Lite: nobody reaches it over IPv4")
	s.say(strings.TrimPrefix(picture, "\n"))
	if s.router != nil {
		s.say("The router is a machine of its own; ds4relay comes from its package:")
		s.say("")
		for _, args := range [][]string{{"uname", "-a"}, {"grep", "-m1", "-i", "cpu model\\|cpu part", "/proc/cpuinfo"},
			{"ls", "-l", "/usr/sbin/ds4relay"}} {
			s.prompt(s.router, strings.Join(args, " "))
			out, err := s.onRouter("", args...)
			s.printed(out, err, true, args[0])
		}
	}
	s.say("The home's IPv4 connections come from an address of the carrier, 192.0.2.1. No way leads back:")
	s.say("")
	s.run(n.Client, false, "curl", "-sS", "--max-time", "1", "http://192.0.2.1/")

	s.heading("The VPS: its configuration, and up")
	s.file(n.VPS, vpsFile)
	s.relay(n.VPS, "up")

	s.heading("The router at home: the same file with the ends swapped, and up")
	s.file(n.Router, routerFile)
	s.relay(n.Router, "up")

	s.heading("The client asks the VPS's address, the home server answers")
	s.run(n.Client, true, "curl", "-sS", "--max-time", "5", "http://198.51.100.144/")

	s.heading("What each end says of it")
	s.relay(n.VPS, "status")
	s.relay(n.Router, "status")

	s.heading("What the way through the relay costs: IPv4 by the relay against IPv6 straight to the home server")
	s.relay(n.Client, "-q", "ping", "198.51.100.144", "2001:db8:fdd2::210", "-c", "20", "-i", "0.05")

	s.heading("Down again, and nothing is left")
	s.relay(n.Router, "down")
	s.relay(n.VPS, "down")
	for _, h := range []*lab.Host{n.VPS, n.Router} {
		after, err := s.snapshot(h)
		s.keep(err)
		if s.err == nil && after != before[h] {
			s.keep(fmt.Errorf("%s: links, addresses, routes, rules, nft tables or sysctls are not what they were; "+
				"before:\n%s\nafter:\n%s", h.Name, before[h], after))
		}
		if s.err == nil {
			s.say(strings.TrimPrefix(h.Name, "ds4-") + ": links, addresses, routes, rules, nft ruleset and sysctls " +
				"are byte for byte what they were.")
		}
	}
}

// serve is the home server's web page. It shows the client's address as the server sees it.
func serve(h *lab.Host) (stop func() error, err error) {
	listener, err := h.Listen("tcp4", ":80")
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		address, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "Hello %s, this is the home server (%s).\n", address, lab.HostIPv4)
	})}
	go server.Serve(listener)
	return server.Close, nil
}
