#!/bin/sh
# What makes a root of mmdebstrap ($1) a server at a provider: name, network, kernel ($2: the package that depends on
# the newest one); and the lab's agent.
set -eu
root=$1
cd "$root"
kernel=$(apt-cache depends "$2" | sed -n 's/^ *Depends: \(linux-image-[^ ]*\).*/\1/p' | head -n 1)
version=${kernel#linux-image-}
mkdir lab-kernel
(
	cd lab-kernel
	apt-get -q download "$kernel"
	case $2 in *-virtual) apt-get -q download "linux-modules-$version" ;; esac # Ubuntu has them in a package of their own
	for deb in *.deb; do dpkg -x "$deb" .; done
)
mkdir -p usr/lib/modules
[ -e lib/modules ] || ln -s ../usr/lib/modules lib/modules # Ubuntu 22.04 has two directories
mv lab-kernel/boot/vmlinuz-* boot/
modules=$(echo lab-kernel/lib/modules/* lab-kernel/usr/lib/modules/* | tr ' ' '\n' | grep -v '\*')
# Without what udev would load for the emulated CPU and its devices, and what no test needs.
for part in sound drivers/gpu drivers/media drivers/infiniband drivers/scsi drivers/iio drivers/usb drivers/hid \
	drivers/staging drivers/net/ethernet drivers/net/wireless drivers/acpi drivers/ata drivers/char drivers/cpufreq \
	drivers/edac drivers/hwmon drivers/i2c drivers/input drivers/leds drivers/mmc drivers/mtd drivers/nvme \
	drivers/parport drivers/pcmcia drivers/platform drivers/powercap drivers/thermal drivers/video fs/btrfs fs/xfs \
	fs/ocfs2 net/bluetooth net/mac80211; do
	rm -rf "$modules/kernel/$part"
done
find "$modules/kernel/arch" -type f ! -name 'chacha-*' ! -name 'poly1305-*' ! -name 'curve25519-*' \
	! -name 'blake2s-*' -delete # wireguard's
mv "$modules" usr/lib/modules/
rm -r lab-kernel
# Another ifupdown beside the one that is installed, where the release has it.
mkdir opt/ifupdown-ng
if (cd opt/ifupdown-ng && apt-get -q download ifupdown-ng); then
	dpkg -x opt/ifupdown-ng/*.deb opt/ifupdown-ng
	rm opt/ifupdown-ng/*.deb
else
	rmdir opt/ifupdown-ng
fi
# ufw's package does not go with these, and a machine that has both in files only is as good for a test.
mkdir opt/netfilter-persistent
(cd opt/netfilter-persistent && apt-get -q download netfilter-persistent iptables-persistent &&
	for deb in *.deb; do dpkg -x "$deb" . && rm "$deb"; done)
depmod -b "$root" "$version"
echo "$version" >lab-kernel-version

echo vps >etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 vps\n::1 localhost\n' >etc/hosts
echo '46ffffffffffffffffffffffffffff46' >etc/machine-id
echo '/dev/vda / ext4 defaults 0 0' >etc/fstab
rm -f etc/resolv.conf
if [ -d etc/netplan ]; then
	cat >etc/netplan/50-cloud-init.yaml <<END
network:
  version: 2
  ethernets:
    ens3:
      addresses: [198.51.100.144/24, "2001:db8:6ef9::1/64"]
      routes:
        - {to: default, via: 198.51.100.1}
        - {to: "::/0", via: "2001:db8:6ef9::ff"}
END
	chmod 600 etc/netplan/50-cloud-init.yaml
	systemctl --root "$root" -q enable systemd-networkd.service
fi
[ ! -d etc/network ] || cat >etc/network/interfaces <<END
source /etc/network/interfaces.d/*

auto lo
iface lo inet loopback

allow-hotplug ens3
iface ens3 inet static
    address 198.51.100.144/24
    gateway 198.51.100.1

iface ens3 inet6 static
    address 2001:db8:6ef9::1/64
    gateway 2001:db8:6ef9::ff
END
printf '[Match]\nMACAddress=52:54:00:46:02:01\n\n[Link]\nName=ens3\n' >etc/systemd/network/10-ens3.link
printf '[Match]\nMACAddress=52:54:00:46:02:03\n\n[Link]\nName=ctl\n' >etc/systemd/network/10-ctl.link
cat >etc/systemd/system/lab-agent.service <<END
[Unit]
Description=The lab's agent
DefaultDependencies=no
After=sys-subsystem-net-devices-ctl.device
Wants=sys-subsystem-net-devices-ctl.device

[Service]
ExecStartPre=/bin/sh -c 'ip addr replace 169.254.46.2/24 dev ctl; ip link set ctl up'
ExecStart=/run/lab/agent -hold-keys
Restart=on-failure

[Install]
WantedBy=sysinit.target
END
systemctl --root "$root" -q enable lab-agent.service
# Of the devices that are there at a boot udev hears of those that matter here, not of each of a hundred terminals.
mkdir -p etc/systemd/system/systemd-udev-trigger.service.d
cat >etc/systemd/system/systemd-udev-trigger.service.d/lab.conf <<END
[Service]
ExecStart=
ExecStart=udevadm trigger --type=devices --action=add --subsystem-match=net --subsystem-match=block --subsystem-match=virtio
END
# Neighbours of the relay, which a test starts.
for unit in docker.service docker.socket containerd.service NetworkManager.service NetworkManager-wait-online.service \
	NetworkManager-dispatcher.service prometheus-node-exporter.service ssh.service; do
	test ! -e "usr/lib/systemd/system/$unit" && test ! -e "lib/systemd/system/$unit" ||
		systemctl --root "$root" -q disable "$unit"
done
# A server's periodic jobs, and services that the lab does not need.
systemctl --root "$root" -q mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
	fstrim.timer logrotate.timer systemd-timesyncd.service getty.target serial-getty@ttyS0.service \
	systemd-hwdb-update.service systemd-random-seed.service systemd-binfmt.service modprobe@configfs.service \
	modprobe@drm.service modprobe@efi_pstore.service modprobe@fuse.service modprobe@loop.service \
	modprobe@dm_mod.service dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
	sys-kernel-config.mount sys-fs-fuse-connections.mount systemd-pstore.service \
	systemd-journal-flush.service systemd-update-utmp.service
# The work of a first boot is done: units with ConditionNeedsUpdate do not start.
chroot "$root" ldconfig
chroot "$root" journalctl --update-catalog 2>/dev/null || true
chroot "$root" passwd -q -d root || true
rm -rf var/lib/apt/lists/* var/cache/apt/*.bin
for dir in etc var; do
	touch -r usr "$dir/.updated"
done
