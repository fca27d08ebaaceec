// Command mknotices prints the copyright file of a package for what is linked into its program, in Debian's short form
// or with the text of every licence.
package main

import (
	"fmt"
	"os"

	"github.com/ds4relay/ds4relay/internal/notices"
)

func main() {
	if len(os.Args) != 3 || os.Args[1] != "debian" && os.Args[1] != "openwrt" {
		fmt.Fprintln(os.Stderr, "usage: mknotices debian|openwrt PROGRAM")
		os.Exit(2)
	}
	modules, err := notices.Linked(os.Args[2])
	if err == nil {
		err = notices.Write(os.Stdout, modules, os.Args[1] == "debian")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mknotices:", err)
		os.Exit(1)
	}
}
