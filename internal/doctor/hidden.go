package doctor

import (
	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
)

// isHidden reports whether a packet that goes into a VPS's tunnel is the test packet with another source.
func (p *patient) isHidden(w *walk, s Sighting) bool {
	return p.Role == config.VPS && s.Out && s.Outer == nil && s.Device == p.Device &&
		s.Dst == w.forward.DestIP && s.Src != w.client && !s.IsError()
}

// hidden is what is wrong if another program translates the client's address.
func (p *patient) hidden(w *walk) Finding {
	evidence := message.New("the client's address is hidden: its packet goes into %s with the source %s%s", p.Device,
		w.hidden.Src, by(translator(w.seen.Verdicts)))
	return NewFinding(Failed, evidence, message.New("remove the rule that translates it (SNAT or masquerade), or "+
		"limit it to the device that it is for; `ds4relay check` names it"))
}
