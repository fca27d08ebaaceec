// Package uci reads UCI files as libuci does, by way of go-uci: it lexes libuci's grammar, rewrites the file into the
// part of it that go-uci reads, and keeps the line of every section and value.
package uci
