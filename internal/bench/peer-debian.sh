#!/usr/bin/env bash
# Makes the peer of make bench-boot: a minimal Debian 13 with systemd,
# containerd and nginx, as a disk, a kernel and an initramfs in a folder.
# Needs root, a Debian mirror and about 2 GB for a moment.
#
#   scripts/peer-debian.sh FOLDER MIRROR
set -euo pipefail

out=$1 mirror=$2
if ((EUID != 0)); then
	echo "peer-debian: must run as root, to make a Debian system in a folder" >&2
	exit 1
fi
# In a mount namespace of its own, so that nothing stays mounted.
if [[ ${IN_NAMESPACE:-} != yes ]]; then
	IN_NAMESPACE=yes exec unshare --mount --propagation private "$0" "$@"
fi

export PATH="$PATH:/usr/sbin:/sbin" DEBIAN_FRONTEND=noninteractive LC_ALL=C
arch=$(dpkg --print-architecture)
mkdir -p "$out"
work=$(mktemp -d "$out/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root

debootstrap=$(command -v debootstrap || true)
if [[ -z $debootstrap ]]; then # fetched, not installed
	(cd "$work" && apt-get -q download -o APT::Sandbox::User=root debootstrap >/dev/null && dpkg -x debootstrap_*.deb tool)
	debootstrap=$work/tool/usr/sbin/debootstrap
	export DEBOOTSTRAP_DIR=$work/tool/usr/share/debootstrap
fi

echo "peer-debian: installing a minimal Debian 13 from $mirror (minutes)"
"$debootstrap" --variant=minbase --include=systemd-sysv,dbus,udev,initramfs-tools,zstd,containerd,nginx-light \
	trixie "$root" "$mirror" >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; exit 1; }

mount -t proc proc "$root/proc"
# An initramfs with just what this machine needs: the peer should look its best.
mkdir -p "$root/etc/initramfs-tools"
sed -i 's/^MODULES=.*/MODULES=list/' "$root/etc/initramfs-tools/initramfs.conf"
printf '%s\n' virtio_pci virtio_blk ext4 >>"$root/etc/initramfs-tools/modules"
chroot "$root" apt-get install -y -q --no-install-recommends "linux-image-cloud-$arch" >>"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; exit 1; }
chroot "$root" apt-get clean

echo peer >"$root/etc/hostname"
echo '/dev/vda / ext4 rw,noatime 0 1' >"$root/etc/fstab"
printf '[Match]\nType=ether\n[Network]\nDHCP=yes\n' >"$root/etc/systemd/network/80-dhcp.network"
chroot "$root" passwd -q -d root

# The peer's own account of its memory, half a minute after it is up: what its
# processes keep resident, shared pages divided among them.
cat >"$root/usr/local/bin/report-memory" <<'REPORT'
#!/bin/sh
sleep 30
# Kernel threads have no such file to read, and processes come and go.
cat /proc/[0-9]*/smaps_rollup 2>/dev/null | awk '/^Pss:/ {pss += $2} END {printf "peer-memory pss_kib=%d\n", pss}' >/dev/console
REPORT
chmod 755 "$root/usr/local/bin/report-memory"
cat >"$root/etc/systemd/system/report-memory.service" <<'UNIT'
[Unit]
After=nginx.service containerd.service
[Service]
ExecStart=/usr/local/bin/report-memory
[Install]
WantedBy=multi-user.target
UNIT
chroot "$root" systemctl -q enable systemd-networkd containerd nginx report-memory
umount "$root/proc"

cp -L "$root"/boot/vmlinuz-* "$work/kernel"
cp -L "$root"/boot/initrd.img-* "$work/initramfs"
rm -rf "$root"/boot/* "$root"/var/lib/apt/lists/*
truncate -s 3G "$work/disk.img"
mke2fs -q -t ext4 -L peer -d "$root" "$work/disk.img"
mv "$work/kernel" "$work/initramfs" "$out/"
mv "$work/disk.img" "$out/disk.img" # last: its presence says that all is there
echo "peer-debian: ready in $out"
