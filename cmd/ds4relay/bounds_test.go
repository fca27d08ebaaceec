//go:build !openwrt && !lab

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
)

// A family is a kind of bad file, of any size.
type family struct {
	name   string
	text   func(size int) string
	option bool // it is about one option
}

// repeated returns head, followed by line's output for consecutive numbers, up to a size.
func repeated(head string, line func(b []byte, i int) []byte) func(size int) string {
	return func(size int) string {
		b := append(make([]byte, 0, size+1024), head...)
		for i := 0; ; i++ {
			before := len(b)
			if b = line(b, i); len(b) > size {
				return string(b[:before])
			}
		}
	}
}

// always is repeated with a fixed line, in which %d is a number, %p a port, %s a word of letters and %i an address,
// different in each line.
func always(head, line string) func(size int) string {
	parts := strings.Split(line, "%")
	return repeated(head, func(b []byte, i int) []byte {
		b = append(b, parts[0]...)
		for _, part := range parts[1:] {
			switch part[0] {
			case 'd':
				b = strconv.AppendInt(b, int64(i), 10)
			case 'p':
				b = strconv.AppendInt(b, int64(1+i%65535), 10)
			case 's':
				b = append(b, letters(i)...)
			case 'i':
				b = netip.AddrFrom4([4]byte{11 + byte(i>>24), byte(i >> 16), byte(i >> 8), byte(i)}).AppendTo(b)
			}
			b = append(b, part[1:]...)
		}
		return b
	})
}

// sections returns sections of one kind, each with the same text.
func sections(head, text string) func(size int) string {
	return repeated(head, func(b []byte, _ int) []byte { return append(b, text...) })
}

func letters(i int) string {
	word := []byte{}
	for ; i > 0 || len(word) < 4; i /= 26 {
		word = append(word, byte('a'+i%26))
	}
	return string(word)
}

// The shortest correct sections, to precede others.
const (
	shortRelay = "c relay r\no role vps\no ipaddr 1.1.1.1\no ip6addr 2a::1\no peeraddr 2a::2\n"
	shortProxy = "c proxy p\no target 2a::1\n"
)

