// Package doctor finds out why a relay does not work, and says what to do. It decides what to try and what the evidence
// means; a Prober tries it.
package doctor
