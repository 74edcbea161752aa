# What journald finds where it looks, in a mount namespace of its own: directory of the receiver as first argument.
set -eu
mkdir -p "$1/run" "$1/log"
mount -t tmpfs -o mode=755 tmpfs /run/systemd
mkdir /run/systemd/journal
mount --bind "$1/run" /run/systemd/journal
# This host's own logs are neither read nor written.
mount -t tmpfs -o mode=755 tmpfs /run/log
mount -t tmpfs -o mode=755 tmpfs /var/log
mkdir /var/log/journal
mount --bind "$1/log" /var/log/journal
# As on a host that is up: it writes to /var/log at once.
: >/run/systemd/journal/flushed
mount -t tmpfs -o mode=755 tmpfs /etc/systemd
mkdir /etc/systemd/journald.conf.d
# The kernel's messages and its audit are the host's; without a word on it, audit would be switched on.
cat >/etc/systemd/journald.conf.d/zz-test.conf <<'END'
[Journal]
Storage=persistent
SystemMaxUse=64M
Audit=
ReadKMsg=no
ForwardToSyslog=no
ForwardToKMsg=no
ForwardToConsole=no
ForwardToWall=no
RateLimitIntervalSec=0
END
: >"$1/ready"
# It keeps the namespace while journald is stopped.
exec sleep 3600
