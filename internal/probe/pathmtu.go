package probe

import (
	"cmp"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/doctor"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/packet"
	"github.com/ds4relay/ds4relay/internal/packetio"
	"github.com/ds4relay/ds4relay/internal/reconcile"
)

// soundingTime covers a round trip around the world and a busy machine. The other end's kernel sends at most one error
// a second for long, so a packet after this time is answered.
const soundingTime = time.Second

// measureTime limits how long paths are measured at a time; the others follow the next time.
const measureTime = 30 * time.Second

// sounder sends packets of some relays' tunnels, and waits for the answers.
type sounder struct {
	tap  *packetio.Tap
	sent uint8
	err  error // the first one of the tap
}

// sounding is a packet and its result.
type sounding struct {
	*doctor.Sounding
	passed bool
	told   int
}

// MeasurePaths finds how large the packets are that pass to the other ends, and sets the paths' Passes; it stays 0
// where the other end does not answer. If the tunnels' packets pass, that takes one packet for each relay. Others take
// some seconds.
func MeasurePaths(paths []*reconcile.Path, now time.Time) error {
	tap, err := packetio.Open()
	if err != nil {
		return err
	}
	defer tap.Close()
	if err := tap.OnlyAnswers(); err != nil {
		return err
	}
	s := &sounder{tap: tap}
	var lost []*reconcile.Path
	for i, passed := range s.all(paths, func(p *reconcile.Path) int { return p.MTU }) {
		p := paths[i]
		switch {
		case !passed:
			lost = append(lost, p)
		case p.MTU < p.Route && p.Note.Due(now):
			s.measure(p, true, now)
		default:
			p.Passes = p.MTU
		}
	}
	begin := time.Now()
	for i, passed := range s.all(lost, func(*reconcile.Path) int { return doctor.SmallSounding }) {
		if passed && time.Since(begin) < measureTime {
			s.measure(lost[i], false, now)
		}
	}
	return s.err
}

// all sends one packet for each path at once, and reports which of them were answered.
func (s *sounder) all(paths []*reconcile.Path, size func(*reconcile.Path) int) []bool {
	soundings := make([]*sounding, len(paths))
	for i, p := range paths {
		soundings[i] = s.sounding(p, size(p))
	}
	s.send(soundings...)
	passed := make([]bool, len(paths))
	for i, one := range soundings {
		passed[i] = one.passed
	}
	return passed
}

// measure looks for the largest packet that passes. A larger packet than WireGuard's device may have goes into it only
// while the device has the MTU of the route.
func (s *sounder) measure(p *reconcile.Path, higher bool, now time.Time) {
	if higher && p.Config.Transport == config.WireGuard {
		if err := kernel.SetMTU(p.Name, p.Route); err != nil {
			s.err = err
			return
		}
		defer func() { s.err = cmp.Or(s.err, kernel.SetMTU(p.Name, p.MTU)) }()
	}
	p.Passes = doctor.PathMTU(p.MTU, p.Route, higher, func(size int) (passed bool, told int) {
		one := s.sounding(p, size)
		s.send(one)
		return one.passed, one.told
	})
	p.Note.Tried = now.Unix()
}

func (s *sounder) sounding(p *reconcile.Path, size int) *sounding {
	s.sent++
	return &sounding{Sounding: doctor.NewSounding(p.Config, p.Tunnel, packetio.AnswerPort+uint16(s.sent), size)}
}

// send sends packets, and waits until all are answered or considered lost. One that cannot be sent is lost.
func (s *sounder) send(soundings ...*sounding) {
	for _, one := range soundings {
		if one.Into != "" {
			_ = packetio.Send(one.Into, one.Packet)
		} else {
			_ = packetio.SendIPv6(one.Packet)
		}
	}
	left := len(soundings)
	for deadline := time.Now().Add(soundingTime); left > 0 && s.err == nil; {
		frame, ok, err := s.tap.Next(deadline)
		s.err = err
		if err != nil || !ok {
			return
		}
		p, known := packet.Decode(frame.Data)
		if !known || frame.Out {
			continue
		}
		for _, one := range soundings {
			if told := one.TooBig(p); told > 0 {
				one.told = told
			}
			if !one.passed && one.Answer(frame.Device, p) {
				one.passed = true
				left--
			}
		}
	}
}
