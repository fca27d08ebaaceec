package kernel

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"math/bits"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/program"
	"github.com/ds4relay/ds4relay/internal/state"
)

// A table is compared by what the kernel says of it, not by what nft prints: nft's output differs between versions, and
// starting nft costs more than all other observing. Of tables, chains, rules and sets the attributes that say what they
// are (linux/netfilter/nf_tables.h) go into a sum, handles and use counts do not. The sum is noted when the table is
// loaded, beside the text that it was loaded from; as long as it is the same, the table is that text.

type nftObject struct {
	get  int
	kept []uint16 // attributes that go into the sum
}

// nftObjects are what a table is made of. The attribute that names an object's table is always the first.
var nftObjects = []nftObject{
	{unix.NFT_MSG_GETCHAIN, []uint16{unix.NFTA_CHAIN_NAME, unix.NFTA_CHAIN_HOOK, unix.NFTA_CHAIN_POLICY, unix.NFTA_CHAIN_TYPE}},
	{unix.NFT_MSG_GETRULE, []uint16{unix.NFTA_RULE_CHAIN, unix.NFTA_RULE_EXPRESSIONS, unix.NFTA_RULE_COMPAT, unix.NFTA_RULE_USERDATA}},
	{unix.NFT_MSG_GETSET, []uint16{unix.NFTA_SET_NAME, unix.NFTA_SET_FLAGS, unix.NFTA_SET_KEY_TYPE, unix.NFTA_SET_KEY_LEN,
		unix.NFTA_SET_DATA_TYPE, unix.NFTA_SET_DATA_LEN, unix.NFTA_SET_TIMEOUT}},
	{unix.NFT_MSG_GETOBJ, []uint16{unix.NFTA_OBJ_NAME, unix.NFTA_OBJ_TYPE}},
	{unix.NFT_MSG_GETFLOWTABLE, []uint16{nftaFlowtableName, nftaFlowtableHook}},
}

// Attributes of a flowtable (linux/netfilter/nf_tables.h); the hook has its devices, and loses those that go away.
const (
	nftaFlowtableName = 2
	nftaFlowtableHook = 3
)

var families = map[string]uint8{"ip": unix.NFPROTO_IPV4, "ip6": unix.NFPROTO_IPV6}

// nftDump asks for objects of a family; request are attributes of the question.
func nftDump(get int, family uint8, request ...*nl.RtAttr) ([]map[uint16][]byte, error) {
	messages, err := dump(func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|get, unix.NLM_F_DUMP)
		req.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
		for _, attr := range request {
			req.AddData(attr)
		}
		return req.Execute(unix.NETLINK_NETFILTER, 0)
	})
	if err != nil {
		return nil, err
	}
	var result []map[uint16][]byte
	for _, m := range messages {
		if len(m) < nl.SizeofNfgenmsg || m[0] != family {
			continue
		}
		attrs, err := attributes(m[nl.SizeofNfgenmsg:])
		if err != nil {
			return nil, err
		}
		result = append(result, attrs)
	}
	return result, nil
}

