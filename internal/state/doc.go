// Package state decides. From the configuration and facts about this machine it computes the wanted State, and from
// what is observed in the kernel the steps to get there. It does no I/O.
//
// The rulesets are files in nft/ that read as nft(8) does; words in capitals (GROUP, DEVICE, MARK) are filled in.
package state
