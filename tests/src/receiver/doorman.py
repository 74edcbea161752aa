"""Whom a Kafka broker lets in by name: takes a client's and a server's connection, answers the client's SASL in the server's place.

Tansu checks no names where it keeps its records in memory. PLAIN (RFC 4616) and SCRAM (RFC 5802) by the standard's own words;
of Kafka's protocol only the three requests that come before anything else.
"""

import base64
import hashlib
import hmac
import os
import struct

API_VERSIONS, SASL_HANDSHAKE, SASL_AUTHENTICATE = 18, 17, 36
UNSUPPORTED_MECHANISM, AUTHENTICATION_FAILED = 33, 58
FRAME_BYTES_MAX = 1 << 20
ITERATIONS = 4096
HASHES = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}


class Refused(Exception):
    """Why somebody is not let in."""


class Doorman:
    def __init__(self, mechanism, user, password):
        self.mechanism, self.user, self.password = mechanism, user, password

    def admit(self, client, server):
        """Whether the client has shown that it knows the password; until then the server hears of its versions at most."""
        talk = None
        while True:
            frame = take(client)
            key, version, correlation = struct.unpack_from(">hhi", frame)
            if key == API_VERSIONS:
                give(server, frame)
                give(client, take(server))
                continue
            client_id = struct.unpack_from(">h", frame, 8)[0]
            body = frame[10 + max(client_id, 0) :]
            head = struct.pack(">i", correlation)
            if key == SASL_HANDSHAKE:
                (length,) = struct.unpack_from(">h", body)
                is_known = body[2 : 2 + length].decode() == self.mechanism
                name = self.mechanism.encode()
                known = struct.pack(">ih", 1, len(name)) + name
                give(client, head + struct.pack(">h", 0 if is_known else UNSUPPORTED_MECHANISM) + known)
                if not is_known:
                    return False
                talk = self.talk()
                next(talk)
                if version == 0:
                    return self.listen(client, talk)
            elif key == SASL_AUTHENTICATE and talk:
                try:
                    answer, is_in = talk.send(token(body, version))
                    give(client, head + told(version, 0, None, answer))
                    if is_in:
                        return True
                except Refused as why:
                    give(client, head + told(version, AUTHENTICATION_FAILED, str(why), b""))
                    return False
            else:
                # Whoever asks for something else has not said who it is.
                return False

    def listen(self, client, talk):
        """The same for clients of the first version: their words come without a request around them."""
        try:
            while True:
                answer, is_in = talk.send(take(client, 0))
                give(client, answer)
                if is_in:
                    return True
        except Refused:
            return False

    def talk(self):
        """Takes the client's words, gives the answers and whether it is in."""
        said = yield
        if self.mechanism == "PLAIN":
            if said.split(b"\0")[1:] != [self.user.encode(), self.password.encode()]:
                raise Refused("Invalid username or password")
            yield b"", True
            return
        digest = HASHES[self.mechanism]
        if not said.startswith(b"n,,"):
            raise Refused("a channel binding is asked for")
        bare = said[3:]
        first = dict(part.split("=", 1) for part in bare.decode().split(","))
        if first["n"] != self.user:
            raise Refused("Invalid username or password")
        nonce, salt = first["r"] + base64.b64encode(os.urandom(18)).decode(), os.urandom(16)
        answer = f"r={nonce},s={base64.b64encode(salt).decode()},i={ITERATIONS}".encode()
        said = yield answer, False
        final, proof = said.rsplit(b",p=", 1)
        if dict(part.split("=", 1) for part in final.decode().split(","))["r"] != nonce:
            raise Refused("another nonce")
        salted = hashlib.pbkdf2_hmac(digest, self.password.encode(), salt, ITERATIONS)
        whole = b",".join([bare, answer, final])
        key = hmac.digest(salted, b"Client Key", digest)
        signature = hmac.digest(hashlib.new(digest, key).digest(), whole, digest)
        expected = bytes(left ^ right for left, right in zip(key, signature))
        if not hmac.compare_digest(base64.b64decode(proof), expected):
            raise Refused("Invalid username or password")
        signed = hmac.digest(hmac.digest(salted, b"Server Key", digest), whole, digest)
        yield b"v=" + base64.b64encode(signed), True


def token(body, version):
    """The client's words in a SaslAuthenticate request; from version 2 on lengths are short (KIP-482), one more than they are."""
    if version < 2:
        (length,) = struct.unpack_from(">i", body)
        return body[4 : 4 + length]
    # No tags before it.
    length, start = varint(body, 1)
    return body[start : start + length - 1]


def told(version, error, why, answer):
    """The answer to one, after its number."""
    code, lifetime = struct.pack(">h", error), struct.pack(">q", 0)
    text = None if why is None else why.encode()
    if version < 2:
        message = struct.pack(">h", -1) if text is None else struct.pack(">h", len(text)) + text
        plain = code + message + struct.pack(">i", len(answer)) + answer
        return plain + (lifetime if version == 1 else b"")
    message = b"\0" if text is None else short(len(text) + 1) + text
    return b"\0" + code + message + short(len(answer) + 1) + answer + lifetime + b"\0"


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift, is_last = at + 1, shift + 7, data[at] < 0x80
        if is_last:
            return value, at


def short(value):
    parts = []
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def take(end, least=8):
    (length,) = struct.unpack(">i", exactly(end, 4))
    if not least <= length <= FRAME_BYTES_MAX:
        raise OSError("not a frame of Kafka's")
    return exactly(end, length)


def exactly(end, length):
    data = b""
    while len(data) < length:
        part = end.recv(length - len(data))
        if not part:
            raise OSError("the other end is gone")
        data += part
    return data


def give(end, frame):
    end.sendall(struct.pack(">i", len(frame)) + frame)
