#!/bin/busybox sh
# The first process of the router: a home's router as OpenWrt would set it up, then the agent of the lab.
/bin/busybox --install -s /bin
export PATH=/sbin:/bin:/usr/sbin:/usr/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mkdir -p /var /etc/config
ln -s /run /var/run
ln -s /tmp /var/tmp
# On a Malta two cards share an interrupt line. QEMU leaves lines 10 and 11 of its controller (8259) edge triggered: if
# one card raises the line while the other is served, later interrupts are lost. Level triggered, as PCI requires, works
# (register ELCR2, bits 2 and 3).
if [ "$(uname -m)" = mips ]; then
	printf '\014' | dd of=/dev/port bs=1 seek=1233 conv=notrunc 2>/dev/null
fi
while read -r module; do
	insmod "/modules/$module"
done </modules.order
for conf in /proc/sys/net/ipv6/conf/*; do
	echo 0 >"$conf/accept_dad"
	echo 0 >"$conf/accept_ra"
done
# Cards by the last byte of their addresses.
for device in /sys/class/net/*; do
	case "$(cat "$device/address")" in
	*:01) name=wan ;;
	*:02) name=br-lan ;;
	*:03) name=ctl ;;
	*) continue ;;
	esac
	ip link set "${device##*/}" name "$name"
	ip link set "$name" up
done
ip link set lo up
ip addr add 169.254.46.2/24 dev ctl
ip addr add 192.168.1.1/24 dev br-lan
ip -6 addr add 2001:db8:fdd2::1/64 dev br-lan
ip -6 addr add 2001:db8:fdd1::2/64 dev wan
ip -6 route add default via 2001:db8:fdd1::1
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
echo "router: ready" >/dev/console
exec /sbin/agent
