"""The app of the acceptance tests. It writes down what it is given, in files of $WITNESS.

What a path does is the name of the function; what follows is the name of a file. A query may say
how a WebSocket behaves after a handover: `anew=close:4001`.
"""

import asyncio
import hashlib
import os
import signal
from pathlib import Path
from urllib.parse import parse_qsl

PLACE = Path(os.environ["WITNESS"])
LOOK = 0.01  # seconds between two looks for a file
HANDOVER = "chansup.handover"

if (PLACE / "refuse").exists():
    raise SystemExit("not today")
in_hand = most = 0  # requests of /crowd


def write_down(name, line):
    file = os.open(PLACE / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


async def wait_for_file(name):
    while not (PLACE / name).exists():
        await asyncio.sleep(LOOK)


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    _, deed, *rest = scope["path"].split("/")
    query = dict(parse_qsl(scope["query_string"].decode()))
    known = WEBSOCKETS[deed] if scope["type"] == "websocket" else REQUESTS.get(deed, pid)
    await known(scope, receive, send, rest[0] if rest else "", query)


# WebSockets


async def open_up(scope, receive, send, query):
    """Accept, or do what is asked for. Say whether it is open."""
    await receive()
    handover = scope["extensions"][HANDOVER]
    deed, _, detail = query.get("anew" if handover["count"] else "first", "").partition(":")
    subprotocol = next(iter(scope["subprotocols"]), None)
    if deed == "close":
        await send({"type": "websocket.close", **({"code": int(detail)} if detail else {})})
        return False
    if deed == "answer":
        start = {"type": "websocket.http.response.start", "status": 410, "headers": []}
        await send(start)
        await send({"type": "websocket.http.response.body", "body": b"gone"})
        return False
    if deed == "raise":
        raise ValueError("not today")
    if deed == "return":
        return False
    if deed == "die":
        die()
    if deed == "wait":
        write_down("waiting", os.getpid())
        await wait_for_file(detail)
    if deed == "subprotocol":
        subprotocol = detail
    await send({"type": "websocket.accept", "subprotocol": subprotocol})
    return True


def parts(message):
    """Return number, seconds of work, and kind of work, of a message."""
    text = message.get("text")
    data = message["bytes"] if text is None else text.encode()
    number, work, rest = data.split(b" ", 2)
    return int(number), float(work), data, rest


async def echo(scope, receive, send, name, query):
    """Send everything back."""
    handover = scope["extensions"][HANDOVER]
    write_down(
        f"{name}.scopes", f"{os.getpid()} {handover['count']} {handover['reason']} {scope['path']}"
    )
    if not await open_up(scope, receive, send, query):
        return
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            write_down(f"{name}.ends", f"{message['code']} {message.get('reason', '')}")
            if "linger" in query:
                await wait_for_file(query["linger"])
            if "stay" in query:
                await asyncio.sleep(3600)
            return
        number, work, data, rest = parts(message)
        again = message.get("chansup.redelivered", False)
        digest = hashlib.md5(data).hexdigest()
        write_down(name, f"{number} {digest} {int(again)} {os.getpid()}")
        if work:
            await asyncio.sleep(work)
        if rest.startswith(b"die"):
            die()
        if rest.startswith(b"close"):
            await send({"type": "websocket.close", "code": 4002, "reason": "as you wish"})
            return
        if rest.startswith(b"raise"):
            raise ValueError("as you wish")
        if rest.startswith(b"wait"):
            await wait_for_file(rest[4:].split()[0].decode())
        await send({**message, "type": "websocket.send"})


async def hear(scope, receive, send, name, query):
    """Write down everything, and send nothing."""
    if not await open_up(scope, receive, send, query):
        return
    while (message := await receive())["type"] != "websocket.disconnect":
        number, work, data, _ = parts(message)
        write_down(name, f"{number} {len(data)}")
        if work:
            await asyncio.sleep(work)
    write_down(f"{name}.ends", f"{message['code']} {message.get('reason', '')}")


async def push(scope, receive, send, name, query):
    """Count, and continue from the checkpoint."""
    handover = scope["extensions"][HANDOVER]
    kind = type(handover["checkpoint"]).__name__
    write_down(f"{name}.scopes", f"{handover['count']} {handover['reason']} {kind}")
    if not await open_up(scope, receive, send, query):
        return
    asked_to_stop = asyncio.Event()

    async def count():
        number = int(handover["checkpoint"] or 0)
        while not asked_to_stop.is_set():
            number += 1
            await send({"type": "websocket.send", "text": str(number)})
            stored = str(number) if query.get("as") == "str" else str(number).encode()
            await send({"type": "chansup.handover.checkpoint", "checkpoint": stored})
            await asyncio.sleep(float(query.get("every", "0.002")))

    counting = asyncio.create_task(count())
    while (await receive())["type"] != "websocket.disconnect":
        pass
    asked_to_stop.set()
    try:
        await counting
    except OSError:
        pass


async def note(scope, receive, send, name, query):
    """Answer with the checkpoint; store each message as the next one; say what is refused."""
    handover = scope["extensions"][HANDOVER]
    if not await open_up(scope, receive, send, query):
        return
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            if "late" in query:
                await send({"type": "chansup.handover.checkpoint", "checkpoint": query["late"]})
            return
        text = message["text"]
        if text == "?":
            answer = f"{handover['count']} {handover['checkpoint']}"
        else:
            try:
                await send({"type": "chansup.handover.checkpoint", "checkpoint": text})
                answer = "stored"
            except RuntimeError as error:
                answer = f"refused: {error}"
        await send({"type": "websocket.send", "text": answer})


async def present(scope, receive, send, name, query):
    """Keep presence as most apps do: connect sets it, disconnect deletes it."""
    if not await open_up(scope, receive, send, query):
        return
    (PLACE / "present" / name).touch()
    write_down("presence", f"{name} connect {os.getpid()}")
    while (message := await receive())["type"] != "websocket.disconnect":
        await send({**message, "type": "websocket.send"})
    write_down("presence", f"{name} disconnect {os.getpid()}")
    (PLACE / "present" / name).unlink(missing_ok=True)


async def flood(scope, receive, send, name, query):
    """Send without end, and never receive."""
    if not await open_up(scope, receive, send, query):
        return
    number = 0
    try:
        while True:
            number += 1
            await send({"type": "websocket.send", "bytes": bytes(int(query["size"]))})
            if number % 16 == 0:
                await asyncio.sleep(0)
    finally:
        write_down(f"{name}.flooded", number)


WEBSOCKETS = {one.__name__: one for one in (echo, hear, push, note, present, flood)}


# Requests


async def answer(send, status, body, headers=()):
    length = (b"content-length", str(len(body)).encode())
    start = {"type": "http.response.start", "status": status, "headers": [length, *headers]}
    await send(start)
    await send({"type": "http.response.body", "body": body})


async def body_of(receive):
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def pid(scope, receive, send, name, query):
    await answer(send, 200, f"{os.environ.get('CHANSUP_SLOT')} {os.getpid()}".encode())


async def take(scope, receive, send, name, query):
    """Write down that it came, work as long as a file is missing, and send the body back."""
    write_down(name, f"{scope['method']} {os.getpid()}")
    body = await body_of(receive)
    if "until" in query:
        await wait_for_file(query["until"])
    if "die" in query:
        die()
    await answer(send, 200, b"%d %s" % (os.getpid(), body))


async def begin(scope, receive, send, name, query):
    """Begin a response, and go no further until a file is there."""
    write_down(name, f"{scope['method']} {os.getpid()}")
    headers = [(b"content-length", b"1000")] if "length" in query else []
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"x" * 500, "more_body": True})
    await wait_for_file(query["until"])
    await send({"type": "http.response.body", "body": b"x" * 500})


async def crowd(scope, receive, send, name, query):
    """Write down how many there are at once."""
    global in_hand, most
    in_hand += 1
    if in_hand > most:
        most = in_hand
        write_down(name, f"{os.getpid()} {most}")
    await asyncio.sleep(float(query["work"]))
    in_hand -= 1
    await answer(send, 200, b"done")


async def big(scope, receive, send, name, query):
    """Send much, and write down how it ended."""
    size, sent = int(query["size"]), 0
    start = {"type": "http.response.start", "status": 200, "headers": []}
    await send(start)
    try:
        while sent < size:
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
            sent += 65536
        await send({"type": "http.response.body", "body": b""})
    finally:
        write_down(name, sent)


async def upload(scope, receive, send, name, query):
    """Read a part of the body, then wait."""
    read = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            write_down(name, f"gone {read}")
            return
        read += len(message.get("body", b""))
        write_down(name, f"read {read}")
        if not message.get("more_body"):
            break
        await wait_for_file(query["until"])
    await answer(send, 200, str(read).encode())


REQUESTS = {one.__name__: one for one in (pid, take, begin, crowd, big, upload)}
