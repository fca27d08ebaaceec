// Package ping measures what a relay adds to the round trip: it asks one host by two ways in turn.
package ping
