#!/usr/bin/env bash
# Tries the DaemonSet's security context: runc, with exactly the capabilities, mounts and namespaces of the manifest.
#
#   deploy/try-container.sh [BINARY]        (default: target/release/dnswall; as root)
#
# As in a cluster the container has a cgroup namespace of its own and sees the host's tree at /host/cgroup. Unlike
# there, the wall binds a subtree made for the trial, and the pins are on a BPF file system of the trial's own. The image
# has no /etc/passwd and a /usr of its own, so whatever a user or a program is called is the host's name for it.
# Needs: runc, python3, cgroup v2 somewhere, and the root file system that deploy/try-systemd.sh leaves behind.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
say() { printf '==> %s\n' "$*" >&2; }

binary=$(realpath "${1:-target/release/dnswall}")
[ "$(id -u)" = 0 ] || fail "starting a container needs root: sudo $0 $*"
[ -x "$binary" ] || fail "$binary is not there; build it with: cargo xtask build"
for program in runc python3 findmnt; do
    command -v "$program" >/dev/null || fail "$program is missing; on Debian: apt-get install runc python3 util-linux"
done
base=$PWD/target/try-systemd/base
[ -d "$base/usr/bin" ] || fail "$base is missing; deploy/try-systemd.sh makes it"
cgroup2=$(findmnt --noheadings --first-only --types cgroup2 --output TARGET) || fail "cgroup v2 is not mounted here"

name=dnswall-try-$$
work=$PWD/target/try-container
bundle=$work/bundle
mkdir -p "$bundle/config" "$bundle/state" "$bundle/run" "$work/bpf"
subtree=$cgroup2/$name

clean() {
    status=$?
    trap - EXIT INT TERM
    runc delete --force "$name" 2>/dev/null || true
    [ ! -d "$subtree" ] || rmdir "$subtree" || true
    ! mountpoint -q "$work/bpf" || umount "$work/bpf"
    rm -rf "$bundle" "$work/tools" "$work/link"
    exit "$status"
}
trap clean EXIT INT TERM

# As a container the agent finds the host's root through pid 1, if this machine lets anybody look at that.
host_root=
if ! readlink /proc/1/root >/dev/null; then
    say "this machine lets nobody look at pid 1: tried with / mounted at /host/root, and named by host-root"
    host_root=/host/root
fi

mkdir "$subtree"
mount -t bpf -o mode=0700 none "$work/bpf"

say "making a container of deploy/kubernetes/daemonset.yaml"
SUBTREE=$name HOST_ROOT=$host_root BASE=$base BINARY=$binary CGROUP2=$cgroup2 BPF=$work/bpf python3 - "$bundle" <<'PYTHON'
import json, os, pathlib, re, sys, textwrap

bundle = pathlib.Path(sys.argv[1])
manifest = pathlib.Path("deploy/kubernetes/daemonset.yaml").read_text()

# The two files of the ConfigMap, and the capabilities, as the manifest has them.
for name in ("agent.toml", "policy.toml"):
    block = re.search(rf"^  {re.escape(name)}: \|\n((?:    .*\n|\n)+)", manifest, re.M).group(1)
    text = textwrap.dedent(block)
    if name == "agent.toml" and os.environ["HOST_ROOT"]:
        text = f'host-root = "{os.environ["HOST_ROOT"]}"\n' + text
    (bundle / "config" / name).write_text(text)
capabilities = re.findall(r"^\s+- ([A-Z_]+) +#", manifest, re.M)
assert "BPF" in capabilities and "privileged: false" in manifest, capabilities
numbers = {"DAC_READ_SEARCH": 2, "NET_ADMIN": 12, "SYS_PTRACE": 19, "SYS_RESOURCE": 24, "PERFMON": 38, "BPF": 39}
ours = int(re.search(r"CapBnd:\t(\w+)", pathlib.Path("/proc/self/status").read_text()).group(1), 16)
for lacking in [name for name in capabilities if not ours >> numbers[name] & 1]:
    print(f"==> this machine itself has no CAP_{lacking}: tried without", file=sys.stderr)
    capabilities.remove(lacking)
capabilities = ["CAP_" + capability for capability in capabilities]
print("==> capabilities: " + " ".join(capabilities), file=sys.stderr)


def bind(source, target, *options):
    return {"destination": target, "type": "bind", "source": str(source), "options": ["rbind", *options]}


