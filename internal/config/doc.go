// Package config turns a UCI file into valid relays, forwards and proxies, or into a list of all its mistakes.
package config
