//go:build !openwrt

package probe

import (
	"errors"
	"net/netip"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/doctor"
	"github.com/ds4relay/ds4relay/internal/packetio"
)

// Announcements is how often a VPS says that the public address has come to it: a packet may be lost, and WireGuard may
// have to agree on keys first.
const Announcements = 3

const announceTime = 200 * time.Millisecond // between two

// Announce tells the homes of a VPS's relays that it has their public address now, by a packet into the tunnel for each
// host, some times over. A router with several relays of the address sends the hosts' answers there from then on.
func Announce(relays []*config.Relay, times int) error {
	var errs []error
	for i := range times {
		if i > 0 {
			time.Sleep(announceTime)
		}
		errs = nil
		for _, r := range relays {
			done := map[netip.Addr]bool{}
			for _, f := range r.Forwards {
				if done[f.DestIP] {
					continue
				}
				done[f.DestIP] = true
				const first, count = 20000, 40000 // the doctor's ports
				id := first + uint16(time.Now().UnixMilli()%count)
				if err := packetio.Send(r.Device, doctor.Announcement(r, f, id)); err != nil {
					errs = append(errs, err)
					break
				}
			}
		}
	}
	return errors.Join(errs...)
}
