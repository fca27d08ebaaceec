package kernel

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/program"
	"github.com/ds4relay/ds4relay/internal/state"
)

// A table is compared by what the kernel reports, not by what nft prints: nft's output differs between versions, and
// starting nft costs more than reading everything else. The checksum covers the attributes that define tables, chains,
// rules and sets (linux/netfilter/nf_tables.h), but not handles and use counts. It is recorded when the table is
// loaded, together with the table's text; as long as the sum is the same, the table has that text.

type nftObject struct {
	get  int
	kept []uint16 // attributes that go into the sum
}

// nftObjects are the kinds of objects in a table. The first attribute always names the table.
var nftObjects = []nftObject{
	{unix.NFT_MSG_GETCHAIN, []uint16{unix.NFTA_CHAIN_NAME, unix.NFTA_CHAIN_HOOK, unix.NFTA_CHAIN_POLICY,
		unix.NFTA_CHAIN_TYPE}},
	{unix.NFT_MSG_GETRULE, []uint16{unix.NFTA_RULE_CHAIN, unix.NFTA_RULE_EXPRESSIONS, unix.NFTA_RULE_COMPAT,
		unix.NFTA_RULE_USERDATA}},
	{unix.NFT_MSG_GETSET, []uint16{unix.NFTA_SET_NAME, unix.NFTA_SET_FLAGS, unix.NFTA_SET_KEY_TYPE,
		unix.NFTA_SET_KEY_LEN, unix.NFTA_SET_DATA_TYPE, unix.NFTA_SET_DATA_LEN, unix.NFTA_SET_TIMEOUT}},
	{unix.NFT_MSG_GETOBJ, []uint16{unix.NFTA_OBJ_NAME, unix.NFTA_OBJ_TYPE}},
	{unix.NFT_MSG_GETFLOWTABLE, []uint16{nftaFlowtableName, nftaFlowtableHook}},
}

// Attributes of a flowtable (linux/netfilter/nf_tables.h); the hook lists its devices, without those that were removed.
const (
	nftaFlowtableName = 2
	nftaFlowtableHook = 3
)

var families = map[string]uint8{"ip": unix.NFPROTO_IPV4, "ip6": unix.NFPROTO_IPV6}

// nftDump requests the objects of a family; request are attributes of the message.
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

// tables are the tables that may be ours.
var tables = []state.Table{{Family: "ip", Name: state.TableName}, {Family: "ip6", Name: state.TableName},
	{Family: "ip", Name: state.FlowTableName}, {Family: "ip", Name: state.KillTableName}}

// observeTables reads our tables. If a table was changed since we loaded it, its ruleset is what nft prints: text that
// can be loaded again, and that differs from all our own texts.
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

// tableSum returns the checksum of a table in the kernel, and whether the table exists and has our mark.
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

// observeTable returns the table with its contents, or nil if it does not exist.
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
	if record.Sum == hex.EncodeToString(sum) {
		table.Ruleset = record.Ruleset
		if table.Sets, err = filled(name.Family, record.Sets); !errors.Is(err, errElement) {
			return table, true, err
		}
	}
	table.Sets = nil
	table.Ruleset, err = Nft("", "-s", "list", "table", name.Family, name.Name)
	return table, true, err
}

// filled are the sets with the elements that the kernel has.
func filled(family string, sets []state.Set) ([]state.Set, error) {
	var all []state.Set
	for _, set := range sets {
		var err error
		if set.Elements, err = elements(families[family], set); err != nil {
			return nil, err
		}
		all = append(all, set)
	}
	return all, nil
}

// loadTables runs a script as one transaction, changes elements in another one, and records the resulting tables.
func (k *Kernel) loadTables(step state.LoadTables) (err error) {
	before := generation()
	if step.Script != "" {
		_, err = Nft(step.Script, "-f", "-")
	}
	var limit *program.LimitError
	// nft was killed, perhaps after its transaction. Without a transaction, the undo script does nothing or fails.
	loaded := errors.As(err, &limit) && (before == [4]byte{} || generation() != before)
	if err == nil && state.Direct {
		err = changeElements(step.Elements)
		loaded = err != nil && step.Script != ""
	}
	if loaded {
		_, back := Nft(step.Back, "-f", "-")
		if back == nil && state.Direct {
			back = changeElements(ofNew(step.BackElements))
		}
		switch {
		case back == nil:
			err = errors.Join(err, k.noteTables(state.LoadTables{Loaded: step.Former, Former: step.Loaded}))
		case limit == nil, errors.As(back, &limit):
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

// ofNew returns those changes that belong to tables which a script has created.
func ofNew(changes []state.SetChange) (created []state.SetChange) {
	for _, change := range changes {
		if change.New {
			created = append(created, change)
		}
	}
	return created
}

// generation counts nf_tables transactions in the kernel (NFTA_GEN_ID); 0 if it is unknown.
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

// noteTables replaces the records. If it fails, the previous ones stay, and the tables are restored.
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

// nftTime limits one call of nft: a ruleset of 10,000 forwards loads in a second on a slow machine.
const nftTime = time.Minute

// ErrNoNft is returned where nft is not installed.
var ErrNoNft = message.New("the program nft is missing; install it: apt install nftables (Debian), opkg install " +
	"nftables (OpenWrt)")

// Nft runs the program nft with that standard input, and returns its output.
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

// firstLines shortens nft's error message, which may repeat a whole ruleset.
func firstLines(s string) string {
	lines := strings.SplitN(strings.TrimSpace(s), "\n", 4)
	return strings.Join(lines[:min(len(lines), 3)], "; ")
}
