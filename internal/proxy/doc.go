// Package proxy forwards TCP connections and UDP datagrams in user space, like socat, but with splice(2) and one event
// loop for each CPU instead of one process for each connection.
//
// Each session belongs to one loop. No other thread touches it, so it needs no lock. What the loops share (counters,
// target addresses, limits) is in Service.
package proxy
