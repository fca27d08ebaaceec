// Package proxyd runs package proxy as a service. On a control socket it says how the proxies are, reads the configuration
// again, and hands its listening sockets to the program's next version, which goes on while this one's sessions come to their
// end. systemd is told over its own socket (sd_notify(3)).
package proxyd
