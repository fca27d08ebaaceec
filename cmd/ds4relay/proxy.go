//go:build !openwrt

package main

import (
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/proxy"
)

// proxy runs the proxies of the configuration in the foreground.
func (a *app) proxy(args []string) error {
	args, err := parse(a.flags("proxy"), args)
	if err != nil {
		return err
	}
	if len(args) > 0 {
		return usageError("proxy takes no arguments")
	}
	c, _, err := a.load(a.path)
	if err != nil {
		return err
	}
	server, err := proxy.New(proxy.Options{Log: a.note})
	if err != nil {
		return err
	}
	if err := server.Apply(c.Proxies); err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	for s := range signals {
		if s != unix.SIGHUP {
			break
		}
		c, _, err := a.load(a.path)
		if err == nil {
			err = server.Apply(c.Proxies)
		}
		if err != nil {
			fmt.Fprintln(a.stderr, err)
		}
	}
	return server.Close()
}
