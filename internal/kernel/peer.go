package kernel

import (
	"context"
	"maps"
	"net/netip"
	"slices"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/resolve"
	"github.com/ds4relay/ds4relay/internal/state"
)

// PeerRecord names the record of the last addresses of the other ends' DNS names. It exists only if names are used.
const PeerRecord = "peers"

// lookedUp is the result of a DNS lookup; each name is looked up once per process.
type lookedUp struct {
	addrs  []netip.Addr
	err    error
	lacks4 bool // WireGuard: there is no answer with addresses of that version
	lacks6 bool
}

// usable returns the addresses that may be the other end's: none of this machine.
func (l *lookedUp) usable(own map[netip.Addr]bool) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(l.addrs), func(a netip.Addr) bool { return own[a] || a.Is4() && local(a) })
}

// local reports whether an address is this machine's own.
func local(addr netip.Addr) bool {
	route, err := routeTo(addr, netip.Addr{})
	return err == nil && route.local
}

// peer finds the other end of a relay by its DNS name. While the name has the address that it had, that stays, whatever
// other ones it has (but see NextPeer); while it cannot be looked up, the last address counts, and note says so.
// Endpoints of this end, those of the relays too, are never the other one. Nothing is written.
func (k *Kernel) peer(r *config.Relay, relays []*config.Relay) (addr netip.Addr, note *message.Text, err error) {
	own, err := k.ownAddrs()
	if err != nil {
		return addr, note, err
	}
	for _, other := range relays {
		own[other.Local] = true
	}
	known, err := k.lastPeer(r, own)
	if err != nil {
		return addr, note, err
	}
	if k.KeepPeers && known.IsValid() {
		return known, note, nil
	}
	found := k.lookUp(r)
	addrs := found.usable(own)
	if found.err == nil && len(addrs) == 0 {
		found.err = message.New("peeraddr %s has the address %s, which is this machine's own; "+
			"the name has to be the other end's", r.PeerName, found.addrs[0])
	}
	switch {
	case found.err != nil && known.IsValid():
		return known, message.New("relay %q: %v; the tunnel keeps the last address, %s", r.Name, found.err, known), nil
	case found.err != nil:
		return addr, note, found.err
	case slices.Contains(addrs, known), known.Is4() && found.lacks4, known.Is6() && found.lacks6:
		return known, note, nil
	}
	return addrs[0], note, nil
}

// NextPeer records another address of the other end's DNS name, because nothing comes from the one in use. It returns
// that one if there is no other.
func (k *Kernel) NextPeer(r *config.Relay, used netip.Addr) (netip.Addr, error) {
	own, err := k.ownAddrs()
	if err != nil {
		return used, err
	}
	found := k.lookUp(r)
	addrs := found.usable(own)
	if len(addrs) == 0 {
		return used, nil
	}
	next := addrs[(slices.Index(addrs, used)+1)%len(addrs)]
	return next, k.NotePeers([]*config.Relay{r}, map[string]netip.Addr{r.Name: next})
}

// lookUp looks up the name of a relay's other end once.
func (k *Kernel) lookUp(r *config.Relay) lookedUp {
	found, ok := k.looked[peerKey(r)]
	if !ok {
		found = lookupPeer(r)
		if k.looked == nil {
			k.looked = map[string]lookedUp{}
		}
		k.looked[peerKey(r)] = found
	}
	return found
}

// peerKey is the name of the record of a relay's DNS name: WireGuard may use other addresses of it.
func peerKey(r *config.Relay) string {
	if r.Transport == config.WireGuard {
		return wgFamily + ":" + r.PeerName
	}
	return r.PeerName
}

// lookupPeer returns the addresses that a tunnel may use.
func lookupPeer(r *config.Relay) lookedUp {
	name := r.PeerName
	if r.Transport == config.WireGuard {
		return lookupOuter(name)
	}
	addrs, err := resolve.Lookup(context.Background(), name, 6)
	if err != nil {
		return lookedUp{err: message.New("look up peeraddr %s: %v", name, err)}
	}
	addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool { return !canBePeer(a) })
	if len(addrs) == 0 {
		return lookedUp{err: message.New("peeraddr %s has no global IPv6 address", name)}
	}
	return lookedUp{addrs: addrs}
}

