"""A server that takes alerts over HTTP/1.1, as the products that it stands for do.

It does as plan.json says (see plan.rs), which it reads before each request, and adds to log.ndjson what it was asked, what it
answered, and what it took. Each product has a file of its own beside this one.

Arguments: directory, address:port, certificate or "-" for plain http, authority of clients or "-" for no question.
"""

import http.server
import json
import os
import socket
import socketserver
import ssl
import sys
import threading
import time
import zlib

import elastic
import hook
import otlp
import splunk
from guard import guarded

# A body of more is refused, whatever the plan says.
BODY_BYTES_MAX = 64 << 20
# A silent answer ends with the client's patience, or with this.
SILENCE_SECS = 60


class Record:
    """The log, and the plan with what of it is used up."""

    def __init__(self, directory):
        self.directory = directory
        self.lock = threading.RLock()
        self.serial = None
        self.used = {}

    def log(self, kind, **more):
        line = json.dumps({"kind": kind, "at": time.time(), **more}) + "\n"
        with self.lock, open(os.path.join(self.directory, "log.ndjson"), "a") as file:
            file.write(line)

    def taken(self, path):
        """What was taken at this path so far, by earlier processes, too."""
        try:
            with open(os.path.join(self.directory, "log.ndjson")) as file:
                lines = [json.loads(line) for line in file]
        except FileNotFoundError:
            return []
        return [line for line in lines if line["kind"] == "taken" and line["path"] == path]

    def take(self, path, document, **more):
        self.log("taken", path=path, document=document, **more)

    def plan(self):
        with self.lock:
            with open(os.path.join(self.directory, "plan.json")) as file:
                plan = json.load(file)
            if plan["serial"] != self.serial:
                self.serial = plan["serial"]
                self.used = {}
            return plan

    def next(self, name, steps, fits=lambda step: True):
        """The first step that fits and is not used up; it is used once more by that."""
        with self.lock:
            for number, step in enumerate(steps):
                used = self.used.get((name, number), 0)
                if fits(step) and (step["times"] is None or used < step["times"]):
                    self.used[name, number] = used + 1
                    return step
        return None


class Refused(Exception):
    """An answer that is given before the product sees the request."""

    def __init__(self, status, text):
        self.status, self.text = status, text


def json_answer(status, value, **headers):
    """What a product gives: status, headers, body."""
    return status, {"Content-Type": "application/json", **headers}, json.dumps(value).encode()


def product_of(path):
    if path.startswith("/services/collector"):
        return splunk
    if path == "/_bulk" or path.endswith("/_bulk"):
        return elastic
    if path == "/v1/logs":
        return otlp
    if path == "/hook" or path.startswith("/hook/"):
        return hook
    return None


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_GET(self):
        self.serve()

    def do_POST(self):
        self.serve()

    def do_PUT(self):
        self.serve()

    def serve(self):
        try:
            self.obey()
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.close_connection = True

    def obey(self):
        self.at_path, _, self.query = self.path.partition("?")
        self.body = b""
        plan = self.server.record.plan()
        fault = self.server.record.next(self.at_path, plan["faults"].get(self.at_path, []))
        how = fault["how"] if fault else "whole"
        if how == "cut-request":
            self.rfile.read(int(self.headers.get("Content-Length", 2)) // 2)
            self.note(None)
            self.leave()
            return
        try:
            self.body = self.unpacked(self.whole_body(plan))
            status, headers, body = self.answer(plan, fault)
        except Refused as refused:
            status, headers, body = json_answer(refused.status, {"error": refused.text})
            # What is left of the body would be taken for the next request.
            self.close_connection = True
        self.note(None if how == "silent" else status)
        if fault:
            time.sleep(fault["delay_ms"] / 1000)
            if fault["retry_after"] is not None:
                headers = {**headers, "Retry-After": fault["retry_after"]}
        if how == "silent":
            time.sleep(SILENCE_SECS)
            self.close_connection = True
            return
        self.write(status, headers, body, cut=how == "cut-answer")

    def answer(self, plan, fault):
        if fault and fault["status"] is not None:
            told = f"{self.headers['Authorization']} {self.query}" if plan["echo"] else ""
            return json_answer(fault["status"], {"error": f"as planned {told}".rstrip()})
        product = product_of(self.at_path)
        if product is None:
            return json_answer(404, {"error": "nothing is here"})
        if self.command == "GET" and product is not splunk:
            return json_answer(405, {"error": "only POST"}, Allow="POST")
        wanted = plan["authorization"]
        if product is not splunk and wanted is not None and self.headers["Authorization"] != wanted:
            return json_answer(401, {"error": "not authorized"}, **{"WWW-Authenticate": "Bearer"})
        if plan["poison"] is not None and plan["poison"].encode() in self.body:
            return json_answer(400, {"error": "this does not go in"})
        return product.answer(self, plan, self.server.record)

    def whole_body(self, plan):
        limit = min(plan["body_bytes_max"] or BODY_BYTES_MAX, BODY_BYTES_MAX)
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b""
            while True:
                size = int(self.rfile.readline(32).split(b";")[0], 16)
                if len(body) + size > limit:
                    raise Refused(413, "too large")
                body += self.rfile.read(size)
                self.rfile.readline(8)
                if size == 0:
                    return body
        size = int(self.headers.get("Content-Length") or 0)
        if size > limit:
            # It is still read, so that the client sees the answer and not an end in the middle.
            while size > 0 and (part := self.rfile.read(min(size, 1 << 16))):
                size -= len(part)
            raise Refused(413, "too large")
        body = self.rfile.read(size)
        if len(body) < size:
            raise ConnectionResetError
        return body

    def unpacked(self, body):
        encoding = self.headers.get("Content-Encoding", "identity").lower()
        if encoding == "identity":
            return body
        if encoding != "gzip":
            raise Refused(415, "not this encoding")
        unpacker = zlib.decompressobj(wbits=31)
        try:
            body = unpacker.decompress(body, BODY_BYTES_MAX)
        except zlib.error:
            raise Refused(400, "not gzip") from None
        if not unpacker.eof or unpacker.unused_data:
            raise Refused(400, "not one whole gzip")
        return body

    def note(self, status):
        of_client = getattr(self.connection, "getpeercert", lambda: None)() or {}
        subject = {key: value for part in of_client.get("subject", ()) for key, value in part}
        self.server.record.log(
            "request",
            method=self.command,
            path=self.at_path,
            query=self.query,
            headers=[[name.lower(), value] for name, value in self.headers.items()],
            body=self.body.hex(),
            status=status,
            client=subject.get("commonName"),
        )

    def write(self, status, headers, body, cut):
        if cut:
            # Whoever has the status may make do with it.
            self.wfile.write(b"HTTP/1.1 ")
            self.leave()
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def leave(self):
        self.close_connection = True
        self.wfile.flush()
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def server_bind(self):
        # Not as its parent does, which asks a resolver for this host's name.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, *_):
        # Clients that do not trust the certificate leave in the middle.
        pass


def main():
    directory, address, certificate, authority = sys.argv[1:5]
    host, port = address.rsplit(":", 1)
    record = Record(directory)
    elastic.begin(record)
    server = Server((host, int(port)), Answer)
    server.record = record
    server.socket = guarded(server.socket, certificate, authority)
    server.serve_forever()


if __name__ == "__main__":
    main()
