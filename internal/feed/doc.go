// Package feed makes the indexes of OpenWrt's package feeds, for opkg (until OpenWrt 24.10) and for apk (from 25.12
// on): what package managers read to know which packages a feed has.
package feed
