"""A gate before a server: hands on what comes and what is answered, byte by byte.

While there is a file `silent` in its directory, answers are lost on their way.

Arguments: directory, address:port, address:port of the server, certificate or "-" for plain TCP, authority of clients or "-"; for
Kafka, where clients say who they are: mechanism, user, password.
"""

import os
import socket
import sys
import threading

from doorman import Doorman
from guard import guarded

BUFFER_BYTES = 1 << 16


def copy(source, target, is_lost=lambda: False):
    try:
        while part := source.recv(BUFFER_BYTES):
            if not is_lost():
                target.sendall(part)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def hand_on(client, behind, is_lost, doorman):
    try:
        # The handshake, where there is one.
        getattr(client, "do_handshake", lambda: None)()
        server = socket.create_connection(behind)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if doorman and not doorman.admit(client, server):
            raise PermissionError
    except OSError:
        client.close()
        return
    threading.Thread(target=copy, args=(client, server), daemon=True).start()
    copy(server, client, is_lost)


def address_of(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


def main():
    directory, at, behind, certificate, authority = sys.argv[1:6]
    listening = guarded(socket.create_server(address_of(at)), certificate, authority)
    doorman = Doorman(*sys.argv[6:]) if sys.argv[6:] else None
    silent = os.path.join(directory, "silent")
    while True:
        client, _ = listening.accept()
        arguments = (client, address_of(behind), lambda: os.path.exists(silent), doorman)
        threading.Thread(target=hand_on, args=arguments, daemon=True).start()


main()
