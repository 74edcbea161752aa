"""A webhook: it takes every body that is posted to it."""


def answer(request, _plan, record):
    record.take(request.at_path, request.body.decode(errors="replace"))
    return 204, {}, b""
