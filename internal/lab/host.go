//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Host is a machine of the lab: a network namespace and its devices.
type Host struct {
	Name string // name of the namespace for ip netns
	// Netlink acts on the namespace from any goroutine.
	Netlink *netlink.Handle

	ns netns.NsHandle

	mu       sync.Mutex
	children []*Cmd
}

func newHost(name string) (h *Host, err error) {
	h = &Host{Name: name, ns: netns.None()}
	err = onOwnThread(func() error {
		if h.ns, err = netns.NewNamed(name); errors.Is(err, os.ErrExist) {
			return fmt.Errorf("namespace %s is in use, or left by an earlier run (then: ip netns del %s)", name, name)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	h.Netlink, err = netlink.NewHandleAt(h.ns)
	if err == nil {
		err = h.initialize()
	}
	if err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

// initialize makes addresses usable at once and stops the kernel from sending packets by itself.
func (h *Host) initialize() error {
	lo, err := h.Netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := h.Netlink.LinkSetUp(lo); err != nil {
		return err
	}
	for _, conf := range []string{"all", "default"} {
		for key, value := range map[string]string{
			"ipv6/accept_dad": "0", "ipv6/dad_transmits": "0", "ipv6/router_solicitations": "0", "ipv6/accept_ra": "0",
			"ipv4/rp_filter": "0",
		} {
			family, key, _ := strings.Cut(key, "/")
			if err := h.Sysctl("net/"+family+"/conf/"+conf+"/"+key, value); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h *Host) close() error {
	h.mu.Lock()
	children := h.children
	h.mu.Unlock()
	for _, child := range children {
		child.Process.Kill()
	}
	if h.Netlink != nil {
		h.Netlink.Close()
	}
	err := h.ns.Close()
	if deleteErr := netns.DeleteNamed(h.Name); deleteErr != nil {
		err = errors.Join(err, fmt.Errorf("delete namespace %s: %w", h.Name, deleteErr))
	}
	return err
}

// Do calls f on a thread in the namespace. Sockets that f opens stay there, but goroutines that it starts run
// elsewhere.
func (h *Host) Do(f func() error) error {
	return onOwnThread(func() error {
		if err := netns.Set(h.ns); err != nil {
			return fmt.Errorf("enter namespace %s: %w", h.Name, err)
		}
		return f()
	})
}

// onOwnThread calls f on a thread that f may move to another namespace.
func onOwnThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			result <- err
			return
		}
		defer home.Close()
		err = f()
		if netns.Set(home) == nil {
			runtime.UnlockOSThread() // otherwise the thread ends with this goroutine
		}
		result <- err
	}()
	return <-result
}

// Sysctl sets a key such as "net.ipv4.ip_forward". Use slashes if a device name in it contains a dot.
func (h *Host) Sysctl(key, value string) error {
	if !strings.Contains(key, "/") {
		key = strings.ReplaceAll(key, ".", "/")
	}
	return h.Do(func() error {
		return os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0)
	})
}

// ReadSysctl returns the value of a key, in the same form as for Sysctl.
func (h *Host) ReadSysctl(key string) (value string, err error) {
	if !strings.Contains(key, "/") {
		key = strings.ReplaceAll(key, ".", "/")
	}
	err = h.Do(func() error {
		data, err := os.ReadFile(filepath.Join("/proc/sys", key))
		value = strings.TrimSpace(string(data))
		return err
	})
	return value, err
}