host_root = [bind("/", os.environ["HOST_ROOT"], "ro", "rslave")] if os.environ["HOST_ROOT"] else []
config = {
    "ociVersion": "1.0.2",
    "process": {
        "user": {"uid": 0, "gid": 0},
        "cwd": "/",
        "env": ["PATH=/usr/bin:/bin"],
        "noNewPrivileges": True,
        "capabilities": {kind: capabilities for kind in ("bounding", "effective", "permitted")},
        "args": [
            "/usr/bin/dnswall", "agent", "run", "--config", "/etc/dnswall/agent.toml",
            "--policy", "/etc/dnswall/policy.toml", "--cgroup", "/host/cgroup/" + os.environ["SUBTREE"],
        ],
    },
    "root": {"path": os.environ["BASE"], "readonly": True},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro", "nosuid", "nodev", "noexec"]},
        {"destination": "/host", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "/var/lib", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        bind(os.environ["BINARY"], "/usr/bin/ldd", "ro"),
        bind(os.environ["CGROUP2"], "/host/cgroup", "ro"),
        *host_root,
        bind(os.environ["BPF"], "/sys/fs/bpf", "rw"),
        bind(bundle / "config", "/etc/dnswall", "ro"),
        bind(bundle / "state", "/var/lib/dnswall", "rw"),
        bind(bundle / "run", "/run/dnswall", "rw"),
    ],
    "linux": {
        # hostPID and hostNetwork: no "pid", no "network". The cgroup namespace is private, as a runtime makes it.
        "namespaces": [{"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"}],
        "cgroupsPath": "/" + os.environ["SUBTREE"] + "-agent",
        "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    },
}
# The root file system is read-only and has no dnswall; an existing file is the place where the binary appears.
config["process"]["args"][0] = "/usr/bin/ldd"
(bundle / "config.json").write_text(json.dumps(config, indent=2))
PYTHON

start() {
    runc run --detach --bundle "$bundle" "$name" >>"$work/agent.log" 2>&1 </dev/null || { cat "$work/agent.log"; fail "it does not start"; }
    for _ in $(seq 100); do
        ! runc exec "$name" /usr/bin/ldd status --output json >"$work/status.json" 2>"$work/status.log" || return 0
        sleep 0.2
    done
    cat "$work/status.log" "$work/agent.log"
    fail "the agent does not answer"
}
links() { sed -n 's/.*"link_id": *\([0-9]*\).*/\1/p' "$work/status.json" | tr '\n' ' '; }
# A process in the subtree, with a network of its own in which nobody answers, opens a connection: as this user, with
# this shell.
attempt() {
    (
        echo "$BASHPID" >"$subtree/cgroup.procs"
        exec unshare --net sh -ec '
            ip link add way-out type veth peer name nobody
            ip address add 192.0.2.1/24 dev way-out
            ip link set nobody up
            ip link set way-out up
            timeout 1 setpriv --reuid="$1" --clear-groups "$2" -c "exec 3<>/dev/tcp/192.0.2.9/443"' - "$1" "$2"
    ) 2>&1 || true
}
refused() { attempt "$@" | grep -q 'Operation not permitted'; }

: >"$work/agent.log"
say "starting it"
start
runc exec "$name" /usr/bin/ldd doctor || fail "doctor: exit code $?"
runc exec "$name" /usr/bin/ldd status
first=$(links)
[ "$(echo "$first" | wc -w)" = 7 ] || fail "hooks: $first"
[ -d "$work/bpf/dnswall" ] || fail "the agent runs, and nothing is pinned"
say "it runs, links $first"

! refused nobody /bin/bash || fail "audit mode refuses"
for _ in $(seq 20); do ! grep -q '"destination":"192.0.2.9"' "$work/agent.log" || break; sleep 0.2; done
alert=$(grep -m 1 '"destination":"192.0.2.9"' "$work/agent.log") || { cat "$work/agent.log"; fail "no alert"; }
echo "$alert"
for part in '"would-deny"' "\"cgroup\":\"/$name\"" '"exe":"/usr/bin/bash"' '"user":"nobody"'; do
    case $alert in *"$part"*) ;; *) fail "the alert lacks $part" ;; esac
done
say "audit mode reports it, with cgroup, and program and user by the host's names"

mkdir -m 0755 "$work/tools"
cp /bin/bash "$work/tools/bash"
ln -s "$work/tools" "$work/link"
cat >"$bundle/config/names.toml" <<POLICY
version = 1
mode = "enforce"
[dns]
resolvers = ["192.0.2.2"]
[[allow]]
name = "by user"
to = ["192.0.2.9"]
from = [{ user = "nobody", exe = "/bin/bash" }]
[[allow]]
name = "by program, through a link of the host's"
to = ["192.0.2.9"]
from = [{ exe = "$work/link/b*" }]
POLICY
runc exec "$name" /usr/bin/ldd policy apply /etc/dnswall/names.toml || fail "the policy is refused"
! refused nobody /bin/bash || fail "the user that may is refused"
! refused root "$work/link/bash" || fail "the program that may is refused"
refused root /bin/bash || fail "enforce does not refuse"
say "enforce lets the host's user and program pass that a rule names, and no other"

runc delete --force "$name"
start
[ "$(links)" = "$first" ] || fail "other links after a new container: $(links)"
say "the next container took the wall over: the same links"
runc delete --force "$name"
"$binary" agent detach --pins "$work/bpf/dnswall"
say "the manifest's security context works"
