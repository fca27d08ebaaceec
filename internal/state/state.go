package state

import (
	"net/netip"

	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// Protocol marks our routes and rules (rtnetlink(7) rtm_protocol, FRA_PROTOCOL), Group our links while they have no
// alias yet (IFLA_GROUP), and Metric our IPv6 addresses (IFA_RT_PRIORITY: unlike IFA_PROTO, ip(8) of Debian 12 and
// kernels before 5.18 know it, and an address without a prefix route has no other use for it).
const (
	Protocol = 46
	Group    = 46
	Metric   = 46
)

// AliasPrefix and the relay's name are the alias of a link of ours.
const AliasPrefix = "ds4relay:"

// TableName is the name of our nft tables in every family. Two more are of family ip: FlowTableName for a flowtable,
// KillTableName for what keeps hosts from leaving by another way than a tunnel.
const (
	TableName     = "ds4relay"
	FlowTableName = "ds4relay_flows"
	KillTableName = "ds4relay_killswitch"
)

// State is everything that ds4relay has, or wants, in the kernel.
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
	Group  int // of devices: the rules of our tables know tunnels by it
	Up     bool
}

// Local is the endpoint here.
func (l Link) Local() netip.Addr {
	local, _ := l.Tunnel.Endpoints()
	return local
}

// Remote is the other end's.
func (l Link) Remote() netip.Addr {
	_, remote := l.Tunnel.Endpoints()
	return remote
}

// Addr is an endpoint: an IPv6 address that neighbours are answered for and that nothing else uses (/128, deprecated,
// no prefix route).
type Addr struct {
	Addr   netip.Addr
	Device string
}

// Route is an IPv4 route straight into a device.
type Route struct {
	Table  uint32
	Dst    netip.Prefix
	Device string
}

// Rule is an IPv4 policy rule. What is not set matches everything.
type Rule struct {
	Priority    int
	IIF         string // "lo": what this machine itself sends
	IPProto     uint8  // for packets of this protocol; 0: of all
	FirstPort   uint16 // destination ports; of ICMP: type and code
	LastPort    uint16
	From        netip.Prefix
	To          netip.Prefix
	Mark        uint32
	Mask        uint32
	Table       uint32
	NoDefault   bool // suppress_prefixlength 0: the table's default route does not count
	Unreachable bool // instead of a look-up
}

// Sysctl is a value below /proc/sys. Key has slashes, since devices' names may have dots: net/ipv4/conf/eth0/forwarding.
type Sysctl struct {
	Key   string
	Value string
	// Device is the link of ours that the key belongs to and goes away with; "" where the former value is kept.
	Device string
}

// LinkSysctls are those below net/ipv4/conf/DEVICE that a link of ours may have set.
var LinkSysctls = []string{"forwarding", "src_valid_mark", "rp_filter"}

// Table is an nft table of ours: the ruleset without elements as text, and the elements of its sets and maps.
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

// Element is a set's element in nft's words; Value is "" in a set that is no map.
type Element struct {
	Key, Value string
}

// Observed is what is in the kernel.
type Observed struct {
	State // what carries our marks

	SavedSysctls []Sysctl // what sysctls were before we changed them

	// Unrecorded are devices that forward IPv4 while nothing says any more whether they did before us: the records in
	// /run and our table are lost.
	Unrecorded []string

	// What others own, as far as it could be in the way.
	ForeignLinks  map[string]string // device name → kind
	ForeignAddrs  map[netip.Addr]string
	ForeignRules  []ForeignRule
	ForeignRoutes []ForeignRoute
	ForeignTables []string // those of our names without our mark: "ip ds4relay"

	Notes []*message.Text // what a person should know, such as that a record is damaged

	// Unseen is what the kernel shows to root only, where somebody else asks; State is without it.
	Unseen []*message.Text

	// SysctlValues are the present values of every key that is wanted or saved; a key that is missing does not exist.
	SysctlValues map[string]string
}

// ForeignRule is a policy rule of somebody else at a priority of ours.
type ForeignRule struct {
	Priority int
	Owner    *message.Text // by its protocol
}

// ForeignRoute is a route of somebody else in a table of ours, or to a host of ours.
type ForeignRoute struct {
	Table  uint32
	Dst    netip.Prefix
	Owner  *message.Text
	Device string
}

// MainTable is the number of the main routing table (RT_TABLE_MAIN).
const MainTable = 254
