async def app(scope, receive, send):
    """Say nothing, twice, and then something."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        for event in ({"text": ""}, {"bytes": b""}, {"text": "x"}):
            await send({"type": "websocket.send", **event})
        await receive()
