"""A WSGI app."""

import os
import time


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/slow":
        time.sleep(float(environ["QUERY_STRING"] or 1))
    if path == "/fail":
        raise ValueError("as asked")
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (b"chunk %d\n" % number for number in range(3))
    body = f"pid {os.getpid()}".encode()
    status = "404 Not Found" if path == "/missing" else "200 OK"
    start_response(status, [("Content-Length", str(len(body))), ("Content-Type", "text/plain")])
    return [body]
