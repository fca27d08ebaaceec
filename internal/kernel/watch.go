//go:build !openwrt

package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/state"
)

// Change tells that something has changed that a relay may need: a look will show it.
type Change struct {
	// Urgent changes break connections until they are repaired.
	Urgent bool
	// By names the program that did it, if it is known and not ds4relay.
	By *message.Text
}

// rtnlGroups are the groups of rtnetlink(7) that tell of links, addresses, routes, rules, and of devices' forwarding.
var rtnlGroups = []int{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE,
	unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV4_NETCONF}

// Watch reports changes until ctx is done or the channel of changes cannot be served any more; then it is closed. It
// leaves out what cannot concern a relay. The tables of iptables-legacy are changed without a notification.
func Watch(ctx context.Context) (<-chan Change, error) {
	routes, err := listen(unix.NETLINK_ROUTE, rtnlGroups...)
	if err != nil {
		return nil, message.New("watch rtnetlink: %v", err)
	}
	tables, err := listen(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		routes.Close()
		return nil, message.New("watch nftables: %v", err)
	}
	changes := make(chan Change)
	send := func(c Change) {
		select {
		case changes <- c:
		case <-ctx.Done():
		}
	}
	var transaction transaction
	go receive(routes, func(m syscall.NetlinkMessage) {
		if concernsRoutes(m) {
			send(Change{By: author(int(m.Header.Pid))})
		}
	}, func() { send(Change{}) })
	go receive(tables, func(m syscall.NetlinkMessage) {
		if change, ok := transaction.add(m); ok {
			send(change)
		}
	}, func() { send(Change{}) })
	context.AfterFunc(ctx, func() {
		routes.Close()
		tables.Close()
	})
	return changes, nil
}

// watchBuffer is the size of a socket's buffer in bytes; a Docker with many containers sends some hundred messages at
// once.
const watchBuffer = 1 << 20

func listen(protocol int, groups ...int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, watchBuffer) // the default will do
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	for _, group := range groups {
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group)
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}

// receive passes on messages until the file is closed. lost is called if some were lost (ENOBUFS).
func receive(file *os.File, each func(syscall.NetlinkMessage), lost func()) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := file.Read(buffer)
		if isErrno(err, unix.ENOBUFS) {
			lost()
			continue
		}
		if err != nil {
			return
		}
		messages, err := syscall.ParseNetlinkMessage(buffer[:n])
		if err != nil {
			lost()
		}
		for _, m := range messages {
			each(m)
		}
	}
}

// concernsRoutes reports whether a message of rtnetlink may be about something that a relay needs: what has our marks,
// and what the machine's addresses, its default route and its devices say about where a tunnel belongs.
func concernsRoutes(m syscall.NetlinkMessage) bool {
	added := true
	switch m.Header.Type {
	case unix.RTM_DELLINK, unix.RTM_DELADDR, unix.RTM_DELROUTE, unix.RTM_DELRULE:
		added = false
	}
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return concernsLink(m.Data)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return !added || len(m.Data) > 0 && m.Data[0] == unix.AF_INET || fresh(m.Data) || deprecated(m.Data)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		if len(m.Data) < unix.SizeofRtMsg {
			return false
		}
		family, bits, protocol := m.Data[0], m.Data[1], m.Data[5] // struct rtmsg
		return !added && protocol == state.Protocol || family == unix.AF_INET6 && bits == 0
	case unix.RTM_DELRULE:
		attrs := after(m.Data, unix.SizeofRtMsg)
		return len(attrs[nl.FRA_PROTOCOL]) == 1 && attrs[nl.FRA_PROTOCOL][0] == state.Protocol
	case unix.RTM_NEWNETCONF:
		forwarding := after(m.Data, 4)[netconfaForwarding] // struct netconfmsg has one byte, and is padded
		return len(forwarding) == 4 && binary.NativeEndian.Uint32(forwarding) == 0
	}
	return false
}

// freshTime is how long an IPv6 address is new, in hundredths of a second: duplicate address detection takes a second
// or two.
const freshTime = 1000

// fresh reports whether an IPv6 address has just come, and is usable. A router advertisement renews it later each time.
func fresh(data []byte) bool {
	cache := after(data, unix.SizeofIfAddrmsg)[unix.IFA_CACHEINFO]
	if len(cache) < unix.SizeofIfaCacheinfo || data[2]&unix.IFA_F_TENTATIVE != 0 { // struct ifaddrmsg
		return false
	}
	created, updated := binary.NativeEndian.Uint32(cache[8:]), binary.NativeEndian.Uint32(cache[12:])
	return updated-created < freshTime
}

