package reconcile

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
)

// Lockout refuses relays that would forward the port of an ssh session to the home. connection is the value of
// SSH_CONNECTION (ssh(1)): client address, client port, server address, server port.
func Lockout(relays []*config.Relay, connection string) error {
	words := strings.Fields(connection)
	if len(words) != 4 {
		return nil
	}
	client, clientErr := netip.ParseAddr(words[0])
	server, err := netip.ParseAddr(words[2])
	port, portErr := strconv.ParseUint(words[3], 10, 16)
	if clientErr != nil || err != nil || portErr != nil {
		return nil
	}
	var vps []*config.Relay
	for _, r := range relays {
		if r.Role == config.VPS {
			vps = append(vps, r)
		}
	}
	r, f := config.Takes(vps, server.Unmap(), client.Unmap(), config.TCP, uint16(port))
	if f == nil {
		return nil
	}
	return message.New("relay %q: forward %q would hand over port %d of %s, which this ssh session uses: the VPS "+
		"could not be reached by it any more; keep the port with: list keep 'tcp:%d' (in the relay section), or go "+
		"on with --force", r.Name, f.Section, port, r.IPAddr, port)
}
