// Package fake is a kernel in memory, for tests: it applies the steps of package state, refuses those that a kernel
// would refuse, and reports its state like package kernel. A test in the lab compares the two (cmd/ds4relay,
// TestFakeKernel).
//
// It does not handle packets. It knows what disappears when a link is removed or set down, that a route needs a device
// that is up and an IPv6 address an MTU of 1280, what an nft transaction is, and which parts of a table refer to each
// other.
package fake
