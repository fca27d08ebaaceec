// Package uci reads UCI files like libuci, using go-uci: it parses libuci's grammar, rewrites the file in the subset
// that go-uci reads, and keeps the line of each section and value.
package uci