// families generates every option and every kind of section of the schema in several variants, and what libuci's
// grammar allows.
func families() []family {
	list := []family{
		{name: "unknown words", text: always("", "x\n")},
		{name: "unknown long words", text: always("", strings.Repeat("x", 997)+"%d\n")},
		{name: "one word", text: always("", "x")},
		{name: "one value", text: always("c relay r\no ipaddr ", "x")},
		{name: "one value of control characters", text: always("c relay r\no ipaddr ", "\x01")},
		{name: "long values", text: always("c relay r\n", "o ipaddr "+strings.Repeat("\x01", 60000)+"%d\n")},
		{name: "one statement", text: always("c relay r\no ipaddr", " x")},
		{name: "open quotes", text: always("c relay r\n", "o ipaddr 'x\n")},
		{name: "a quote without end", text: always("c relay r\no ipaddr '", "x\n")},
		{name: "both quotes", text: always("c relay r\no ipaddr ", `'a'"b"\c`)},
		{name: "escapes", text: always("c relay r\no ipaddr \"", `\\\"`)},
		{name: "joined lines", text: always("c relay r\no ipaddr a", "\\\n")},
		{name: "joined lines with a semicolon", text: func(size int) string {
			return always("c relay r\n", "o \\\n")(size-3) + ";x\n"
		}},
		{name: "a semicolon behind quoted lines", text: func(size int) string {
			return always("c relay r\no a '", "\n")(size-5) + "' ;x\n"
		}},
		{name: "semicolons", text: always("", ";")},
		{name: "comments", text: always("", "#\n")},
		{name: "blank lines", text: always("", "\n")},
		{name: "zero bytes", text: always("", "\x00")},
		{name: "no UTF-8", text: always("c relay r\n", "o ipaddr \xff\xfe%d\n")},
		{name: "unknown sections", text: always("", "c x\n")},
		{name: "unknown sections with options", text: always("", "c x\no a 1\n")},
		{name: "unknown sections of many names", text: always("", "c %s %s\n")},
		{name: "options without a section", text: always("", "o a 1\n")},
		{name: "unknown options", text: always("c relay r\n", "o %s 1\n")},
		{name: "unknown options of many sections",
			text: always("", "c forward\no %sdest_portx_long 1\no src_portx_%s_long 1\n")},
		{name: "sections of one name", text: always("", "c relay r\no %s 1\n")},
		{name: "sections of one name and two types", text: always("c relay r\n", "c forward r\n")},
		{name: "options in turn",
			text: always("c forward a\nc forward b\n", "c forward a\no proto tcp\nc forward b\no proto udp\n")},

		{name: "relays without anything", text: always("", "c relay\n")},
		{name: "relays of many names", text: always("", "c relay %s\n")},
		{name: "relays and forwards without one", text: func(size int) string {
			return always("", "c relay %s\no ipaddr 1.1.1.1\no peeraddr 2a::2\n")(size/2) +
				always("", "c forward\no dest_ip 1.1.1.1\no proto all\n")(size/2)
		}},
		{name: "relays and forwards of unknown ones", text: func(size int) string {
			return always("", "c relay %s\no ipaddr 1.1.1.1\no peeraddr 2a::2\n")(size/2) +
				always("", "c forward\no dest_ip 1.1.1.1\no proto all\no relay %s_\n")(size/2)
		}},
		{name: "equal relays",
			text: always("", "c relay %s\no role vps\no ipaddr 1.1.1.1\no ip6addr 2a::1\no peeraddr 2a::2\n")},
		{name: "relays of many addresses",
			text: always("", "c relay %s\no role vps\no ipaddr %i\no ip6addr 2a::/64\no peeraddr 2b::/64\n")},
		{name: "relays of equal tables",
			text: always("", "c relay %s\no role router\no ipaddr 1.1.1.1\no peeraddr 2a::%d\n")},
		{name: "equal keeps", text: always(shortRelay, "l keep tcp:1\n")},
		{name: "many keeps", text: always(shortRelay, "l keep tcp:%p\n")},
		{name: "keeps of all ports", text: always(shortRelay, "l keep tcp:1-65535\n")},
		{name: "keeps and forwards", text: func(size int) string {
			return always(shortRelay, "l keep tcp:%p\n")(min(size/2, 60000)) +
				always("", "c forward\no src_dport 1-65535\no dest_ip 1.1.1.2\n")(size/2)
		}},
		{name: "keeps of relays and forwards", text: func(size int) string {
			return always("", "c relay %s\no role vps\no ipaddr 1.1.1.1\no ip6addr 2a::%d\no peeraddr 2a::\nl "+
				"keep tcp:%p\n")(size/2) +
				always("", "c forward\no relay aaaa\no src_dport %p\no dest_ip 1.1.1.2\n")(size/2)
		}},

		{name: "forwards without anything", text: always(shortRelay, "c forward\n")},
		{name: "equal forwards", text: always(shortRelay, "c forward\no src_dport 1\no dest_ip 1.1.1.2\n")},
		{name: "forwards of all ports",
			text: always(shortRelay, "c forward\no src_dport 1-65535\no dest_ip 1.1.1.2\n")},
		{name: "forwards of all", text: always(shortRelay, "c forward\no proto all\no dest_ip 1.1.1.2\n")},
		{name: "correct forwards",
			text: always(shortRelay, "c forward\no src_dport %p\no proto tcp\no dest_ip 1.1.1.2\n")},
		{name: "forwards of all protocols",
			text: always(shortRelay, "c forward\no proto %p\no dest_ip 1.1.1.2\no src_ip 1.1.1.1\n")},
		{name: "forwards with egress", text: func(size int) string {
			return always("", "c relay %s\no role router\no ip4table %p\no ipaddr %i\no peeraddr 2a::2\no "+
				"egress all\n")(size/2) +
				always("", "c forward\no relay %s\no src_dport %p\no dest_ip 1.1.1.2\n")(size/2)
		}},
		{name: "forwards of the address itself",
			text: always(shortRelay, "c forward\no src_dport %p\no proto tcp\no dest_ip 1.1.1.1\n")},
		{name: "forwards of many equal protocols", text: func(size int) string {
			return sections(shortRelay, "c forward\no src_dport 1\no dest_ip 1.1.1.2\n"+strings.Repeat("l proto tcp\n",
				4000))(size)
		}},
		{name: "clashes with a long forward", text: func(size int) string {
			many := "c forward\no src_dport 1-65535\no dest_ip 1.1.1.2\n" + strings.Repeat("l proto tcp\n", 2000) +
				always("", "l src_ip %i\n")(40000)
			return always(shortRelay+many, "c forward\no src_dport 1\no dest_ip 1.1.1.2\n")(size)
		}},
		{name: "many clients", text: always(shortRelay+"c forward\no src_dport 1\no dest_ip 1.1.1.2\n",
			"l src_ip %i\n")},
		{name: "nested clients", text: always(shortRelay+"c forward\no src_dport 1\no dest_ip 1.1.1.2\n",
			"l src_ip 0.0.0.0/0\nl src_ip 1.0.0.0/8\nl src_ip 1.1.1.1\n")},
		{name: "clients in one option", text: func(size int) string {
			return sections(shortRelay, "c forward\no dest_ip 1.1.1.2\no src_dport 1\no src_ip '"+
				strings.Repeat("1 ", 5000)+"'\n")(size)
		}},

		{name: "proxies without anything", text: always("", "c proxy\n")},
		{name: "equal proxies", text: always("", "c proxy\nl listen 0.0.0.0:1\no target 2a::1\n")},
		{name: "correct proxies", text: always("", "c proxy\nl listen %i:%p\no target 2a::1\n")},
		{name: "proxies of all ports",
			text: always("", "c proxy\nl listen 0.0.0.0:1-65535\nl listen [::]:1-65535\no target 2a::1\n")},
		{name: "equal listens", text: always(shortProxy, "l listen 0.0.0.0:1\n")},
		{name: "listens of all ports", text: always(shortProxy, "l listen 0.0.0.0:1-65535\n")},
		{name: "correct listens", text: always(shortProxy, "l listen %i:%p\n")},
		{name: "listens in one option", text: func(size int) string {
			return sections("", "c proxy\no target 2a::1\no listen '"+strings.Repeat("0.0.0.0:1 ", 5000)+"'\n")(size)
		}},
		{name: "listens of many proxies", text: func(size int) string {
			return sections("", always("c proxy\no target 2a::1\n", "l listen 0.0.0.0:%p\n")(4000))(size)
		}},
		{name: "listens, specific and of every address",
			text: always(shortProxy+"l listen 0.0.0.0:1-65535\n", "l listen %i:%p\n")},
		{name: "listens and forwards", text: func(size int) string {
			return always(shortRelay, "c forward\no proto tcp\no src_dport %p\no dest_ip 1.1.1.2\n")(size/2) +
				sections("", always("c proxy\no target 2a::1\n", "l listen 0.0.0.0:%p\n")(60000))(size/2)
		}},
		{name: "listens and relays of all", text: func(size int) string {
			return always("", "c relay %s\no role vps\no ipaddr %i\no ip6addr 2a::%d\no peeraddr 2a::\nl keep "+
				"tcp:1-65535\nc forward\no relay %s\no proto all\no dest_ip 1.1.1.2\n")(size/2) +
				sections("", always("c proxy\no target 2a::1\n", "l listen 0.0.0.0:%p\n")(60000))(size/2)
		}},
		{name: "targets that are listened on", text: always("", "c proxy\nl listen 1.1.1.1:%p\no target 1.1.1.1\n")},
	}
	for _, section := range config.Schema {
		for _, option := range section.Options {
			head, name := "c "+section.Type+" s\n", section.Type+"'s "+option.Name
			words := "o " + option.Name + " '" + strings.Repeat("a ", 30000) + "'\n"
			list = append(list, family{name + " repeated", always(head, "o "+option.Name+" 1\n"), true},
				family{name + " as a list", always(head, "l "+option.Name+" 1\n"), true},
				family{name + " wrong in many sections", always("", "c "+section.Type+"\no "+option.Name+" %d_\n"),
					true},
				family{name + " of words", sections("", "c "+section.Type+"\n"+words), true})
		}
	}
	return list
}

