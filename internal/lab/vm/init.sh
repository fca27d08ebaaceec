#!/bin/busybox sh
# First program of the lab's virtual machine: overlays the host's root and hands over to "labctl guest-init".

fail() {
	echo "lab init: $*"
	busybox poweroff -f
}

busybox mkdir -p /proc /sys /dev /host /rw /new
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs dev /dev

while read -r module; do
	busybox insmod "/modules/$module" || fail "insmod $module"
done </modules.order

read -r cmdline </proc/cmdline
for word in $cmdline; do
	case "$word" in
	ds4relay.spec=*) spec=${word#*=} ;;
	esac
done

busybox mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose host /host || fail "mount 9p"
busybox mount -t tmpfs rw /rw
busybox mkdir /rw/upper /rw/work
busybox mount -t overlay -o lowerdir=/host,upperdir=/rw/upper,workdir=/rw/work overlay /new || fail "mount overlay"
for dir in proc sys dev; do
	busybox mount --move "/$dir" "/new/$dir"
done
busybox mount -t tmpfs run /new/run

exec busybox switch_root /new "$spec/labctl" guest-init "$spec"
