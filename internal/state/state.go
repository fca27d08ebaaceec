package state

import (
	"net/netip"

	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// Protocol marks our routes and rules (rtnetlink(7) rtm_protocol, FRA_PROTOCOL), Group our links while they have no
// alias yet (IFLA_GROUP), and Metric our IPv6 addresses (IFA_RT_PRIORITY: unlike IFA_PROTO, Debian 12's ip(8) and
// kernels before 5.18 support it, and an address without a prefix route does not need it otherwise).
const (
	Protocol = 46
	Group    = 46
	Metric   = 46
)

// AliasPrefix followed by the relay's name is the alias of our links.
const AliasPrefix = "ds4relay:"

// TableName is the name of our nft tables in every family. Family ip has two more: FlowTableName with the flowtable,
// KillTableName with the kill switch.
const (
	TableName     = "ds4relay"
	FlowTableName = "ds4relay_flows"
	KillTableName = "ds4relay_killswitch"
)

// State is everything that ds4relay has or wants in the kernel.
type State struct {
	Links   []Link
	Addrs   []Addr
	Routes  []Route
	Rules   []Rule
	Sysctls []Sysctl
	Tables  []Table

	Allowances []Allowance
}

// Link is a tunnel of any kind.
type Link struct {
	Name   string
	Relay  string // from the alias; "" while it has none
	Tunnel transport.Tunnel
	MTU    int // bytes
	Group  int // device group: our nft rules recognise tunnels by it
	Up     bool
}

// Local returns this end's endpoint.
func (l Link) Local() netip.Addr {
	local, _ := l.Tunnel.Endpoints()
	return local
}

// Remote returns the other end's endpoint.
func (l Link) Remote() netip.Addr {
	_, remote := l.Tunnel.Endpoints()
	return remote
}

// Addr is an endpoint: a deprecated /128 without a prefix route, which answers neighbour solicitations and is not used
// for anything else.
type Addr struct {
	Addr   netip.Addr
	Device string
}

// Route is an IPv4 route to a device, without a gateway.
type Route struct {
	Table  uint32
	Dst    netip.Prefix
	Device string
}

// Rule is an IPv4 policy rule. Unset fields match everything.
type Rule struct {
	Priority    int
	IIF         string // "lo": what this machine itself sends
	IPProto     uint8  // only this protocol; 0: all
	FirstPort   uint16 // destination ports; for ICMP: type and code
	LastPort    uint16
	From        netip.Prefix
	To          netip.Prefix
	Mark        uint32
	Mask        uint32
	Table       uint32
	NoDefault   bool // suppress_prefixlength 0: ignore the table's default route
	Unreachable bool // instead of a lookup
}

// Sysctl is a value below /proc/sys. Key has slashes, because device names may contain dots:
// net/ipv4/conf/eth0/forwarding.
type Sysctl struct {
	Key   string
	Value string
	// Device is our link that the key belongs to; the key disappears with it. It is "" if the previous value has to be
	// saved.
	Device string
}

// NewDevice stands for devices that do not exist yet, in the name of a sysctl.
const NewDevice = "default"

// NoIPv6Key is the sysctl that turns off IPv6 on a device: it has no IPv6 addresses then, and adding one fails with
// EACCES (inet6_addr_add in net/ipv6/addrconf.c).
func NoIPv6Key(device string) string { return "net/ipv6/conf/" + device + "/disable_ipv6" }

// LinkSysctls are the sysctls below net/ipv4/conf/DEVICE that are set for our links.
var LinkSysctls = []string{"forwarding", "src_valid_mark", "rp_filter"}

// Table is one of our nft tables: the ruleset as text, without elements, and the elements of its sets and maps.
type Table struct {
	Family  string // ip or ip6
	Name    string // TableName or FlowTableName
	Ruleset string // from `table` to the closing brace, as nft reads it
	Sets    []Set
}

// Set is a named set or map of a table.
type Set struct {
	Name     string
	Key      []Type
	Value    []Type // nil for a set
	Elements []Element
}

// Type is the type of a field of a set's key or value, by its name in nft.
type Type string

// The types that our sets have.
const (
	IPv4    Type = "ipv4_addr"
	IPv6    Type = "ipv6_addr"
	Proto   Type = "inet_proto"
	Service Type = "inet_service"
	IfName  Type = "ifname"
	CtState Type = "ct_state"
	Verdict Type = "verdict"
)

// Observed is what is in the kernel.
type Observed struct {
	State // what has our marks

	SavedSysctls []Sysctl // previous values of sysctls that we changed

	// Unrecorded are devices that forward IPv4 although it is unknown whether they did before: the records in /run and
	// our table are lost.
	Unrecorded []string

	// Objects of others that could be in the way.
	ForeignLinks  map[string]string // device name → kind
	ForeignAddrs  map[netip.Addr]string
	ForeignRules  []ForeignRule
	ForeignRoutes []ForeignRoute
	ForeignTables []string // those of our names without our mark: "ip ds4relay"

	Notes []*message.Text // what a person should know, such as that a record is damaged

	// Unseen is what the kernel shows to root only, where somebody else asks; State is without it.
	Unseen []*message.Text

	// NoIPv6 are those of our links on which IPv6 is off (disable_ipv6), and NewDevice if it is off on new devices.
	NoIPv6 map[string]bool

	// SysctlValues are the current values of all wanted or saved keys; a missing key does not exist.
	SysctlValues map[string]string
}

// ForeignRule is somebody else's policy rule at one of our priorities.
type ForeignRule struct {
	Priority int
	Owner    *message.Text // by its protocol
}

// ForeignRoute is somebody else's route in one of our tables, or to one of our hosts.
type ForeignRoute struct {
	Table  uint32
	Dst    netip.Prefix
	Owner  *message.Text
	Device string
}

// MainTable is the number of the main routing table (RT_TABLE_MAIN).
const MainTable = 254
