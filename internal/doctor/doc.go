// Package doctor finds out why a relay does not work, and says what to do. It decides what to test and what the
// evidence means; a Prober does the tests.
package doctor
