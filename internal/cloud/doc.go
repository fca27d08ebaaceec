// Package cloud asks a cloud's metadata service for the public address that the cloud translates to this machine's.
package cloud
