module github.com/ds4relay/ds4relay

go 1.24.0

require (
	filippo.io/edwards25519 v1.2.0
	github.com/digineo/go-uci v0.0.0-20210918132103-37c7b10c14fa
	github.com/godbus/dbus/v5 v5.2.4
	github.com/gopacket/gopacket v1.6.0
	github.com/pires/go-proxyproto v0.11.0
	github.com/vishvananda/netlink v1.3.1
	github.com/vishvananda/netns v0.0.5
	golang.org/x/crypto v0.45.0
	golang.org/x/sys v0.41.0
	golang.org/x/tools v0.42.0
	rsc.io/qr v0.2.0
)
