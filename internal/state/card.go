package state

import "net/netip"

// A Card is the address of a VPS's network card that stands for a relay's public address, if a cloud translates it. It
// is not valid if it was not found: Err may say why, and it is None if the public address reaches this machine itself.
type Card struct {
	Addr netip.Addr
	None bool
	Err  error
}
