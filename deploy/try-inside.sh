#!/bin/sh
# What deploy/try-systemd.sh asks of the unit once its container has booted. Runs as root, inside, by /bin/sh.
# Each line that begins with "ok" is one promise of docs/deployment.md; the first that is broken ends it.
set -eu

fail() { echo "BROKEN: $*"; exit 1; }
links() { dnswall status --output json | sed -n 's/.*"link_id": *\([0-9]*\).*/\1/p' | tr "\n" " "; }
# Somebody else's unit opens a connection to a place that no rule names; gives what the shell says of it.
attempt() {
    systemd-run --quiet --wait --pipe --collect --unit="$1" --uid=nobody \
        timeout 1 "$2" -c 'exec 3<>/dev/tcp/192.0.2.9/443' 2>&1 || true
}
refused() { attempt victim.service /bin/bash | grep -q 'Operation not permitted'; }

# A way out, so that there is something to refuse: nobody is at the other end.
ip link add way-out type veth peer name nobody
ip address add 192.0.2.1/24 dev way-out
ip link set nobody up
ip link set way-out up

systemctl is-active --quiet dnswall.service || fail "not active: $(systemctl --no-pager --full status dnswall.service)"
[ "$(systemctl show --value --property=User dnswall.service)" = dnswall ] || fail "not the agent's own user"
dnswall status
dnswall doctor || fail "doctor: exit code $?"
first=$(links)
[ "$(echo "$first" | wc -w)" = 7 ] || fail "hooks: $first"
echo "ok active (notify), as user dnswall, links $first"

! refused || fail "audit mode refuses"
for _ in 1 2 3 4 5 6 7 8 9 10; do
    alert=$(grep '"destination":"192.0.2.9"' /var/log/dnswall/alerts.jsonl | head -n 1) && break || sleep 0.5
done
echo "$alert"
for part in '"would-deny"' '"unit":"victim.service"' '"exe":"/usr/bin/bash"' '"user":"nobody"'; do
    case $alert in *"$part"*) ;; *) fail "the alert lacks $part" ;; esac
done
echo "ok audit mode passes it and tells who it was: another user's process, its unit and program"

mkdir -m 0700 /opt/private && cp /bin/bash /opt/private/tool
cat >/etc/dnswall/policy.toml <<'POLICY'
version = 1
mode = "enforce"
[dns]
resolvers = ["192.0.2.2"]
[[allow]]
name = "by unit"
to = ["192.0.2.9"]
from = [{ unit = "orders.service" }]
[[allow]]
name = "by program, where only root may look"
to = ["192.0.2.9"]
from = [{ exe = "/opt/private/tool" }]
POLICY
dnswall policy check /etc/dnswall/policy.toml
dnswall policy apply /etc/dnswall/policy.toml
refused || fail "enforce does not refuse"
attempt orders.service /bin/bash | grep -q 'Operation not permitted' && fail "the unit that may is refused"
timeout 1 /opt/private/tool -c 'exec 3<>/dev/tcp/192.0.2.9/443' 2>&1 | grep 'Operation not permitted' && fail "the program that may is refused"
echo "ok enforce refuses with EPERM, and lets the unit and the program pass that a rule names"

systemctl kill --signal=KILL dnswall.service
refused || fail "the wall fell with its agent"
until systemctl is-active --quiet dnswall.service; do sleep 0.2; done
[ "$(links)" = "$first" ] || fail "other links after a kill: $(links)"
dnswall status --output json | grep -q '"mode": "enforce"' || fail "another policy after a kill"
systemctl restart dnswall.service
[ "$(links)" = "$first" ] || fail "other links after a restart: $(links)"
refused || fail "refuses no more after a restart"
echo "ok killed, started again by systemd, restarted: the same links, the same policy, refused throughout"

programs() { dnswall status --output json | sed -n 's/.*"program_id": *\([0-9]*\).*/\1/p' | tr '\n' ' '; }
old=$(programs)
mv /usr/bin/dnswall.next /usr/bin/dnswall
systemctl restart dnswall.service
[ "$(links)" = "$first" ] || fail "other links after an upgrade: $(links)"
[ "$(programs)" != "$old" ] || fail "the old programs still run after an upgrade"
refused || fail "refuses no more after an upgrade"
echo "ok upgraded: the same links run the new version's programs"

systemctl stop dnswall.service
refused || fail "the wall fell when the unit stopped"
code=0; dnswall status || code=$?
[ "$code" = 5 ] || fail "status without an agent: exit code $code"
dnswall agent detach
! refused || fail "refuses after detach"
echo "ok stopped, the wall stands; detach, without an agent, takes it down"
systemd-analyze security --no-pager dnswall.service | tail -n 1
echo TRIED
