package transport

// Types of WireGuard's messages: the first byte of a UDP payload, which is not encrypted (WireGuard's protocol,
// "Protocol & Cryptography").
const (
	Initiation = 1 // of a handshake
	Response   = 2
	Cookie     = 3 // from an end under load
	Data       = 4

	MessageTypes = 5 // 0 is none
)

// Sizes of messages in bytes.
const (
	initiationSize = 148
	mac1Offset     = 116
	mac1Size       = 16
)

// SessionTime, in seconds, is how long after a handshake its keys are good (REJECT_AFTER_TIME of
// drivers/net/wireguard/messages.h).
const SessionTime = 180

// Padded returns the size in bytes of the UDP payload that carries an inner packet. Packets are padded to a multiple of
// 16 bytes, and not beyond the MTU of the device.
func Padded(size, mtu int) int { return wireGuardAround + max(min((size+15)&^15, mtu), size) }
