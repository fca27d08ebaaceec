// Package config turns a UCI file into relays, forwards and proxies that cannot be wrong, or into the list of all mistakes in it.
package config