// deprecated reports whether an IPv6 address is of a prefix that a router has taken back. If the home had the prefix
// that takes its place a while ago, that is all that is told: the address of that one is not new.
func deprecated(data []byte) bool {
	return len(data) > 2 && data[2]&unix.IFA_F_DEPRECATED != 0 // struct ifaddrmsg
}

// netconfaForwarding is NETCONFA_FORWARDING of linux/netconf.h.
const netconfaForwarding = 2

// after returns a message's attributes behind its header.
func after(data []byte, header int) map[uint16][]byte {
	if len(data) < header {
		return nil
	}
	attrs, err := attributes(data[header:])
	if err != nil {
		return nil
	}
	return attrs
}

// concernsLink leaves out what is about a port of a bridge, about IPv6 on a device, and about containers' devices.
func concernsLink(data []byte) bool {
	if len(data) < unix.SizeofIfInfomsg || data[0] != unix.AF_UNSPEC {
		return false
	}
	info, err := attributes(after(data, unix.SizeofIfInfomsg)[unix.IFLA_LINKINFO])
	return err != nil || text(info[nl.IFLA_INFO_KIND]) != "veth"
}

// transaction collects what nft tells until its end (NFT_MSG_NEWGEN).
type transaction struct{ concerns, urgent bool }

func (t *transaction) add(m syscall.NetlinkMessage) (change Change, ok bool) {
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < nl.SizeofNfgenmsg {
		return change, false
	}
	kind, family := int(m.Header.Type&0xff), m.Data[0]
	attrs := after(m.Data, nl.SizeofNfgenmsg)
	if kind != unix.NFT_MSG_NEWGEN {
		t.note(kind, family, attrs)
		return change, false
	}
	change.Urgent, ok = t.urgent, t.concerns
	*t = transaction{}
	pid := attrs[unix.NFTA_GEN_PROC_PID]
	if !ok || len(pid) != 4 {
		return change, ok
	}
	id := int(binary.BigEndian.Uint32(pid))
	if change.By = author(id); change.By == nil && !ours(id) {
		change.By = message.New("%s (process %d)", text(attrs[unix.NFTA_GEN_PROC_NAME]), id)
	}
	return change, !ours(id)
}

func (t *transaction) note(kind int, family uint8, attrs map[uint16][]byte) {
	table := text(attrs[1]) // in each kind of message
	known := slices.ContainsFunc(tables, func(t state.Table) bool {
		return families[t.Family] == family && t.Name == table
	})
	switch {
	case known:
		t.concerns = true
		t.urgent = t.urgent || kind == unix.NFT_MSG_DELTABLE || kind == unix.NFT_MSG_DELCHAIN
	case (table == "filter" || table == "raw") && kind <= unix.NFT_MSG_DELRULE: // iptables' chains with allowances
		t.concerns = true
	}
}

// author names a process by its ID, which rtnetlink's messages usually have as the port of who caused them. It is nil
// for the kernel and its threads (a container's process has another ID there), for what has ended, and for ds4relay.
func author(id int) *message.Text {
	name, parent := command(id), parentOf(id)
	by := command(parent)
	if name == "" || name == own || by == own || parent == kthreadd || ours(id) {
		return nil
	}
	if parent > 1 && by != "" {
		return message.New("%s (process %d, started by %s, process %d)", name, id, by, parent)
	}
	return message.New("%s (process %d)", name, id)
}

// kthreadd is the parent of the kernel's threads.
const kthreadd = 2

// own is this program's name.
const own = "ds4relay"

// ours reports whether a process is this one or was started by it.
func ours(id int) bool { return id == os.Getpid() || parentOf(id) == os.Getpid() }

// command returns the name of a process, or "".
func command(id int) string {
	if id <= 0 {
		return ""
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", id))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(name))
}

// parentOf returns the parent of a process, or 0 (proc(5): the fourth field, after the name in parentheses).
func parentOf(id int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", id))
	if err != nil {
		return 0
	}
	words := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(words) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(words[1])
	return parent
}

// NoteRival records that a program takes away again and again what a step restores.
func (k *Kernel) NoteRival(program, step string) error {
	return k.write(RivalRecord, []string{program, step})
}

// ForgetRival ends that.
func (k *Kernel) ForgetRival() error { return k.remove(RivalRecord) }

// Rival is what NoteRival has recorded; nothing if there is no such program.
func (k *Kernel) Rival() (program, step string) {
	noted := read(k, RivalRecord, func(noted []string) bool { return len(noted) == 2 })
	if noted == nil {
		return "", ""
	}
	return noted[0], noted[1]
}

// Awaited reports whether there are relays that are to be up, or to be tried again.
func (k *Kernel) Awaited() bool {
	return slices.ContainsFunc([]string{appliedRecord, FailedRecord}, func(name string) bool {
		_, err := os.Lstat(k.path(name))
		return !errors.Is(err, os.ErrNotExist)
	})
}
