package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ds4relay/ds4relay/internal/lab"
)

// targetPort is the server's port.
const targetPort = 80

// relay is a path from the client to the host, with its programs and their configurations.
type relay struct {
	name  string
	ours  bool
	start func(r *relay) []*lab.Cmd // nil: no programs
	tcp   string                    // address for clients
	udp   string                    // the same for UDP; empty: no UDP
	// It runs a process for each connection, so it is not tested with 20,000.
	processes bool

	running []*lab.Cmd
	said    *words
}

// words keeps the last output of programs.
type words struct {
	mu   sync.Mutex
	text []byte
}

func (w *words) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, b...)
	w.text = w.text[max(0, len(w.text)-2000):]
	return len(b), nil
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.text)
}

// relays returns the paths to measure, in the order of the table; the first is the reference. most is how many
// connections a proxy must be able to hold.
func relays(l *lab.ProxyNet, dir, ds4relay, frp string, most int) ([]*relay, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	target := net.JoinHostPort(lab.ProxyHost.String(), fmt.Sprint(targetPort))
	list := []*relay{{name: "plain IPv6 routing", tcp: target, udp: target}}
	port := 8000
	// add gives each path its own port, so that all can run at the same time. file writes a configuration.
	add := func(name string, r relay, start func(listen string, file func(name, text string) string) []*lab.Cmd) {
		port++
		r.name, r.tcp = name, net.JoinHostPort(lab.ProxyVPS.String(), fmt.Sprint(port))
		if r.udp != "" {
			r.udp = r.tcp
		}
		r.said = &words{}
		r.start = func(r *relay) []*lab.Cmd {
			return start(r.tcp, func(name, text string) string {
				path := filepath.Join(dir, fmt.Sprintf("%s-%s", strings.Split(r.tcp, ":")[1], name))
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					panic(err) // nothing can be measured then
				}
				return path
			})
		}
		list = append(list, &r)
	}
	const both = "udp too"
	type files = func(name, text string) string
	add("ds4relay proxy", relay{ours: true, udp: both}, func(listen string, file files) []*lab.Cmd {
		conf := ""
		for _, proto := range []string{"tcp", "udp"} {
			conf += fmt.Sprintf("config proxy '%s'\n\toption proto '%s'\n\tlist listen '%s'\n\toption target "+
				"'%s'\n\toption max_sessions '100000'\n\toption max_per_client '0'\n\n", proto, proto, listen, target)
		}
		return []*lab.Cmd{l.VPS.Command(ds4relay, "-c", file("ds4relay", conf), "--run", filepath.Join(dir, "run"),
			"proxy")}
	})
	add("Go, io.Copy (splice)", relay{}, func(listen string, _ files) []*lab.Cmd {
		return []*lab.Cmd{l.VPS.Command(self, "splice", listen, target)}
	})
	add("HAProxy, TCP mode", relay{}, func(listen string, file files) []*lab.Cmd {
		return []*lab.Cmd{l.VPS.Command("haproxy", "-f", file("haproxy", `
global
	maxconn `+fmt.Sprint(most)+`
defaults
	mode tcp
	timeout connect 10s
	timeout client 1h
	timeout server 1h
listen web
	bind `+listen+`
	server home `+target+`
`))}
	})
	add("nginx, stream", relay{udp: both}, func(listen string, file files) []*lab.Cmd {
		return []*lab.Cmd{l.VPS.Command("nginx", "-e", "stderr", "-p", dir, "-c", file("nginx", `
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
pid `+filepath.Join(dir, "nginx.pid")+`;
error_log stderr crit;
worker_processes auto;
events { worker_connections `+fmt.Sprint(2*most)+`; }
stream {
	proxy_timeout 1h;
	server { listen `+listen+` backlog=4096; proxy_pass `+target+`; }
	server { listen `+listen+` udp reuseport; proxy_pass `+target+`; proxy_timeout 10s; }
}
`))}
	})
	socat := func(args ...string) func(string, files) []*lab.Cmd {
		return func(listen string, _ files) []*lab.Cmd {
			host, port, _ := strings.Cut(listen, ":")
			var cmds []*lab.Cmd
			for _, proto := range []string{"TCP", "UDP"} {
				backlog := ""
				if proto == "TCP" {
					backlog = ",backlog=4096"
				}
				cmds = append(cmds, l.VPS.Command("socat", append(args, "-T", "3600",
					proto+"4-LISTEN:"+port+",bind="+host+",fork,reuseaddr"+backlog, proto+"6:"+target)...))
			}
			return cmds
		}
	}
	add("socat, fork", relay{udp: both, processes: true}, socat())
	add("socat -b 65536, fork", relay{udp: both, processes: true}, socat("-b", "65536"))
	add("6tunnel", relay{processes: true}, func(listen string, _ files) []*lab.Cmd {
		host, port, _ := strings.Cut(listen, ":")
		return []*lab.Cmd{l.VPS.Command("6tunnel", "-d", "-4", "-l", host, port, lab.ProxyHost.String(),
			fmt.Sprint(targetPort))}
	})
	if frp == "" {
		return list, nil
	}
	for i, variant := range []struct{ name, transport string }{
		{"frp, no TLS, no mux", "transport.tls.enable = false\ntransport.tcpMux = false\n"},
		{"frp, its default (TLS, mux)", ""},
	} {
		add(variant.name, relay{udp: both}, func(listen string, file files) []*lab.Cmd {
			host, port, _ := strings.Cut(listen, ":")
			server := fmt.Sprintf("log.level = \"error\"\nbindAddr = \"::\"\nbindPort = %d\nproxyBindAddr = \"%s\"\n",
				7000+i, host)
			client := fmt.Sprintf("log.level = \"error\"\nserverAddr = \"2001:db8:fdd2::1\"\nserverPort = "+
				"%d\nloginFailExit = false\n", 7000+i) + variant.transport
			if strings.Contains(variant.transport, "tcpMux") {
				server += "transport.tcpMux = false\n"
			}
			for _, proto := range []string{"tcp", "udp"} {
				client += fmt.Sprintf("[[proxies]]\nname = \"%s\"\ntype = \"%s\"\nlocalIP = \"127.0.0.1\"\nlocalPort "+
					"= %d\nremotePort = %s\n", proto, proto, targetPort, port)
			}
			return []*lab.Cmd{l.VPS.Command(filepath.Join(frp, "frps"), "-c", file("frps", server)),
				l.Host.Command(filepath.Join(frp, "frpc"), "-c", file("frpc", client))}
		})
	}
	return list, nil
}

// up starts the programs and waits until a client gets an answer.
func (r *relay) up(l *lab.ProxyNet, client *end) error {
	if r.start == nil {
		return nil
	}
	for _, cmd := range r.start(r) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Stdout, cmd.Stderr = r.said, r.said
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		r.running = append(r.running, cmd)
	}
	var err error
	for range 100 {
		if err = client.do("Trips", TripsArgs{r.tcp, 1}, &TripsReply{}); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("%s does not answer: %w; it says: %s", r.name, err, r.said)
}

// down stops the programs and their children.
func (r *relay) down() {
	for _, cmd := range r.running {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
	}
	r.running = nil
}
