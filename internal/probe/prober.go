package probe

import (
	"bytes"
	"cmp"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/doctor"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/packet"
	"github.com/ds4relay/ds4relay/internal/ping"
	"github.com/ds4relay/ds4relay/internal/platform"
	"github.com/ds4relay/ds4relay/internal/reconcile"
	"github.com/ds4relay/ds4relay/internal/state"
)

// Prober implements doctor.Prober for this machine.
type Prober struct {
	File     string // the path of the configuration
	Defaults config.Defaults
	Platform platform.Platform
	Kernel   reconcile.Kernel
}

var _ doctor.Prober = (*Prober)(nil)

// Config implements doctor.Prober.
func (m *Prober) Config() (*config.Config, config.Problems, error) {
	c, warnings, err := config.Load(m.File, m.Defaults)
	if err != nil {
		c = nil
	}
	return c, warnings, err
}

// System implements doctor.Prober.
func (m *Prober) System() doctor.System {
	s := doctor.System{OpenWrt: m.Platform.Name() == platform.OpenWrtName, Kernel: release(), Now: time.Now()}
	s.Modules = map[string]bool{}
	for _, name := range []string{doctor.ModuleIPIP6, doctor.ModuleWireGuard} {
		s.Modules[name] = kernel.HasModule(name) || hasModule(s.Kernel, name) && loadable("/", name)
	}
	if c := kernel.CountConnections(); c != nil {
		s.Tracked, s.MaxTracked = c.Count, c.Max
	}
	_, s.NftErr = kernel.Nft("", "--version")
	const timeError = 5 // TIME_ERROR of adjtimex(2)
	state, err := unix.Adjtimex(&unix.Timex{})
	s.Unsynced = err == nil && state == timeError
	routes, err := netlink.RouteGet(doctor.Nowhere.AsSlice())
	s.IPv4Default = err == nil && len(routes) > 0
	return s
}

func release() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Release[:])
}

// hasModule reports whether the kernel could load a module: it is in the lists of depmod(8), or, on OpenWrt, in the
// modules' directory.
func hasModule(release, name string) bool {
	dir := "/lib/modules/" + release + "/"
	for _, list := range []string{"modules.dep", "modules.builtin"} {
		if data, err := os.ReadFile(dir + list); err == nil && bytes.Contains(data, []byte("/"+name+".ko")) {
			return true
		}
	}
	_, err := os.Stat(dir + name + ".ko")
	return err == nil
}

// Installed implements doctor.Prober.
func (m *Prober) Installed(c *config.Config) (doctor.Installed, error) {
	status, err := (&reconcile.End{Config: c, Kernel: m.Kernel}).Status()
	if err != nil {
		return doctor.Installed{}, err
	}
	return doctor.Installed{Blocked: status.Codes.Blocked, Differs: status.Differs}, nil
}

// Path implements doctor.Prober.
func (m *Prober) Path(r *config.Relay) (doctor.Path, error) {
	facts, err := m.Kernel.Facts([]*config.Relay{r})
	path := doctor.Path{Local: r.Local, Peer: r.Peer, MTU: state.TunnelMTU(r, facts), Access: facts.Access[r.Name],
		LAN: facts.LAN, Self: facts.Self}
	if err = cmp.Or(err, facts.Failed[r.Name]); err != nil {
		return path, err
	}
	if reason, waits := facts.Waiting[r.Name]; waits {
		return path, state.Waiting(r.Name, reason)
	}
	onCard := state.OnCard(r, facts.Card[r.Name])
	if onCard.Translated() {
		path.Card = onCard.NICAddr
	}
	if r.Auto {
		path.Local = facts.Local[r.Name]
	}
	if r.PeerName != "" {
		path.Peer = facts.Peer[r.Name]
		path.PeerNote = message.Join("; ", facts.Notes...)
	}
	if link, err := netlink.LinkByName(r.Device); err == nil {
		path.MTU = link.Attrs().MTU
		if s := link.Attrs().Statistics; s != nil {
			path.RxPackets = s.RxPackets
		}
	}
	outer := path.Peer
	if r.Transport == config.WireGuard {
		path.Remote = session(r).Remote
		if r.Role == config.VPS {
			outer = path.Remote.Addr()
		}
	}
	path.Uplink, path.LearntMTU = uplink(path.Local, outer)
	path.Unheard = kernel.Unheard(onCard, path.Access)
	return path, nil
}

// session reads what the kernel knows about the other end.
func session(r *config.Relay) doctor.Session {
	device, err := kernel.ReadWireGuard(r.Device)
	s := doctor.Session{Key: device.Public, Now: time.Now()}
	if err != nil || len(device.Peers) != 1 {
		return s
	}
	p := &device.Peers[0]
	s.Remote, s.RxBytes = p.Endpoint, p.RxBytes
	if p.Handshake != 0 {
		s.Handshake = time.Unix(p.Handshake, 0)
	}
	return s
}

