"""A collector of OpenTelemetry's logs over HTTP: it takes what is posted as protobuf or JSON, and answers in the same.

What is in the body, its reader decodes (see otlp.rs). The answer is an ExportLogsServiceResponse: without a field, or with its
partial_success (1), which has rejected_log_records (1, a number) and error_message (2, a text).
"""

import json

PROTOBUF = "application/x-protobuf"
JSON = "application/json"


def answer(request, plan, record):
    kind = request.headers.get("Content-Type", "").split(";")[0].strip()
    if kind not in (PROTOBUF, JSON):
        return 415, {"Content-Type": "text/plain"}, b"unsupported media type"
    if kind == JSON:
        try:
            json.loads(request.body)
        except ValueError:
            return 400, {"Content-Type": JSON}, b'{"code":3,"message":"not JSON"}'
    record.take(request.at_path, None)
    partial = record.next("otlp", plan["otlp"]["partial"])
    if kind == JSON:
        said = {}
        if partial:
            # 64-bit numbers are strings in protobuf's JSON.
            said = {"partialSuccess": {"rejectedLogRecords": str(partial["rejected"]), "errorMessage": partial["message"]}}
        return 200, {"Content-Type": JSON}, json.dumps(said).encode()
    body = b""
    if partial:
        body = field(1, field(1, partial["rejected"]) + field(2, partial["message"].encode()))
    return 200, {"Content-Type": PROTOBUF}, body


def field(number, value):
    """A field of a protobuf message: a number, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value):
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])
