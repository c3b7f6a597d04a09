"""Apps that are carried, in a module of their own directory."""

from pathlib import Path

ECHO = '''
async def app(scope, receive, send):
    """Answers each message once, in order."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await receive()
    await send({"type": "websocket.accept", "subprotocol": (scope["subprotocols"] or [None])[0]})
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return
        if event.get("text") is not None:
            await send({"type": "websocket.send", "text": event["text"]})
        else:
            await send({"type": "websocket.send", "bytes": event["bytes"]})
'''


def write(directory: Path, text: str = ECHO, name: str = "carried") -> str:
    """Write an app, and return its reference."""
    (directory / f"{name}.py").write_text(text)
    return f"{name}:app"