// Limits of what check may use for any file.
const (
	mostMemory   = 100 << 10 // KiB
	routerMemory = 16 << 10  // KiB, for a browser's input to a router
	mostOutput   = 64 << 10  // bytes
	mostLines    = 210       // a hundred mistakes and as many warnings
	plugged      = 64 << 10  // bytes: the limit of rpcd's plugin, as JSON
	small        = 128 << 10 // bytes
	large        = 8 * small // longer files reach the limits of counts
	spared       = 50 * time.Millisecond
	linear       = 4 // factor beyond 8 that the large file may take
)

// A run is a call of the program: its input, its arguments, and then its resource usage.
type run struct {
	Input  string
	Args   []string
	Memory int64 // KiB, peak (VmHWM)
	CPU    time.Duration
	Status int
	Output string
}

const stopwatchEnv = "DS4RELAY_STOPWATCH"

// init turns the test program into a stopwatch, which runs another program for each line of its input. A process
// inherits the peak size of the one that starts it, and the tests' own is large.
func init() {
	program := os.Getenv(stopwatchEnv)
	if program == "" {
		return
	}
	debug.SetGCPercent(20)
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var r run
		if err := in.Decode(&r); err != nil {
			os.Exit(0)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		c := exec.CommandContext(ctx, program, r.Args...)
		if r.Input != "" {
			c.Stdin, _ = os.Open(r.Input)
		}
		said, _ := c.CombinedOutput()
		cancel()
		usage := c.ProcessState.SysUsage().(*syscall.Rusage)
		r.Memory, r.CPU, r.Status, r.Output = usage.Maxrss, c.ProcessState.UserTime()+c.ProcessState.SystemTime(),
			c.ProcessState.ExitCode(), string(said)
		if file, ok := c.Stdin.(*os.File); ok {
			file.Close()
		}
		_ = out.Encode(r)
	}
}

