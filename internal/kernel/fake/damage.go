package fake

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/ds4relay/ds4relay/internal/state"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// Damage acts like another program: it removes or changes one of our objects and says which. There must be at least
// one.
func (k *Kernel) Damage(random *rand.Rand) string {
	link := &k.links[random.IntN(len(k.links))]
	name := slices.Sorted(maps.Keys(k.ruleset))[random.IntN(len(k.ruleset))]
	t := k.ruleset[name]
	part := t.order[random.IntN(len(t.order))]
	switch kind := random.IntN(12); {
	case kind == 0:
		gone := link.Name
		k.delLink(gone)
		return "link " + gone + " deleted"
	case kind == 1:
		k.setUp(link, false)
		return "link " + link.Name + " down"
	case kind == 2:
		k.setMTU(link, 1250+random.IntN(100))
		return fmt.Sprintf("link %s with MTU %d", link.Name, link.MTU)
	case kind == 3:
		switch tunnel := link.Tunnel.(type) {
		case transport.IPIP6:
			tunnel.TTL, tunnel.EncapLimit = 9, 3
			link.Tunnel = tunnel
		case transport.WireGuard:
			tunnel.Keepalive, tunnel.AllowedIPs, tunnel.Peer = 9, "10.0.0.0/8", transport.Key{byte(random.IntN(2))}
			link.Tunnel = tunnel
		}
		link.Group = random.IntN(2) * state.Group
		return fmt.Sprintf("link %s changed: %+v", link.Name, *link)
	case kind == 4:
		k.routes = nil
		return "routes flushed"
	case kind == 5:
		k.rules = k.rules[:random.IntN(len(k.rules)+1)]
		return "rules deleted"
	case kind == 6:
		k.addrs = nil
		return "addresses flushed"
	case kind == 7:
		k.ruleset = ruleset{}
		return "ruleset flushed"
	case kind == 8:
		delete(k.ruleset, name)
		return "table " + name + " deleted"
	case kind == 9:
		k.sysctls = map[string]string{}
		return "sysctls set to 0"
	case t.sets[part] != nil:
		clear(t.sets[part].elements)
		return name + " " + part + " flushed"
	case t.chains[part] != nil:
		t.chains[part].rules = append([]string{"counter"}, t.chains[part].rules...)
		return name + " " + part + " with a rule more"
	default:
		t.flowtables[part].devices = nil
		return name + " " + part + " without devices"
	}
}
