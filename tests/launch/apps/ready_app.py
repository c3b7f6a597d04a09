"""Answers /health as its environment says, and tells what it was asked."""

import asyncio
import os
import sys
from typing import Any

STATUSES = [int(status) for status in os.environ.get("STATUSES", "200").split()]
asked: list[str] = []
state_of_the_request: Any = None


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def next_status() -> int:
    status = STATUSES[min(len(asked), len(STATUSES)) - 1]
    say(f"health answers {status}")
    if status == 599:
        raise RuntimeError("the model is not there")
    return status


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
        return
    assert scope["type"] == "http"
    headers = dict(scope["headers"])
    if scope["path"] == "/health" and headers.get(b"user-agent") == b"chansup":
        asked.append(f"{scope['scheme']}://{headers[b'host'].decode()} {scope.get('state')}")
        if os.environ.get("HANG"):
            await asyncio.Event().wait()
        status, body = next_status(), b"disk: full\x1b[31m"
    else:
        status, body = 200, ";".join(asked).encode()
    start = {"status": status, "headers": [(b"content-type", b"text/plain")]}
    await send({"type": "http.response.start", **start})
    await send({"type": "http.response.body", "body": body})


async def lifespan(scope: Any, receive: Any, send: Any) -> None:
    if os.environ.get("WITHOUT_LIFESPAN"):
        raise ValueError("no lifespan here")
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            if "state" in scope:
                scope["state"]["pool"] = "open"
        else:
            say("lifespan shutdown")
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    status, body = 200, ";".join(asked).encode()
    if environ["PATH_INFO"] == "/health" and environ.get("HTTP_USER_AGENT") == "chansup":
        asked.append(f"{environ['wsgi.url_scheme']}://{environ['HTTP_HOST']}")
        status, body = next_status(), b"disk: full"
    start_response(f"{status} x", [("Content-Type", "text/plain")])
    return [body]
