"""A server of lists that does as it is told: plan.json says what the next answers are, requests.ndjson has what was asked.

Arguments: directory, address, certificate or "-" for plain http.
"""

import gzip
import http.server
import json
import os
import ssl
import sys
import time

DIRECTORY, ADDRESS, CERTIFICATE = sys.argv[1:4]

class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with open(os.path.join(DIRECTORY, "plan.json")) as file:
            plan = json.load(file)
        with open(os.path.join(DIRECTORY, "requests.ndjson"), "a") as file:
            names = ["If-None-Match", "If-Modified-Since", "Accept-Encoding", "Authorization", "User-Agent", "Accept"]
            asked = {name: self.headers[name] for name in names if self.headers[name]}
            file.write(json.dumps({"path": self.path, **asked}) + "\n")
        plan = plan.get(self.path, plan)
        self.close_connection = True
        try:
            self.obey(plan)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            pass

    def obey(self, plan):
        how = plan.get("how", "whole")
        if how == "silent":
            time.sleep(60)
            return
        tag = plan.get("etag")
        if tag and self.headers["If-None-Match"] == tag:
            self.send_response(304)
            self.end_headers()
            return
        with open(os.path.join(DIRECTORY, plan.get("body", "body")), "rb") as file:
            body = file.read()
        if how == "bomb":
            body = gzip.compress(b"\0" * (1 << 24)) * 64
        if how == "gzip":
            body = gzip.compress(body)
        if how == "gzip-cut":
            body = gzip.compress(body)[:-9]
        self.send_response(plan.get("status", 200))
        for name, value in plan.get("headers", {}).items():
            self.send_header(name, value)
        if tag:
            self.send_header("ETag", tag)
        if how.startswith("gzip"):
            self.send_header("Content-Encoding", "gzip")
        if how.startswith("chunked"):
            self.send_header("Transfer-Encoding", "chunked")
        elif how != "endless":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        half = len(body) // 2
        if how == "cut":
            self.wfile.write(body[:half])
        elif how == "chunked":
            self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        elif how == "chunked-cut":
            self.wfile.write(b"%x\r\n%b\r\n" % (len(body), body))
        elif how == "slow":
            for byte in body:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(0.2)
        elif how == "half-then-wait":
            self.wfile.write(body[:half])
            self.wfile.flush()
            open(os.path.join(DIRECTORY, "half-sent"), "w").close()
            time.sleep(60)
        else:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        # Clients that do not trust the certificate leave in the middle.
        pass


def main():
    host, port = ADDRESS.rsplit(":", 1)
    server = Server((host, int(port)), Answer, bind_and_activate=False)
    server.allow_reuse_address = True
    server.server_bind()
    server.server_activate()
    if CERTIFICATE != "-":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE + ".pem", CERTIFICATE + ".key")
        # Without a handshake in the loop that accepts: a client that leaves in the middle is its own thread's trouble.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    ready = os.path.join(DIRECTORY, "port")
    with open(ready + ".new", "w") as file:
        file.write(str(server.server_address[1]))
    os.rename(ready + ".new", ready)
    server.serve_forever()


main()
