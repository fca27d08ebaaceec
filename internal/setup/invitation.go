//go:build !openwrt

package setup

import (
	"net/netip"
	"slices"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/invite"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// Keys are what an invitation has of keys.
type Keys struct {
	Host    []byte        // ssh's host key
	OneTime [64]byte      // seed and public half
	Public  transport.Key // of WireGuard, with that transport
}

// Invitation invites the home of a relay.
func Invitation(m Machine, r *config.Relay, keys Keys, now time.Time) (invite.Invitation, error) {
	ports := m.SSHPorts()
	if len(ports) == 0 {
		return invite.Invitation{}, message.New("no ssh server listens on this machine, which the home calls to enrol and " +
			"to send its forwards; install one: apt install openssh-server")
	}
	i := invite.Invitation{Relay: r.Name, SSHPort: ports[0], HostKey: keys.Host, Key: keys.OneTime,
		Transport: string(r.Transport), IPAddr: r.IPAddr, Expires: now.Add(invite.Good).Truncate(time.Second)}
	hosts := []netip.Addr{r.Local, m.ipv6(), r.IPAddr} // the endpoint is where the tunnel is
	if r.Transport == config.WireGuard {
		hosts[0] = netip.Addr{}
		i.PublicKey, i.Port = keys.Public.String(), r.WireGuard.Port
	}
	for _, host := range hosts {
		if host.IsValid() && !slices.Contains(i.Hosts, host.String()) {
			i.Hosts = append(i.Hosts, host.String())
		}
	}
	return i, nil
}
