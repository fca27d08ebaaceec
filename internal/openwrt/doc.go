// Package openwrt talks to parts of OpenWrt (netifd, the firewall fw4 or fw3, rpcd) over ubus.
package openwrt
