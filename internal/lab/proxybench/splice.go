package main

import (
	"context"
	"io"
	"net"
	"sync"
)

// runSplice is the yardstick: a few lines of Go whose io.Copy between TCP connections uses splice(2).
func runSplice(listen, target string) error {
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	l, err := config.Listen(context.Background(), "tcp", listen)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			t, err := net.Dial("tcp", target)
			if err != nil {
				return
			}
			defer t.Close()
			var up sync.WaitGroup
			up.Add(1)
			go func() {
				defer up.Done()
				pass(t, c)
			}()
			pass(c, t)
			up.Wait()
		}()
	}
}

// pass copies all bytes and then passes on the FIN.
func pass(to, from net.Conn) {
	io.Copy(to, from)
	to.(*net.TCPConn).CloseWrite()
	from.(*net.TCPConn).CloseRead()
}
