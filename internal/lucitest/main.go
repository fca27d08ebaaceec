// Command lucitest serves LuCI's own client-side code, out of a LuCI source tree, with the views of luci-app-ds4relay,
// and speaks ubus over JSON-RPC to them: sessions by the real ACL files, UCI on a real file, the object ds4relay by the
// real program, which runs in a root of its own as on a router. It is for tests of the views in a browser.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

func main() {
	switch filepath.Base(os.Args[0]) {
	case "ubus":
		os.Exit(fakeUbus(os.Args[1:]))
	case "ds4relay":
		os.Exit(fakeInit(os.Args[1:]))
	}
	luci := flag.String("luci", "", "a LuCI source tree")
	app := flag.String("app", "luci-app/luci-app-ds4relay", "the application")
	program := flag.String("program", "build/ds4relay", "the program, built without cgo")
	root := flag.String("root", "", "an empty directory for the program's root")
	listen := flag.String("listen", "127.0.0.1:0", "address and port")
	flag.Parse()
	if os.Getenv("DS4RELAY_LUCITEST") == "" {
		os.Exit(again())
	}
	r, err := newRoot(*root, *program)
	if err != nil {
		log.Fatal(err)
	}
	s, err := newServer(*luci, *app, r)
	if err != nil {
		log.Fatal(err)
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("http://%s\n", l.Addr())
	log.Fatal(http.Serve(l, s.handler()))
}

// again runs the program in a mount namespace of its own, so that the mounts in its root end with it.
func again() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), "DS4RELAY_LUCITEST=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
