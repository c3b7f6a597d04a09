"""An ASGI app that answers with what it was told."""

import json
import os


async def application(scope, receive, send):
    assert scope["type"] == "http"
    told = {name: scope[name] for name in ("client", "scheme", "path")}
    body = json.dumps({**told, "environment": dict(os.environ)}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
