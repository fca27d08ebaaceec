// Package debian integrates ds4relay with Debian: ifupdown, D-Bus, and other programs that change the network. The
// router's program does not contain it.
package debian
