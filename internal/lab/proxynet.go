//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net/netip"
)

// Addresses of a ProxyNet.
var (
	ProxyVPS  = netip.MustParseAddr("198.51.100.144")
	ProxyHost = netip.MustParseAddr("2001:db8:fdd2::210")
)

// ProxyNet is the smallest network for a proxy: a client, a VPS and a host in a row. The only kernel module that it
// needs is veth.
//
//	client ── vps (198.51.100.144) ── host (2001:db8:fdd2::210)
//
// The VPS routes IPv6, so the client also reaches the host without a proxy. Buffers and congestion control (cubic) are
// a kernel's defaults, whatever this machine uses.
type ProxyNet struct {
	Client, VPS, Host *Host
}

// NewProxyNet creates a ProxyNet in namespaces whose names start with prefix.
func NewProxyNet(prefix string) (*ProxyNet, error) {
	l := &ProxyNet{}
	if err := l.build(prefix); err != nil {
		return nil, errors.Join(fmt.Errorf("topology: %w", err), l.Close())
	}
	return l, nil
}

func (l *ProxyNet) build(prefix string) (err error) {
	for _, entry := range []struct {
		name string
		host **Host
	}{{"client", &l.Client}, {"vps", &l.VPS}, {"host", &l.Host}} {
		if *entry.host, err = newHost(prefix + entry.name); err != nil {
			return err
		}
		for key, value := range map[string]string{
			"net.ipv4.tcp_rmem":  "4096 131072 6291456",
			"net.ipv4.tcp_wmem":  "4096 16384 4194304",
			"net.core.somaxconn": "4096",
			// One client uses as many ports as many clients would. Programs listen on ports below these.
			"net.ipv4.ip_local_port_range": "10000 65535",
		} {
			if err := (*entry.host).Sysctl(key, value); err != nil {
				return err
			}
		}
	}
	if err := l.VPS.Sysctl("net.ipv6.conf.all.forwarding", "1"); err != nil {
		return err
	}
	for i, cable := range []struct{ a, b port }{
		{port{l.VPS, "eth0", []string{ProxyVPS.String() + "/24", "2001:db8:6ef9::1/64"}},
			port{l.Client, "eth0", []string{"198.51.100.10/24", "2001:db8:6ef9::10/64"}}},
		{port{l.VPS, "home", []string{"2001:db8:fdd2::1/64"}},
			port{l.Host, "eth0", []string{ProxyHost.String() + "/64"}}},
	} {
		if err := connect(byte(i+1), 1500, cable.a, cable.b); err != nil {
			return err
		}
	}
	err = errors.Join(l.Client.route("::/0", "2001:db8:6ef9::1", "eth0"),
		l.Host.route("::/0", "2001:db8:fdd2::1", "eth0"))
	if err != nil {
		return err
	}
	return l.Congestion("cubic")
}

// Congestion sets the congestion control algorithm of new connections on all three hosts. It fails if the kernel does
// not have it. (It is an attribute of the routes, because a namespace's sysctl allows only what the machine's
// tcp_allowed_congestion_control lists.)
func (l *ProxyNet) Congestion(algorithm string) error {
	for _, h := range []*Host{l.Client, l.VPS, l.Host} {
		script := "set -e; for f in -4 -6; do ip $f route show | while read -r r; do ip $f route change $r congctl " +
			algorithm + "; done; done"
		if _, err := h.RunInput(script, "sh"); err != nil {
			return err
		}
	}
	return nil
}

// Close kills the programs that were started on the hosts and deletes the namespaces.
func (l *ProxyNet) Close() error {
	var errs []error
	for _, h := range []*Host{l.Client, l.VPS, l.Host} {
		if h != nil {
			errs = append(errs, h.close())
		}
	}
	return errors.Join(errs...)
}
