// Package packet reads and writes the headers of IP packets: those of a tunnel's inside and outside. It does no I/O.
package packet
