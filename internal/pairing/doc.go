// Package pairing is the home's half of being paired with a VPS: it runs the ssh client that is there (dropbear's or
// OpenSSH's), which gives this home's keys to the VPS once, and tells it later which forwards there are.
package pairing
