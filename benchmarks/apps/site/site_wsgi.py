"""The same answers as a WSGI application: ``/`` and ``/slow``."""

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from site_version import BODY

SLOW_SECONDS = float(os.environ.get("SITE_SLOW_SECONDS", "3"))
HEADERS = [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))]


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/slow":
        time.sleep(SLOW_SECONDS)
    start_response("200 OK", HEADERS)
    return [BODY]