func attributes(b []byte) (map[uint16][]byte, error) {
	parsed, err := nl.ParseRouteAttr(b)
	if err != nil {
		return nil, err
	}
	attrs := make(map[uint16][]byte, len(parsed))
	for _, attr := range parsed {
		attrs[attr.Attr.Type&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = attr.Value
	}
	return attrs, nil
}

func text(b []byte) string { return string(bytes.TrimRight(b, "\x00")) }

// tables are those that may be ours.
var tables = []state.Table{{Family: "ip", Name: state.TableName}, {Family: "ip6", Name: state.TableName},
	{Family: "ip", Name: state.FlowTableName}, {Family: "ip", Name: state.KillTableName}}

// observeTables reads our tables. A table that is not as we loaded it is what nft prints of it: text that can be loaded
// again, and that differs from every text of ours.
func (k *Kernel) observeTables(o *state.Observed) error {
	for _, name := range tables {
		table, ours, err := k.observeTable(name)
		switch {
		case isErrno(err, unix.EOPNOTSUPP, unix.EINVAL, unix.EPROTONOSUPPORT):
			return nil // a kernel without nf_tables has no tables
		case err != nil:
			return err
		case table == nil:
		case !ours:
			o.ForeignTables = append(o.ForeignTables, table.String())
		default:
			o.Tables = append(o.Tables, *table)
		}
	}
	return nil
}

// tableSum is the kernel's sum of a table, and whether there is one and it has our mark.
func tableSum(table state.Table) (sum []byte, exists, ours bool, err error) {
	number := families[table.Family]
	tables, err := nftDump(unix.NFT_MSG_GETTABLE, number)
	if err != nil {
		return nil, false, false, err
	}
	for _, t := range tables {
		exists = exists || text(t[unix.NFTA_TABLE_NAME]) == table.Name
	}
	if !exists {
		return nil, false, false, nil
	}
	hash := fnv.New128a()
	for _, object := range nftObjects {
		found, err := nftDump(object.get, number, nl.NewRtAttr(1, nl.ZeroTerminated(table.Name)))
		if err != nil {
			return nil, false, false, err
		}
		for _, attrs := range found {
			if text(attrs[1]) != table.Name {
				continue
			}
			ours = ours || object.get == unix.NFT_MSG_GETCHAIN && text(attrs[unix.NFTA_CHAIN_NAME]) == state.MarkChain
			fmt.Fprintf(hash, "%d\n", object.get)
			for _, kept := range object.kept {
				fmt.Fprintf(hash, "%d %d ", kept, len(attrs[kept]))
				hash.Write(attrs[kept])
			}
		}
	}
	return hash.Sum(nil), true, ours, nil
}

// observeTable returns the table with its contents, or nil where there is none.
func (k *Kernel) observeTable(name state.Table) (table *state.Table, ours bool, err error) {
	sum, exists, ours, err := tableSum(name)
	if err != nil || !exists {
		return nil, false, err
	}
	table = &name
	if !ours {
		return table, false, nil
	}
	record := k.tableRecord(name)
	if record.Sum != hex.EncodeToString(sum) {
		table.Ruleset, err = Nft("", "-s", "list", "table", name.Family, name.Name)
		return table, true, err
	}
	table.Ruleset = record.Ruleset
	for _, set := range record.Sets {
		if set.Elements, err = elements(families[name.Family], set); err != nil {
			return nil, false, err
		}
		table.Sets = append(table.Sets, set)
	}
	return table, true, nil
}

func elements(family uint8, set state.Set) ([]state.Element, error) {
	found, err := nftDump(unix.NFT_MSG_GETSETELEM, family, nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_TABLE, nl.ZeroTerminated(state.TableName)),
		nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_SET, nl.ZeroTerminated(set.Name)))
	if err != nil {
		return nil, err
	}
	var result []state.Element
	for _, attrs := range found {
		list, err := nl.ParseRouteAttr(attrs[unix.NFTA_SET_ELEM_LIST_ELEMENTS])
		if err != nil {
			return nil, err
		}
		for _, item := range list {
			element, err := attributes(item.Value)
			if err != nil {
				return nil, err
			}
			key, err := fields(element[unix.NFTA_SET_ELEM_KEY], element[nftaSetElemKeyEnd], set.Key)
			if err != nil {
				return nil, err
			}
			value, err := fields(element[unix.NFTA_SET_ELEM_DATA], nil, set.Value)
			if err != nil {
				return nil, err
			}
			result = append(result, state.Element{Key: key, Value: value})
		}
	}
	return result, nil
}

// nftaSetElemKeyEnd is NFTA_SET_ELEM_KEY_END of linux/netfilter/nf_tables.h: where an element of intervals ends.
const nftaSetElemKeyEnd = 10

// fieldSizes are the types' sizes in bytes.
var fieldSizes = map[state.Type]int{state.IPv4: 4, state.IPv6: 16, state.Proto: 1, state.Service: 2, state.IfName: 16, state.CtState: 4}

// ctStates are the bits of a connection's state (NF_CT_STATE_BIT).
var ctStates = map[uint32]string{1: "invalid", 2: "established", 4: "related", 8: "new", 64: "untracked"}

// fields decodes the key or value of an element: its fields one after another, each filled up to four bytes. last is
// where the element's intervals end, if it has some.
func fields(first, last []byte, types []state.Type) (string, error) {
	if types == nil {
		return "", nil
	}
	attrs, err := attributes(first)
	if err != nil {
		return "", err
	}
	if types[0] == state.Verdict {
		return verdict(attrs[unix.NFTA_DATA_VERDICT])
	}
	data := attrs[unix.NFTA_DATA_VALUE]
	end := data
	if last != nil {
		if attrs, err = attributes(last); err != nil {
			return "", err
		}
		end = attrs[unix.NFTA_DATA_VALUE]
	}
	var words []string
	for _, t := range types {
		size := fieldSizes[t]
		if len(data) < size || len(end) < size {
			return "", message.New("an nft element is shorter than its type")
		}
		words = append(words, interval(t, data[:size], end[:size]))
		next := min(len(data), len(end), (size+3)&^3)
		data, end = data[next:], end[next:]
	}
	return strings.Join(words, " . "), nil
}