// Session implements doctor.Prober.
func (m *Prober) Session(r *config.Relay) doctor.Session { return session(r) }

// Taker implements doctor.Prober.
func (m *Prober) Taker(r *config.Relay, from netip.Addr) (to netip.AddrPort) {
	_ = kernel.Flows(func(f state.Flow) {
		if f.Proto == packet.UDP && f.Src == from && f.DstPort == r.WireGuard.Port &&
			(f.AnswerSrc != f.Dst || f.AnswerPort != f.DstPort) {
			to = netip.AddrPortFrom(f.AnswerSrc, f.AnswerPort)
		}
	}, func() { to = netip.AddrPort{} })
	return to
}

// uplink returns the device through which the tunnel's packets leave, and the path's MTU as far as the kernel knows it.
// Routes may depend on the source (OpenWrt's default routes do).
func uplink(local, peer netip.Addr) (device string, mtu int) {
	if !peer.IsValid() {
		return "", 0
	}
	for _, options := range []*netlink.RouteGetOptions{{SrcAddr: local.AsSlice()}, nil} {
		routes, err := netlink.RouteGetWithOptions(peer.AsSlice(), options)
		if err != nil || len(routes) == 0 {
			continue
		}
		link, err := netlink.LinkByIndex(routes[0].LinkIndex)
		if err != nil || link.Attrs().Name == "lo" {
			continue
		}
		return link.Attrs().Name, routes[0].MTU
	}
	return "", 0
}

// pings is the number of echo requests: the first may wait for neighbour discovery, and OpenWrt's firewall limits them.
const pings = 2

// Ping implements doctor.Prober.
func (m *Prober) Ping(from, to netip.Addr, bytes int) doctor.Pong {
	var err error
	for range pings {
		if err = ping.Once(from, to, bytes, time.Second); err == nil {
			return doctor.Pong{Answered: true}
		}
	}
	pong := doctor.Pong{}
	if !errors.Is(err, ping.ErrNoAnswer) {
		pong.Error = message.Of(err)
	}
	return pong
}

// neighbourTime is a little more than the three seconds of the kernel's neighbour discovery.
const neighbourTime = 4 * time.Second

// Neighbour implements doctor.Prober. The kernel's entry may be old, so it is refreshed.
func (m *Prober) Neighbour(device string, host netip.Addr) string {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return ""
	}
	asked, asking := false, false // by this function; by the kernel, still without an answer
	for deadline := time.Now().Add(neighbourTime); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		neighbours, err := netlink.NeighList(link.Attrs().Index, unix.AF_INET)
		if err != nil {
			return ""
		}
		i := slices.IndexFunc(neighbours, func(n netlink.Neigh) bool { return n.IP.Equal(host.AsSlice()) })
		if i < 0 {
			return ""
		}
		n := neighbours[i]
		asking = n.State&unix.NUD_INCOMPLETE != 0 || asked && n.State&unix.NUD_PROBE != 0
		switch {
		case n.State&unix.NUD_FAILED != 0:
			return doctor.NoAnswer
		case asking:
		case n.State&(unix.NUD_PERMANENT|unix.NUD_NOARP) != 0, asked && n.State&unix.NUD_REACHABLE != 0:
			return "answers"
		case !asked:
			n.State = unix.NUD_PROBE
			if netlink.NeighSet(&n) != nil {
				return ""
			}
			asked = true
		}
	}
	if asking { // clients' packets make the kernel ask again as soon as it has failed; or its timers are late
		return doctor.NoAnswer
	}
	return ""
}

// Clients implements doctor.Prober. The doctor's own tests do not count.
func (m *Prober) Clients(r *config.Relay) int {
	r = kernel.OnCards([]*config.Relay{r})[0]
	forwarded := state.NewForwarded([]*config.Relay{r})
	n := 0
	err := kernel.Flows(func(f state.Flow) {
		if r.Has(f.Dst) && f.Src != doctor.TestClient && forwarded.Of(f) != nil {
			n++
		}
	}, func() { n = 0 })
	if err != nil {
		return -1
	}
	return n
}

// counters reads the kernel's counters of this network namespace: pairs of lines, names and values.
func counters() map[string]uint64 {
	values := map[string]uint64{}
	for _, file := range []string{"snmp", "netstat"} {
		data, err := os.ReadFile("/proc/thread-self/net/" + file)
		if err != nil {
			continue
		}
		lines := strings.Split(string(data), "\n")
		for i := 0; i+1 < len(lines); i += 2 {
			names, numbers := strings.Fields(lines[i]), strings.Fields(lines[i+1])
			if len(names) == 0 || len(names) != len(numbers) {
				continue
			}
			for j := 1; j < len(names); j++ {
				n, _ := strconv.ParseUint(numbers[j], 10, 64) // a few may be negative: -1 means no limit
				values[strings.TrimSuffix(names[0], ":")+names[j]] = n
			}
		}
	}
	return values
}
