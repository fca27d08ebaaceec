package reconcile

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
)

// Lockout refuses relays that would hand the port of an ssh session to the home. connection is the value of
// SSH_CONNECTION (ssh(1)): client address, client port, server address, server port.
func Lockout(relays []*config.Relay, connection string) error {
	words := strings.Fields(connection)
	if len(words) != 4 {
		return nil
	}
	server, err := netip.ParseAddr(words[2])
	port, portErr := strconv.ParseUint(words[3], 10, 16)
	if err != nil || portErr != nil {
		return nil
	}
	ssh := func(s config.PortSet) bool { return s.Contains(config.TCP, uint16(port)) }
	for _, r := range relays {
		if r.Role != config.VPS || r.IPAddr != server.Unmap() || slices.ContainsFunc(r.Keep, ssh) {
			continue
		}
		for _, f := range r.Forwards {
			if f.All || slices.ContainsFunc(f.Ports, ssh) {
				return message.New("relay %q: forward %q would hand over port %d of %s, which this ssh session uses: "+
					"the VPS could not be reached by it any more; "+
					"keep the port with: list keep 'tcp:%d' (in the relay section), or go on with --force", r.Name, f.Section, port, r.IPAddr, port)
			}
		}
	}
	return nil
}
