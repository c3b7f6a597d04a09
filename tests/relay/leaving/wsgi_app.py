import threading
import time

import presence

waiting = 0
lock = threading.Lock()
seen: list[str] = []


class Parts:
    """Parts of a response without an end."""

    def __init__(self):
        self.change(1)

    def change(self, by):
        global waiting
        with lock:
            waiting += by

    def __iter__(self):
        while True:
            yield b": tick\n\n"
            time.sleep(0.01)

    def close(self):
        self.change(-1)


def app(environ, start_response):
    name = environ["PATH_INFO"].rpartition("/")[2]
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    if name == "blocks":
        presence.block()
    if name == "ticks":
        return Parts()
    if name == "reads":
        try:
            seen.append(str(len(environ["wsgi.input"].read())))
        except OSError as error:
            seen.append(type(error).__name__)
            raise
        return [seen[-1].encode()]
    if name == "seen":
        return [",".join(seen).encode()]
    return [str(waiting + presence.waiting).encode()]
