// Command po2lmo makes LuCI's catalogue of a translation: po2lmo IN.po OUT.lmo. The packages are built with it; LuCI's
// own is part of its source tree.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/ds4relay/ds4relay/internal/lmo"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "po2lmo:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: po2lmo IN.po OUT.lmo")
	}
	po, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	data, err := lmo.Compile(string(po))
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	return os.WriteFile(args[1], data, 0o644)
}
