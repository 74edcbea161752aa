"""Splunk's HTTP Event Collector: events one after another in a body, and acknowledgements that have to be asked for.

200 says that a body looks right. With acknowledgement, its events count as indexed only after a while, and the poll that is
first told so is the only one: an id that is unknown, of another channel or already told is `false`. A collector that ends
before an event is indexed has lost it.
"""

import base64
import json
import re
import threading
import urllib.parse

EVENT_PATHS = ("/services/collector", "/services/collector/event", "/services/collector/event/1.0")
ACK_PATHS = ("/services/collector/ack", "/services/collector/ack/1.0")
HEALTH_PATHS = ("/services/collector/health", "/services/collector/health/1.0")
CHANNEL = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
SPACE = re.compile(r"[ \t\r\n]*")
# Seconds since 1970, with a fraction or without.
SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")


class Acks:
    """Ids that were given to each channel, and whether their events are indexed by now."""

    def __init__(self):
        self.lock = threading.Lock()
        self.given = {}
        self.indexed = {}

    def give(self, channel):
        with self.lock:
            number = self.given.get(channel, 0)
            self.given[channel] = number + 1
            return number

    def index(self, channel, number):
        with self.lock:
            self.indexed.setdefault(channel, set()).add(number)

    def tell(self, channel, number):
        with self.lock:
            known = self.indexed.get(channel, set())
            told = number in known
            known.discard(number)
            return told


acks = Acks()


class Number(float):
    """A number with a fraction or an exponent, as it was written."""

    def __new__(cls, text):
        number = super().__new__(cls, text)
        number.text = text
        return number


class Wrong(Exception):
    """What an event is wrong in."""

    def __init__(self, text, code):
        self.text, self.code = text, code


def answer(request, plan, record):
    plan = plan["splunk"]
    if request.at_path in HEALTH_PATHS:
        return said(200, "HEC is healthy", 17)
    if request.command != "POST":
        return said(405, "Method Not Allowed", 404)
    refused = authorize(request.headers["Authorization"], plan["token"])
    if refused:
        return refused
    query = urllib.parse.parse_qs(request.query)
    channel = request.headers["X-Splunk-Request-Channel"] or (query.get("channel") or [None])[0]
    if plan["acknowledges"] or request.at_path in ACK_PATHS:
        if channel is None:
            return said(400, "Data channel is missing", 10)
        if not CHANNEL.fullmatch(channel):
            return said(400, "Invalid data channel", 11)
    if request.at_path in ACK_PATHS:
        return poll(request.body, channel, plan)
    if request.at_path not in EVENT_PATHS:
        return said(404, "The requested URL was not found on this server.", 404)
    return collect(request, channel, plan, record)


def said(status, text, code, **more):
    return status, {"Content-Type": "application/json"}, json.dumps({"text": text, "code": code, **more}).encode()


def authorize(header, token):
    if not header:
        return said(401, "Token is required", 2)
    scheme, _, value = header.partition(" ")
    if scheme == "Basic":
        # Any user, the token as password.
        try:
            value = base64.b64decode(value, validate=True).decode().partition(":")[2]
        except ValueError:
            return said(401, "Invalid authorization", 3)
    elif scheme != "Splunk":
        return said(401, "Invalid authorization", 3)
    return None if value == token else said(403, "Invalid token", 4)


def poll(body, channel, plan):
    if not plan["acknowledges"]:
        return said(400, "ACK is disabled", 14)
    try:
        asked = json.loads(body)["acks"]
        asked = {str(number): acks.tell(channel, int(number)) for number in asked}
    except (ValueError, TypeError, KeyError):
        return said(400, "Invalid data format", 6)
    return 200, {"Content-Type": "application/json"}, json.dumps({"acks": asked}).encode()


def collect(request, channel, plan, record):
    try:
        text = request.body.decode()
    except UnicodeDecodeError:
        return said(400, "Invalid data format", 6, **{"invalid-event-number": 0})
    events, wrong = [], None
    try:
        for event in parse(text, plan["indexes"]):
            events.append(event)
    except Wrong as found:
        wrong = found
    if not events and not wrong:
        return said(400, "No data", 5)
    number = acks.give(channel) if plan["acknowledges"] and not wrong else None
    index(request.at_path, events, channel, number, plan, record)
    if wrong:
        # Those before it are indexed all the same.
        return said(400, wrong.text, wrong.code, **{"invalid-event-number": len(events)})
    return said(200, "Success", 0, **({} if number is None else {"ackId": number}))


def parse(text, indexes):
    """Each event as it stands in the body."""
    decoder = json.JSONDecoder(parse_constant=refuse_constant, parse_float=Number)
    place = SPACE.match(text, 0).end()
    while place < len(text):
        try:
            event, end = decoder.raw_decode(text, place)
        except ValueError:
            raise Wrong("Invalid data format", 6) from None
        check(event, indexes)
        yield text[place:end]
        place = SPACE.match(text, end).end()


def refuse_constant(_):
    raise ValueError


def check(event, indexes):
    if not isinstance(event, dict):
        raise Wrong("Invalid data format", 6)
    if "event" not in event:
        raise Wrong("Event field is required", 12)
    if event["event"] in ("", None):
        raise Wrong("Event field cannot be blank", 13)
    fields = event.get("fields", {})
    if not isinstance(fields, dict) or any(isinstance(value, dict) for value in fields.values()):
        raise Wrong("Error in handling indexed fields", 15)
    check_time(event.get("time", 0))
    if indexes is not None and "index" in event and event["index"] not in indexes:
        raise Wrong("Incorrect index", 7)


def check_time(value):
    text = getattr(value, "text", str(value))
    if SECONDS.fullmatch(text):
        return
    try:
        float(text)
    except ValueError:
        raise Wrong("Invalid data format", 6) from None
    # 1.5e9 is JSON, and no time (firezone/firezone#14129).
    raise Wrong("Error in handling indexed fields", 15)


def index(path, events, channel, number, plan, record):
    def run():
        for event in events:
            record.take(path, event, channel=channel)
        if number is not None:
            acks.index(channel, number)

    delay = plan["indexed_after_ms"]
    if delay is None:
        return
    if delay == 0:
        run()
        return
    timer = threading.Timer(delay / 1000, run)
    timer.daemon = True
    timer.start()