// stopwatch builds the router's program, and returns a function that measures calls of it.
func stopwatch(t *testing.T) func(r run) run {
	t.Helper()
	program := filepath.Join(t.TempDir(), "ds4relay")
	if out, err := exec.Command("go", "build", "-ldflags", "-s -w", "-tags", "openwrt", "-o", program,
		".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	watch := exec.Command(os.Args[0])
	watch.Env = append(os.Environ(), stopwatchEnv+"="+program)
	watch.Stderr = os.Stderr
	in, err1 := watch.StdinPipe()
	out, err2 := watch.StdoutPipe()
	if err := errors.Join(err1, err2, watch.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = watch.Wait()
	})
	ask, answers := json.NewEncoder(in), json.NewDecoder(out)
	return func(r run) run {
		t.Helper()
		if err := errors.Join(ask.Encode(r), answers.Decode(&r)); err != nil {
			t.Fatal(err)
		}
		return r
	}
}

// browser returns a family's file as a browser sends it, up to the plugin's limit; nothing if the family has no small
// file.
func browser(t *testing.T, f family) string {
	t.Helper()
	for size := plugged; size > plugged/20; size = size * 9 / 10 {
		data, err := json.Marshal(map[string]string{"config": f.text(size)})
		if err != nil {
			t.Fatal(err)
		}
		if len(data) <= plugged {
			return string(data)
		}
	}
	return "{}"
}

// TestBadFiles: whatever a file contains, check uses little memory, takes time proportional to its length, and prints
// about a hundred mistakes. A browser's input to a router's plugin takes less.
func TestBadFiles(t *testing.T) {
	measure, path := stopwatch(t), filepath.Join(t.TempDir(), "file")
	write := func(text string) string {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var most, mostRouter run
	for _, f := range families() {
		first := measure(run{Args: []string{"check", write(f.text(small))}})
		if first.Status != 0 && first.Status != exitUsage || first.Output == "" {
			t.Errorf("%s: status %d, %.200s", f.name, first.Status, first.Output)
		}
		if lines := strings.Count(first.Output, "\n"); lines > mostLines || len(first.Output) > mostOutput {
			t.Errorf("%s: %d lines, %d bytes are printed", f.name, lines, len(first.Output))
		}
		plugin := measure(run{Args: []string{"rpcd", "call", "check"}, Input: write(browser(t, f))})
		if plugin.Memory > routerMemory || plugin.Status != 0 || len(plugin.Output) > 2*mostOutput {
			t.Errorf("%s: a browser's check takes %d KiB, prints %d bytes, status %d", f.name, plugin.Memory,
				len(plugin.Output), plugin.Status)
		}
		if plugin.Memory > mostRouter.Memory {
			mostRouter = plugin
		}
		if f.option {
			continue
		}
		second := measure(run{Args: []string{"check", write(f.text(large))}})
		if second.Memory > mostMemory || second.Status != first.Status && second.Status != exitUsage {
			t.Errorf("%s: %d KiB, status %d, %.200s", f.name, second.Memory, second.Status, second.Output)
		}
		if second.CPU > linear*large/small*(first.CPU+spared) {
			t.Errorf("%s: %v for %d bytes, %v for %d", f.name, first.CPU, small, second.CPU, large)
		}
		if second.Memory > most.Memory {
			most = second
		}
	}
	t.Logf("at most %d KiB, and %d KiB for a browser's (%d KiB for nothing)", most.Memory, mostRouter.Memory,
		measure(run{Args: []string{"version"}}).Memory)
}

// TestLongFile: for every command, a file that is too long is a mistake of the user.
func TestLongFile(t *testing.T) {
	measure, path := stopwatch(t), filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, bytes.Repeat([]byte("#"), 4<<20+1), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"check", "up", "plan", "status", "export", "reload", "trace"} {
		r := measure(run{Args: []string{"-c", path, command}})
		if r.Status != exitUsage || !strings.Contains(r.Output, "longer than 4 MiB") || r.Memory > mostMemory {
			t.Errorf("%s: status %d, %d KiB, %s", command, r.Status, r.Memory, r.Output)
		}
	}
}
