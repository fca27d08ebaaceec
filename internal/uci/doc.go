// Package uci reads UCI files like libuci, using go-uci: it parses libuci's grammar, rewrites the file in the subset
// that go-uci reads, and keeps the line of each section and value. It writes by editing the owner's text, which stays
// as it is wherever nothing was to be changed: go-uci's own writer drops comments.
package uci
