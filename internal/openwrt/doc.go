// Package openwrt talks to OpenWrt's parts: netifd, the firewall (fw4 and fw3) and rpcd, by their bus, ubus.
package openwrt
