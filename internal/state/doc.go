// Package state decides: configuration and facts about this machine make the wanted State, and what is observed in the
// kernel makes the steps from there to it. It does no I/O.
//
// The rulesets are files in nft/ that read as nft(8) does; words in capitals (GROUP, DEVICE, MARK) are filled in.
package state
