"""An app of WSGI for the acceptance tests: it tells how many threads are at work at once."""

import os
import threading
import time

_lock = threading.Lock()
_in_hand = _most = 0


def app(environ, start_response):
    global _in_hand, _most
    with _lock:
        _in_hand += 1
        _most = max(_most, _in_hand)
    body = environ["wsgi.input"].read()
    time.sleep(0.1)
    with _lock:
        _in_hand -= 1
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {_most} {environ['PATH_INFO']} {body.decode()}".encode()]
