// Package setup decides what `ds4relay setup` writes on a VPS, and what an invitation to it says, from what is known of
// the machine.
package setup
