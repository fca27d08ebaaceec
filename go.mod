module github.com/ds4relay/ds4relay

go 1.26.0

require (
	github.com/digineo/go-uci v0.0.0-20210918132103-37c7b10c14fa
	github.com/vishvananda/netlink v1.3.1
	github.com/vishvananda/netns v0.0.5
	golang.org/x/sys v0.49.0
)

require golang.org/x/tools v0.52.0

require github.com/godbus/dbus/v5 v5.2.4

require github.com/pires/go-proxyproto v0.15.0

require github.com/gopacket/gopacket v1.7.7

require filippo.io/edwards25519 v1.2.0

require rsc.io/qr v0.2.0

require golang.org/x/crypto v0.45.0 // indirect
