// Package proxyd runs package proxy as a service. Over a control socket it reports the proxies' status, reloads the
// configuration, and hands its listening sockets to a new version of the program while its own sessions finish. It
// notifies systemd over systemd's socket (sd_notify(3)).
package proxyd
