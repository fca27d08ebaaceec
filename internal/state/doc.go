// Package state decides: configuration and facts about this machine make the wanted State, and what is observed in the
// kernel makes the steps from there to it. It does no I/O.
package state
