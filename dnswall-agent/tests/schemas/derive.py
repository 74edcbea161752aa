#!/usr/bin/env python3
"""Takes the published schemas of OCSF and ECS, gives the parts that the tests of `format` check against.

    pip download --no-deps ocsf-json-schema==1.2.0      # a package that carries OCSF 1.8.0, compiled
    unzip ocsf_json_schema-1.2.0-py3-none-any.whl
    npm pack @elastic/ecs@9.4.0                         # Elastic's own package of ECS 9.4.0
    tar xzf elastic-ecs-9.4.0.tgz
    node -e 'console.log(JSON.stringify(require("./package/build/commonjs/ecs_flat.js").EcsFlat))' > ecs_flat.json
    ./derive.py ocsf_json_schema/ocsf/1.8.0.json ecs_flat.json

Nothing is changed, only left out: descriptions, and what the formats do not use. Of a class or an object of OCSF every
attribute stays, so that a wrong one is found out; of ECS the fields in FIELDS stay.
"""

import json
import pathlib
import sys

OCSF_VERSION, ECS_VERSION = "1.8.0", "9.4.0"
CLASSES = ["detection_finding", "dns_activity", "network_activity"]
OBJECTS = """
    actor analytic attack container device dns_query evidences file finding_info fingerprint firewall_rule image metadata
    network_connection_info network_endpoint observable osint policy process process_entity product sub_technique technique
    user
""".split()
# Attributes of OCSF keep these keys.
KEPT = ["type", "is_array", "requirement", "object_type", "profiles"]
FIELDS = """
    @timestamp message ecs.version
    event.action event.category event.code event.dataset event.end event.id event.kind event.module event.provider
    event.reason event.risk_score event.severity event.start event.type
    network.community_id network.direction network.iana_number network.protocol network.transport network.type
    source.address source.ip source.port destination.address destination.domain destination.ip destination.port
    dns.id dns.question.name dns.question.type dns.type
    process.command_line process.executable process.hash.sha256 process.name process.parent.command_line
    process.parent.executable process.parent.name process.parent.pid process.parent.start process.pid process.start
    user.id user.name
    container.id container.image.name container.image.tag container.name container.runtime host.hostname host.name
    orchestrator.namespace orchestrator.resource.id orchestrator.resource.label orchestrator.resource.name
    orchestrator.resource.type orchestrator.type
    observer.product observer.type observer.vendor observer.version
    rule.category rule.name rule.ruleset rule.version
    threat.feed.name threat.framework threat.indicator.name threat.indicator.type threat.technique.id
    threat.technique.subtechnique.id
    related.hash related.hosts related.ip related.user
""".split()


def attributes(of):
    kept = {}
    for name, attribute in sorted(of["attributes"].items()):
        kept[name] = {key: attribute[key] for key in KEPT if attribute.get(key)}
        if "enum" in attribute:
            kept[name]["enum"] = sorted(attribute["enum"])
        if "@deprecated" in attribute or "deprecated" in attribute:
            kept[name]["deprecated"] = True
    return {"constraints": of.get("constraints") or {}, "attributes": kept}


def ocsf(path):
    whole = json.loads(pathlib.Path(path).read_text())
    assert whole["version"] == OCSF_VERSION, whole["version"]
    types = {
        name: {key: of[key] for key in ["type", "range", "max_len"] if key in of}
        for name, of in sorted(whole["dictionary"]["types"]["attributes"].items())
    }
    return {
        "version": OCSF_VERSION,
        "types": types,
        "classes": {name: {"uid": whole["classes"][name]["uid"]} | attributes(whole["classes"][name]) for name in CLASSES},
        "objects": {name: attributes(whole["objects"][name]) for name in OBJECTS},
    }


def ecs(path):
    whole = json.loads(pathlib.Path(path).read_text())
    fields = {}
    for name in sorted(FIELDS):
        of = whole[name]
        fields[name] = {"type": of["type"], "normalize": of["normalize"]}
        if of.get("required"):
            fields[name]["required"] = True
        if "ignore_above" in of:
            fields[name]["ignore_above"] = of["ignore_above"]
        if "allowed_values" in of:
            fields[name]["allowed_values"] = {
                value["name"]: value.get("expected_event_types", []) for value in of["allowed_values"]
            }
        if "expected_values" in of:
            fields[name]["expected_values"] = of["expected_values"]
    return {"version": ECS_VERSION, "fields": fields}


def lines(value, depth):
    """JSON with a line for each entry down to that depth, so that a difference can be read."""
    if depth == 0 or not isinstance(value, dict) or not value:
        return json.dumps(value, sort_keys=True)
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {lines(of, depth - 1)}" for key, of in value.items()) + "\n}"


if __name__ == "__main__":
    here = pathlib.Path(__file__).parent
    (here / f"ocsf-{OCSF_VERSION}.json").write_text(lines(ocsf(sys.argv[1]), 4) + "\n")
    (here / f"ecs-{ECS_VERSION}.json").write_text(lines(ecs(sys.argv[2]), 2) + "\n")
