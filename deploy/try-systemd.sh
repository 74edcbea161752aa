#!/usr/bin/env bash
# Tries the systemd unit on a real systemd, and leaves nothing behind but a cached root file system.
#
#   deploy/try-systemd.sh [BINARY]          (default: target/release/dnswall; as root)
#
# A Debian 12 is put into target/try-systemd, set up exactly as docs/deployment.md says, and booted in a container with
# a cgroup subtree and a BPF file system of its own. The wall it raises therefore binds that container alone.
# Needs: debootstrap, systemd-nspawn, python3, cgroup v2 somewhere.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
say() { printf '==> %s\n' "$*" >&2; }

binary=${1:-target/release/dnswall}
[ "$(id -u)" = 0 ] || fail "booting a container needs root: sudo $0 $*"
[ -x "$binary" ] || fail "$binary is not there; build it with: cargo xtask build"
for program in debootstrap systemd-nspawn findmnt python3; do
    command -v "$program" >/dev/null || fail "$program is missing; on Debian: apt-get install debootstrap systemd-container util-linux python3"
done
cgroup2=$(findmnt --noheadings --first-only --types cgroup2 --output TARGET) || fail "cgroup v2 is not mounted here"

work=$PWD/target/try-systemd
base=$work/base
root=$work/root
bpf=$work/bpf
cgroup=$cgroup2/dnswall-try-$$
mkdir -p "$work" "$bpf"

if [ ! -e "$base/usr/lib/systemd/systemd" ]; then
    say "making a Debian 12 in $base"
    rm -rf "$base"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,iproute2 bookworm "$base"
fi

clean() {
    status=$?
    trap - EXIT INT TERM
    if [ -d "$cgroup" ]; then
        # The container is ours and so is everything in its subtree.
        [ ! -e "$cgroup/cgroup.kill" ] || echo 1 >"$cgroup/cgroup.kill" || true
        for _ in $(seq 50); do grep -q 'populated 0' "$cgroup/cgroup.events" && break; sleep 0.1; done
        # On a hybrid host nspawn makes a directory of the same name in version 1's hierarchies.
        for directory in "$cgroup" /sys/fs/cgroup/*/"${cgroup##*/}"; do
            [ ! -d "$directory" ] || find "$directory" -depth -type d -exec rmdir {} \; 2>/dev/null || true
        done
    fi
    # The pins go with their file system, and the wall with its pins.
    ! mountpoint -q "$bpf" || umount "$bpf"
    rm -rf "$root"
    exit "$status"
}
trap clean EXIT INT TERM

say "setting up as docs/deployment.md says"
rm -rf "$root"
cp -a "$base" "$root"
install -m 0755 "$binary" "$root/usr/bin/dnswall"
# The next version: the same program with another object file in it, as its digest says (a byte of the ELF header that
# nobody reads is different).
python3 - "$binary" "$root/usr/bin/dnswall.next" <<'PYTHON'
import pathlib, re, sys

binary = bytearray(pathlib.Path(sys.argv[1]).read_bytes())
found = [match.start() for match in re.finditer(rb"\x7fELF\x02\x01\x01\x00\x00.{7}\x01\x00\xf7\x00", binary, re.S)]
assert len(found) == 1, f"object files in the binary: {found}"
binary[found[0] + 8] = 1
pathlib.Path(sys.argv[2]).write_bytes(binary)
PYTHON
chmod 0755 "$root/usr/bin/dnswall.next"
install -D -m 0644 deploy/systemd/dnswall.service "$root/etc/systemd/system/dnswall.service"
install -D -m 0644 deploy/systemd/sysusers.d/dnswall.conf "$root/etc/sysusers.d/dnswall.conf"
install -D -m 0644 deploy/systemd/tmpfiles.d/dnswall.conf "$root/etc/tmpfiles.d/dnswall.conf"
install -D -m 0644 deploy/agent.toml "$root/etc/dnswall/agent.toml"
install -D -m 0644 deploy/policy.toml "$root/etc/dnswall/policy.toml"
ln -s /etc/systemd/system/dnswall.service "$root/etc/systemd/system/multi-user.target.wants/dnswall.service"
# The wall binds the container and nothing else; on a host the agent finds the whole by itself.
mkdir -p "$root/etc/systemd/system/dnswall.service.d"
cat >"$root/etc/systemd/system/dnswall.service.d/subtree.conf" <<UNIT
[Service]
ExecStart=
ExecStart=/usr/bin/dnswall agent run --config /etc/dnswall/agent.toml --cgroup /sys/fs/cgroup/${cgroup##*/}/payload
UNIT
install -m 0755 deploy/try-inside.sh "$root/try"
cat >"$root/etc/systemd/system/try.service" <<'UNIT'
[Unit]
After=dnswall.service dbus.service
Wants=dbus.service
[Service]
Type=oneshot
StandardOutput=append:/try.log
StandardError=inherit
ExecStart=/try
ExecStopPost=-/bin/sh -c 'journalctl --no-pager --unit dnswall.service'
ExecStopPost=/bin/systemctl --no-block poweroff
UNIT
ln -s /etc/systemd/system/try.service "$root/etc/systemd/system/multi-user.target.wants/try.service"

mount -t bpf -o mode=0700 none "$bpf"
mkdir "$cgroup"
say "booting"
(
    echo "$BASHPID" >"$cgroup/cgroup.procs"
    # No cgroup namespace: the agent wants to see the root of the hierarchy, as it does on a host.
    SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_NSPAWN_USE_CGNS=0 exec timeout 120 systemd-nspawn --quiet --directory="$root" --register=no \
        --keep-unit --boot --console=pipe --private-network --capability=all \
        --system-call-filter="bpf perf_event_open" --bind="$bpf:/sys/fs/bpf" </dev/null >"$work/console.log" 2>&1
) || say "the container ended with status $? (console: $work/console.log)"

[ -s "$root/try.log" ] || fail "it never got to the trial; the console is in $work/console.log"
cat "$root/try.log"
grep -q '^TRIED$' "$root/try.log" || fail "the unit does not do what it should; see above"
say "the unit works"