// lookupOuter looks a name up for WireGuard: the addresses that there is a route to, or else all, those of IPv6 first.
func lookupOuter(name string) lookedUp {
	var found lookedUp
	var others []netip.Addr
	for _, version := range []int{6, 4} {
		addrs, err := resolve.Lookup(context.Background(), name, version)
		if err != nil {
			found.err = message.New("look up peeraddr %s: %v", name, err)
			found.lacks6, found.lacks4 = found.lacks6 || version == 6, found.lacks4 || version == 4
		}
		for _, a := range addrs {
			if a = a.Unmap(); !a.IsGlobalUnicast() || a.Zone() != "" {
				continue
			}
			if _, err := routeTo(a, netip.Addr{}); err == nil {
				found.addrs = append(found.addrs, a)
			} else {
				others = append(others, a)
			}
		}
	}
	if len(found.addrs) == 0 {
		found.addrs = others
	}
	switch {
	case len(found.addrs) > 0:
		found.err = nil
	case found.err == nil:
		found.err = message.New("peeraddr %s has no global address", name)
	}
	return found
}

func canBePeer(a netip.Addr) bool {
	return a.IsGlobalUnicast() && a.Is6() && !a.Is4In6() && a.Zone() == ""
}

// ownAddrs returns this machine's IPv6 addresses.
func (k *Kernel) ownAddrs() (map[netip.Addr]bool, error) {
	o := state.Observed{ForeignAddrs: map[netip.Addr]string{}}
	if err := observeAddrs(&o, nil); err != nil {
		return nil, message.New("list addresses: %v", err)
	}
	own := map[netip.Addr]bool{}
	for addr := range o.ForeignAddrs {
		own[addr] = true
	}
	for _, addr := range o.Addrs {
		own[addr.Addr] = true
	}
	return own, nil
}

// peers returns the recorded addresses by name.
func (k *Kernel) peers() map[string]netip.Addr {
	return read(k, PeerRecord, func(all map[string]netip.Addr) bool {
		for _, addr := range all {
			if !addr.IsGlobalUnicast() {
				return false
			}
		}
		return true
	})
}

// lastPeer returns the last address of a name, from the record or else from the tunnel. It is not valid if there is
// none, or if the address has become this machine's own.
func (k *Kernel) lastPeer(r *config.Relay, own map[netip.Addr]bool) (netip.Addr, error) {
	if addr, ok := k.peers()[peerKey(r)]; ok && !own[addr] {
		return addr, nil
	}
	o := state.Observed{ForeignLinks: map[string]string{}}
	if _, err := k.observeLinks(&o); err != nil {
		return netip.Addr{}, err
	}
	for _, link := range o.Links {
		if link.Relay == r.Name {
			return link.Remote(), nil
		}
	}
	return netip.Addr{}, nil
}

// FailedRecord names the record of the relays that the last `up` could not bring up. It exists only if there are any.
const FailedRecord = "failed"

// NoteFailed records relays that could not be brought up and are to be tried again.
func (k *Kernel) NoteFailed(relays []string) error {
	if len(relays) == 0 {
		return k.remove(FailedRecord)
	}
	if slices.Equal(relays, k.FailedRelays()) {
		return nil
	}
	return k.write(FailedRecord, relays)
}

// FailedRelays returns the relays that the last `up` could not bring up.
func (k *Kernel) FailedRelays() []string {
	return read(k, FailedRecord, func(relays []string) bool { return len(relays) > 0 })
}

// NotePeers records the addresses of relays' names that are in use now, for when a lookup fails.
func (k *Kernel) NotePeers(relays []*config.Relay, used map[string]netip.Addr) error {
	addrs := map[string]netip.Addr{}
	for _, r := range relays {
		if addr, ok := used[r.Name]; ok {
			addrs[peerKey(r)] = addr
		}
	}
	if len(addrs) == 0 {
		return nil
	}
	former := k.peers()
	noted := maps.Clone(former)
	if noted == nil {
		noted = map[string]netip.Addr{}
	}
	maps.Copy(noted, addrs)
	if maps.Equal(noted, former) {
		return nil
	}
	return k.write(PeerRecord, noted)
}
