//go:build !openwrt

package kernel

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/pushed"
)

// PushFacts are what pushes of homes for these relays are judged by on this machine.
func PushFacts(relays []*config.Relay) (facts pushed.Facts, err error) {
	if facts.Networks, _, err = inside(unix.RT_TABLE_UNSPEC); err != nil {
		return facts, message.New("list addresses and routes: %v", err)
	}
	facts.Cards = map[netip.Addr]netip.Addr{}
	for _, r := range OnCards(relays) {
		if r.Role == config.VPS {
			facts.Cards[r.IPAddr] = r.Card()
		}
	}
	for _, table := range []struct {
		name, state string // TCP_LISTEN; TCP_CLOSE for UDP without another end
		proto       uint8
	}{{"tcp", "0A", config.TCP}, {"tcp6", "0A", config.TCP}, {"udp", "07", config.UDP}, {"udp6", "07", config.UDP}} {
		data, err := os.ReadFile("/proc/thread-self/net/" + table.name)
		if err != nil && !os.IsNotExist(err) { // a kernel without IPv6
			return facts, err
		}
		facts.Listeners = append(facts.Listeners, listeners(string(data), table.state, table.proto)...)
	}
	return facts, nil
}

// listeners reads a table of sockets (proc_net_tcp(5)): those that wait for clients from elsewhere.
func listeners(table, state string, proto uint8) (list []pushed.Listener) {
	for line := range strings.Lines(table) {
		words := strings.Fields(line) // number, local, remote, state, …
		if len(words) < 4 || words[3] != state {
			continue
		}
		at, ok := socketAddr(words[1])
		if ok && !at.Addr().IsLoopback() {
			list = append(list, pushed.Listener{Addr: at.Addr(), Set: config.PortSet{Proto: proto, First: at.Port(),
				Last: at.Port()}})
		}
	}
	return list
}

// socketAddr reads an address as the kernel prints it: words of 32 bits in the machine's order, in hexadecimal.
func socketAddr(text string) (netip.AddrPort, bool) {
	address, port, _ := strings.Cut(text, ":")
	data, err := hex.DecodeString(address)
	number, portErr := strconv.ParseUint(port, 16, 16)
	if err != nil || portErr != nil || len(data)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(data); i += 4 {
		binary.NativeEndian.PutUint32(data[i:], binary.BigEndian.Uint32(data[i:]))
	}
	addr, ok := netip.AddrFromSlice(data)
	return netip.AddrPortFrom(addr.Unmap(), uint16(number)), ok
}
