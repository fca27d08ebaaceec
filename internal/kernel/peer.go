package kernel

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/resolve"
	"github.com/ds4relay/ds4relay/internal/state"
)

// PeerRecord names the record of the addresses that DNS names of other ends had last. It exists only where names are used.
const PeerRecord = "peers"

// lookedUp is what the look-up of a name gave, once in a process.
type lookedUp struct {
	addrs []netip.Addr
	err   error
}

// peer finds the other end of a relay by its DNS name. While the name has the address that it had, that stays, whatever
// other ones it has; while it cannot be looked up, the last address counts, and note says so.
func (k *Kernel) peer(r *config.Relay) (addr netip.Addr, note string, err error) {
	known, err := k.lastPeer(r)
	if err != nil {
		return addr, "", err
	}
	found, ok := k.looked[r.PeerName]
	if !ok {
		found.addrs, found.err = lookupPeer(r.PeerName)
		if k.looked == nil {
			k.looked = map[string]lookedUp{}
		}
		k.looked[r.PeerName] = found
	}
	switch {
	case found.err != nil && known.IsValid():
		return known, fmt.Sprintf("relay %q: %v; the tunnel keeps the last address, %s", r.Name, found.err, known), nil
	case found.err != nil:
		return addr, "", found.err
	case slices.Contains(found.addrs, known):
		addr = known
	default:
		addr = found.addrs[0]
	}
	return addr, "", k.notePeer(r.PeerName, addr)
}

func lookupPeer(name string) ([]netip.Addr, error) {
	addrs, err := resolve.Lookup(context.Background(), name, 6)
	if err != nil {
		return nil, fmt.Errorf("look up peeraddr %s: %w", name, err)
	}
	addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool { return !a.IsGlobalUnicast() || a.Is4In6() })
	if len(addrs) == 0 {
		return nil, fmt.Errorf("peeraddr %s has no global IPv6 address", name)
	}
	return addrs, nil
}

// lastPeer is the address that a name had last: that of the record, else that of the tunnel; not valid where there is none.
func (k *Kernel) lastPeer(r *config.Relay) (netip.Addr, error) {
	peers := map[string]netip.Addr{}
	if err := k.read(PeerRecord, &peers); err != nil {
		return netip.Addr{}, err
	}
	if addr, ok := peers[r.PeerName]; ok {
		return addr, nil
	}
	o := state.Observed{ForeignLinks: map[string]string{}}
	if _, err := k.observeLinks(&o); err != nil {
		return netip.Addr{}, err
	}
	for _, link := range o.Links {
		if link.Relay == r.Name {
			return link.Remote, nil
		}
	}
	return netip.Addr{}, nil
}

// notePeer keeps an address for when the name cannot be looked up. Who is not root cannot change anything by it.
func (k *Kernel) notePeer(name string, addr netip.Addr) error {
	peers := map[string]netip.Addr{}
	if err := k.read(PeerRecord, &peers); err != nil || peers[name] == addr || os.Geteuid() != 0 {
		return err
	}
	peers[name] = addr
	return k.write(PeerRecord, peers)
}
