// Package proxy hands bytes and datagrams between clients and targets in user space: what socat does, with splice(2)
// and an event loop for each CPU instead of a process for each connection.
//
// A loop owns its sessions: nothing of a session is touched by another thread, so that nothing is locked. What the
// loops share (counters, addresses of targets, limits) is in Service.
package proxy
