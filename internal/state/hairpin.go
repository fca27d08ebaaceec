package state

import (
	_ "embed" // the rulesets

	"github.com/ds4relay/ds4relay/internal/config"
)

// hairpin is for clients in a host's network that use the public address: their packets stay at home. If client and
// server are in the same network, the answers must come back through the router too.
//
//go:embed nft/hairpin.nft
var hairpin string

var hairpinSetTypes = []Set{
	{Name: "hairpin_device", Key: []Type{IfName}},
	{Name: "hairpin_pair", Key: []Type{IfName, IfName}},
	{Name: "hairpin_public", Key: []Type{IPv4}},
	{Name: "hairpin_exception", Key: []Type{IPv4, Proto, Service}, Value: []Type{Verdict}},
	{Name: "hairpin_protocol_exception", Key: []Type{IPv4, Proto}, Value: []Type{Verdict}},
	{Name: "hairpin_port", Key: []Type{IPv4, Proto, Service}, Value: []Type{IPv4, Service}},
	{Name: "hairpin_range", Key: []Type{IPv4, Proto, Service}, Value: []Type{IPv4}},
	{Name: "hairpin_protocol", Key: []Type{IPv4, Proto}, Value: []Type{IPv4}},
	{Name: "hairpin_address", Key: []Type{IPv4}, Value: []Type{IPv4}},
}

// addHairpin adds rules for clients in the hosts' networks. A forward of all counts only if `keep` lists the VPS's own
// ports: otherwise the router cannot know them, and would cut its users off from the VPS.
func (t *routerTables) addHairpin(r *config.Relay, facts Facts) {
	used := false
	for _, f := range r.Forwards {
		lan := facts.LAN[f.DestIP]
		if lan == "" || lan == r.Device || f.All && len(r.Keep) == 0 {
			continue
		}
		used = true
		t.insert("hairpin_device", Key{Device: lan})
		t.insert("hairpin_pair", Key{Device: lan, Other: lan})
		for _, m := range f.Mappings() {
			if m.All {
				t.put("hairpin_address", Key{Addr: r.IPAddr}, Value{Addr: m.Host})
				continue
			}
			t.destinations(protoKey(r.IPAddr, m.Public.Proto), m, "hairpin_port", "hairpin_range", "hairpin_protocol")
		}
	}
	if !used {
		return
	}
	t.insert("hairpin_public", Key{Addr: r.IPAddr})
	for _, keep := range r.Keep {
		key := protoKey(r.IPAddr, keep.Proto)
		if !keep.HasPorts() {
			t.put("hairpin_protocol_exception", key, Value{Verdict: "accept"})
			continue
		}
		for port := int(keep.First); port <= int(keep.Last); port++ {
			t.put("hairpin_exception", key.at(uint16(port)), Value{Verdict: "accept"})
		}
	}
}
