#!/bin/busybox sh
# The first process of a guest: prepares a host as the tests expect it, runs the jobs, says on the console how each
# ended, and powers off. A line that begins with @@ is for xtask/src/vm/guest.rs.
/bin/busybox mkdir -p /bin /sbin /proc /sys /dev /run /tmp /root /var/lib/misc
/bin/busybox --install -s
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root NO_COLOR=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t securityfs securityfs /sys/kernel/security
mount -t tmpfs tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /tmp
mkdir -p /run/netns /dev/shm
ln -s /proc/self/fd /dev/fd
echo dnswall-vm >/proc/sys/kernel/hostname
# What udev makes a node for before anybody asks, and a family that 5.10 loads for a transport only.
modprobe -a veth dummy tun vsock
ip link set lo up
. /environment
uptime_secs() { cut -d. -f1 /proc/uptime; }
echo "@@ up $(uname -r) $(uptime_secs) $(cat /sys/kernel/security/lsm)"
while read -r check name limit command; do
    began=$(uptime_secs)
    echo "@@ begin $check $name"
    # One word an argument: no job has spaces inside one.
    timeout -s KILL "$limit" $command >/tmp/output 2>&1 </dev/null
    code=$?
    sed -n 's/^not run: \(.*\)/@@ lack \1/p' /tmp/output
    if [ "$code" != 0 ] || [ "$name" = verify ]; then tail -c 16000 /tmp/output; echo; fi
    left=$(ls /sys/fs/bpf; ls -d /sys/fs/cgroup/dnswall* 2>/dev/null)
    [ -z "$left" ] || echo "left behind: $left"
    echo "@@ end $check $name $code $(($(uptime_secs) - began))"
done </jobs
echo "@@ down $(uptime_secs)"
poweroff -f
