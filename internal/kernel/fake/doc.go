// Package fake is a kernel in memory, for tests: it takes the steps of package state, refuses those that a kernel
// would refuse, and shows what is there as package kernel does. A test in the lab compares the two (cmd/ds4relay,
// TestFakeKernel).
//
// What it leaves out: packets. It knows what a link takes with it when it goes or is set down, that a route needs a
// device that is up and an IPv6 address an MTU of 1280, what an nft transaction is, and which parts of a table hold
// each other.
package fake
