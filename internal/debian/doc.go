// Package debian is what ds4relay has for hosts with Debian's parts: ifupdown, D-Bus, and the programs beside it that
// change the network too. The router's program leaves it out.
package debian
