"""Requests to the admin address that are not HTTP: counted, and told at most once a minute."""

import time
from collections.abc import Callable

_INTERVAL = 60.0  # seconds between two lines


class MalformedRequests:
    """How many came, and what was said of them."""

    def __init__(self, warn: Callable[[str], None] = lambda text: None) -> None:
        self.count = 0
        self._warn = warn
        self._untold = 0
        self._told_at = float("-inf")  # monotonic

    def take(self, client: str) -> None:
        """Count one from `client`, an IP address, or empty on a Unix socket."""
        self.count += 1
        self._untold += 1
        now = time.monotonic()
        if now - self._told_at < _INTERVAL:
            return
        number, self._untold, self._told_at = self._untold, 0, now
        requests = "1 malformed request" if number == 1 else f"{number} malformed requests"
        last = f", the last from {client}" if client else ""
        self._warn(
            f"[admin] got {requests}{last}: they are refused; for clients that speak HTTPS, or for "
            "strangers, bind it to an address of its own behind a proxy"
        )
