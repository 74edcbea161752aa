"""Elasticsearch's bulk interface: pairs of lines, an action and its document, and an answer for each of them.

A document that was created stays, through restarts, too; to create it again is a conflict, by which one that was sent twice is
known.
"""

import json
import threading
import uuid

TYPES = ("application/x-ndjson", "application/json", "application/vnd.elasticsearch+x-ndjson")
lock = threading.Lock()
# Versions of documents, by index and id.
versions = {}


class Malformed(Exception):
    """Why the whole request is refused."""


def begin(record):
    """Remembers what earlier processes have taken."""
    for document in record.taken("/_bulk"):
        key = document["index"], document["id"]
        versions[key] = versions.get(key, 0) + 1


def answer(request, plan, record):
    kind = request.headers.get("Content-Type", "").split(";")[0].strip()
    if kind not in TYPES:
        return whole(406, "media_type_header_exception", f"Content-Type header [{kind}] is not supported")
    index = request.at_path.strip("/").removesuffix("_bulk").strip("/")
    try:
        pairs = list(parse(request.body, index))
    except Malformed as why:
        return whole(400, "illegal_argument_exception", str(why))
    with lock:
        items = [{action: item(action, meta, document, plan, record)} for action, meta, document in pairs]
    errors = any(result["status"] >= 400 for item in items for result in item.values())
    body = json.dumps({"took": 1, "errors": errors, "items": items}).encode()
    return 200, {"Content-Type": "application/json", "X-Elastic-Product": "Elasticsearch"}, body


def whole(status, kind, reason):
    error = {"root_cause": [{"type": kind, "reason": reason}], "type": kind, "reason": reason}
    return status, {"Content-Type": "application/json"}, json.dumps({"error": error, "status": status}).encode()


def parse(body, index):
    """Action, its fields, and the document's line."""
    if not body:
        raise Malformed("request body is required")
    if not body.endswith(b"\n"):
        raise Malformed("The bulk request must be terminated by a newline [\\n]")
    lines = body[:-1].split(b"\n")
    number = 0
    while number < len(lines):
        action, meta = action_of(lines[number], number + 1)
        if number + 1 == len(lines):
            raise Malformed(f"Malformed action/metadata line [{number + 1}], no document follows")
        index_of = meta.get("_index", index)
        if not index_of:
            raise Malformed("index is missing")
        yield action, {"_index": index_of, "_id": meta.get("_id") or uuid.uuid4().hex}, lines[number + 1]
        number += 2


def action_of(line, number):
    try:
        value = json.loads(line)
        ((action, meta),) = value.items()
    except (ValueError, AttributeError):
        raise Malformed(f"Malformed action/metadata line [{number}]") from None
    if action not in ("create", "index") or not isinstance(meta, dict):
        raise Malformed(f"Malformed action/metadata line [{number}], expected create or index but found [{action}]")
    return action, meta


def item(action, meta, line, plan, record):
    key = meta["_index"], meta["_id"]
    refusal = record.next("elastic", plan["elastic"]["refuse"], lambda step: step["id"] in (None, meta["_id"]))
    if refusal:
        return error(meta, refusal["status"], *REASONS.get(refusal["status"], ("exception", "as planned")))
    try:
        if not isinstance(json.loads(line, parse_constant=refuse_constant), dict):
            raise ValueError
    except ValueError:
        return error(meta, 400, "mapper_parsing_exception", "failed to parse")
    version = versions.get(key, 0)
    if action == "create" and version:
        reason = f"[{meta['_id']}]: version conflict, document already exists (current version [{version}])"
        return error(meta, 409, "version_conflict_engine_exception", reason)
    versions[key] = version + 1
    record.take("/_bulk", line.decode(errors="replace"), id=meta["_id"], index=meta["_index"])
    return {
        **meta,
        "_version": version + 1,
        "result": "updated" if version else "created",
        "_shards": {"total": 2, "successful": 1, "failed": 0},
        "_seq_no": len(versions),
        "_primary_term": 1,
        "status": 200 if version else 201,
    }


def error(meta, status, kind, reason):
    return {**meta, "status": status, "error": {"type": kind, "reason": reason, "index": meta["_index"]}}


def refuse_constant(_):
    raise ValueError


REASONS = {
    429: ("es_rejected_execution_exception", "rejected execution of coordinating operation"),
    400: ("mapper_parsing_exception", "failed to parse field"),
    503: ("unavailable_shards_exception", "primary shard is not active"),
}
