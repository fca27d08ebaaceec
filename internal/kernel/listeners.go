//go:build !openwrt

package kernel

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"
	"time"

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
	facts.Listeners, err = listeners(func() { time.Sleep(settle) })
	return facts, err
}

// listeners returns the sockets that wait for clients from elsewhere, before and after a wait.
func listeners(wait func()) (list []pushed.Listener, err error) {
	waiting, err := settled(wait)
	for _, s := range waiting {
		if port := s.local.Port(); !s.local.Addr().IsLoopback() {
			list = append(list, pushed.Listener{Addr: s.local.Addr(), Set: config.PortSet{Proto: s.proto, First: port,
				Last: port}})
		}
	}
	return list, err
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
