#!/bin/busybox sh
# Boots a Debian root from the disk: as its own initramfs would, with the lab's agent beside it in /run.
fail() {
	echo "debian init: $*"
	busybox poweroff -f
}
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs dev /dev
while read -r module; do
	busybox insmod "/modules/$module" || fail "insmod $module"
done </modules.order
busybox mount -t ext4 /dev/vda /root || fail "mount /dev/vda"
busybox mount -t tmpfs -o mode=755 run /root/run
busybox mkdir /root/run/lab
busybox cp /sbin/agent /root/run/lab/agent
for dir in proc sys dev; do
	busybox umount "/$dir" || busybox mount --move "/$dir" "/root/$dir"
done
exec busybox switch_root /root /sbin/init