// interval writes a field as nft does: a value, a network or a range.
func interval(t state.Type, first, last []byte) string {
	low := field(t, first)
	if bytes.Equal(first, last) {
		return low
	}
	if t == state.IPv4 {
		a, b := binary.BigEndian.Uint32(first), binary.BigEndian.Uint32(last)
		if hosts := a ^ b; hosts&(hosts+1) == 0 && a&hosts == 0 {
			return fmt.Sprintf("%s/%d", low, bits.LeadingZeros32(hosts))
		}
	}
	return low + "-" + field(t, last)
}

func field(t state.Type, b []byte) string {
	switch t {
	case state.Proto:
		return config.ProtoName(b[0])
	case state.Service:
		return strconv.Itoa(int(binary.BigEndian.Uint16(b)))
	case state.IfName:
		return strconv.Quote(text(b))
	case state.CtState:
		return ctStates[binary.NativeEndian.Uint32(b)]
	}
	addr, _ := netip.AddrFromSlice(b)
	return addr.String()
}

// verdict decodes what a verdict map says (NFTA_VERDICT_CODE, NFTA_VERDICT_CHAIN; linux/netfilter/nf_tables.h).
func verdict(nested []byte) (string, error) {
	attrs, err := attributes(nested)
	if err != nil {
		return "", err
	}
	code := attrs[unix.NFTA_VERDICT_CODE]
	if len(code) != 4 {
		return "", message.New("an nft verdict without a code")
	}
	switch code := int32(binary.BigEndian.Uint32(code)); code {
	case unix.NFT_GOTO:
		return "goto " + text(attrs[unix.NFTA_VERDICT_CHAIN]), nil
	case unix.NFT_JUMP:
		return "jump " + text(attrs[unix.NFTA_VERDICT_CHAIN]), nil
	case 1:
		return "accept", nil
	default:
		return fmt.Sprintf("verdict %d", code), nil
	}
}

// loadTables runs a script as one transaction and notes what the tables are then.
func (k *Kernel) loadTables(step state.LoadTables) error {
	before := generation()
	_, err := Nft(step.Script, "-f", "-")
	var limit *program.LimitError
	if errors.As(err, &limit) && (before == [4]byte{} || generation() != before) {
		// nft was killed, perhaps behind its transaction. What takes that back does nothing, or fails, where there was none.
		_, back := Nft(step.Back, "-f", "-")
		switch {
		case back == nil:
			err = errors.Join(err, k.noteTables(state.LoadTables{Loaded: step.Former, Former: step.Loaded}))
		case errors.As(back, &limit):
			err = errors.Join(err, back)
		}
	}
	if err != nil {
		return err
	}
	if err := k.noteTables(step); err != nil {
		return &Unrecorded{err}
	}
	return nil
}

// generation counts the transactions of the kernel's nf_tables (NFTA_GEN_ID); 0 where it does not say.
func generation() (id [4]byte) {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0})
	messages, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil || len(messages) != 1 || len(messages[0]) < nl.SizeofNfgenmsg {
		return id
	}
	if attrs, err := attributes(messages[0][nl.SizeofNfgenmsg:]); err == nil {
		copy(id[:], attrs[unix.NFTA_GEN_ID])
	}
	return id
}

// noteTables writes records over former ones, which stay where it fails: the tables are put back then.
func (k *Kernel) noteTables(step state.LoadTables) error {
	loaded := map[string]bool{}
	for _, table := range step.Loaded {
		if err := k.noteTable(table); err != nil {
			return err
		}
		loaded[recordName(table)] = true
	}
	for _, table := range step.Former {
		if name := recordName(table); !loaded[name] {
			if err := k.remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// nft limits: a ruleset of 10,000 forwards loads in a second on a slow machine, so that a minute is an error.
const nftTime = time.Minute

// ErrNoNft is returned where nft is not installed.
var ErrNoNft = message.New("the program nft is missing; install it: apt install nftables (Debian), opkg install " +
	"nftables (OpenWrt)")

// Nft runs the program nft with that on its standard input, and returns what it prints.
func Nft(input string, args ...string) (string, error) {
	path, err := exec.LookPath("nft")
	if err != nil {
		if path = "/usr/sbin/nft"; !isExecutable(path) {
			return "", ErrNoNft
		}
	}
	out, problems, err := program.Command{Name: path, Args: args, Input: input, Limit: nftTime, EndWithUs: true}.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return "", message.New("nft: %v: %s", err, firstLines(problems))
	case err != nil:
		return "", message.New("run nft: %v", err)
	}
	return out, nil
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&0o111 != 0
}

// firstLines shortens nft's complaint, which may repeat a whole ruleset.
func firstLines(s string) string {
	lines := strings.SplitN(strings.TrimSpace(s), "\n", 4)
	return strings.Join(lines[:min(len(lines), 3)], "; ")
}
