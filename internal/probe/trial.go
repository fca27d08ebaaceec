package probe

import (
	"time"

	"github.com/ds4relay/ds4relay/internal/doctor"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/packet"
	"github.com/ds4relay/ds4relay/internal/packetio"
)

// Try implements doctor.Prober.
func (m *Prober) Try(t doctor.Trial) (seen doctor.Seen) {
	seen.Counters = map[string]uint64{}
	tap, err := packetio.Open()
	if err != nil {
		seen.Err = err
		return seen
	}
	defer tap.Close()
	var before map[string]uint64
	if t.Follow.IsValid() {
		if f := follow(t.Follow); f != nil {
			defer func() { seen.Verdicts = f.end() }()
		}
		before = counters()
	}
	if t.Into != "" {
		err = packetio.Send(t.Into, t.Packet)
	} else {
		err = packetio.Inject(t.By, t.Packet)
	}
	if err != nil {
		seen.Err = err
		return seen
	}
	for deadline := time.Now().Add(t.Wait); ; {
		frame, ok, err := tap.Next(deadline)
		if err != nil || !ok {
			if err != nil {
				seen.Err = message.New("look for packets: %v", err)
			}
			break
		}
		p, ok := packet.Decode(frame.Data)
		s := doctor.Sighting{Device: frame.Device, Out: frame.Out, Packet: p}
		if !ok || !t.Match(s) {
			continue
		}
		seen.Sightings = append(seen.Sightings, s)
		if t.Done(s) {
			break
		}
		if t.More != nil && t.More(s) {
			deadline = time.Now().Add(t.Longer)
		}
	}
	if before != nil {
		for name, n := range counters() {
			if n > before[name] {
				seen.Counters[name] = n - before[name]
			}
		}
	}
	return seen
}
