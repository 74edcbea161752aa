"""Whom a server lets in: takes its listening socket, gives one that speaks TLS when it has a certificate to show."""

import ssl


def guarded(listening, certificate, authority):
    """The socket; a certificate or authority of "-" is none."""
    if certificate == "-":
        return listening
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate + ".pem", certificate + ".key")
    if authority != "-":
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority)
    # Without a handshake in the loop that accepts: a client that leaves in the middle is its own thread's trouble.
    return context.wrap_socket(listening, server_side=True, do_handshake_on_connect=False)
