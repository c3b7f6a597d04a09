"""What the recording app does. Each scenario takes the record, which has scope, receive and send."""

import asyncio
import contextlib
import os

TEXT = [(b"content-type", b"text/plain")]
PATIENCE = 10.0
_told: dict[str, asyncio.Event] = {}  # notes that one request leaves for another


async def lifespan(scope, receive, send):
    await receive()
    if os.environ.get("LIFESPAN") == "fails":
        await send({"type": "lifespan.startup.failed", "message": "the database is away"})
        return
    if os.environ.get("LIFESPAN") == "raises":
        raise RuntimeError("no lifespan here")
    if "state" in scope:
        scope["state"]["who"] = "lifespan"
        scope["state"]["shared"] = []
    await send({"type": "lifespan.startup.complete"})
    await receive()
    with open(os.environ["RECORDS"] + ".shutdown", "a") as file:
        file.write("shutdown\n")
    await send({"type": "lifespan.shutdown.complete"})


# --- HTTP


async def start(record, status=200, headers=TEXT, **more):
    message = {"type": "http.response.start", "status": status, "headers": headers, **more}
    await record.send(message)


async def body(record, content=b"", more=False):
    await record.send({"type": "http.response.body", "body": content, "more_body": more})


async def answer(record, content=b"ok\n", status=200, headers=()):
    length = [(b"content-length", str(len(content)).encode())]
    await start(record, status, [*TEXT, *length, *headers])
    await body(record, content)


async def read(record):
    content = b""
    while True:
        message = await record.receive()
        if message["type"] != "http.request":
            return content
        content += message.get("body", b"")
        if not message.get("more_body"):
            return content


async def plain(record):
    if record.scope["type"] == "websocket":
        await echo(record)
        return
    await read(record)
    await answer(record)


async def state(record):
    """Change what belongs to this request, and what all share."""
    if "state" in record.scope:
        seen = record.scope["state"]
        record.note("state", seen.get("who"), seen.get("mine"), len(seen.get("shared", ())))
        seen["mine"] = "changed"
        seen.setdefault("shared", []).append(1)
    if record.scope["type"] == "websocket":
        await echo(record)
        return
    await answer(record)


async def upload(record):
    content = await read(record)
    await answer(record, f"{len(content)}".encode())


async def refuse(record):
    """Answer without reading."""
    await answer(record, b"too large\n", 413)


async def refuse_then_read(record):
    await answer(record, b"too large\n", 413)
    message = await record.receive()
    record.note("after", message["type"])


async def talk(record):
    """Answer each piece of the body when it comes."""
    await start(record)
    while True:
        message = await record.receive()
        if message["type"] == "http.disconnect":
            return
        if message.get("body"):
            await body(record, message["body"].upper(), more=True)
        if not message.get("more_body"):
            break
    await body(record)


async def pieces(record):
    """Stream, some pieces empty."""
    await read(record)
    await start(record)
    for number in range(5):
        await body(record, f"piece {number}\n".encode(), more=True)
        await body(record, b"", more=True)
        await asyncio.sleep(0)
    await body(record)


async def crumbs(record):
    await start(record)
    for number in range(1000):
        await body(record, b"%d," % number, more=True)
    await body(record, b"end")


async def large(record):
    await read(record)
    await answer(record, b"0123456789abcdef" * 300_000)


async def large_stream(record):
    await read(record)
    await start(record)
    for number in range(int(record.scope["query_string"] or 40)):
        await body(record, bytes([65 + number % 26]) * 100_001, more=True)
    await body(record)


async def minimal(record):
    """Leave out whatever may be left out."""
    await record.send({"type": "http.response.start", "status": 200})
    await record.send({"type": "http.response.body"})


async def status(record):
    """Answer with the status that the query names, and a body if the status may have one."""
    await read(record)
    code = int(record.scope["query_string"])
    if code in (204, 304):
        await start(record, code, [(b"etag", b'"x"')])
        await body(record)
    else:
        await answer(record, b"body\n", code)


async def headers(record):
    await start(
        record,
        200,
        [
            (b"set-cookie", b"a=1"),
            (b"x-first", b"1"),
            (b"set-cookie", b"b=2; Path=/"),
            (b"x-latin", b"caf\xe9"),
            (b"x-empty", b""),
            (b"x-utf8", "ünï".encode()),
            (b"X-Case-Kept", b"yes"),
            (b"vary", b"accept"),
            (b"vary", b"cookie"),
            (b"content-length", b"2"),
        ],
    )
    await body(record, b"ok")


async def large_headers(record):
    await answer(record, headers=[(b"x-large-%d" % number, b"v" * 4000) for number in range(9)])


async def own_chunked(record):
    await start(record, headers=[(b"transfer-encoding", b"chunked")])
    await body(record, b"one", more=True)
    await body(record, b"two")


async def says_close(record):
    await answer(record, headers=[(b"connection", b"close")])


async def events(record):
    """Server-sent events: the next one when the client has told that it saw the last."""
    await start(record, headers=[(b"content-type", b"text/event-stream")])
    for number in range(3):
        await told(f"{record.case}:seen-{number}")
        await body(record, f"data: {number}\n\n".encode(), more=True)
    gone = await record.receive()
    while gone["type"] == "http.request":
        gone = await record.receive()
    _tell(f"{record.case}:gone")


async def tell(record):
    """Tell another request something."""
    _tell(record.scope["query_string"].decode())
    await answer(record)


async def wait_told(record):
    """Answer when the query was told: a client sees that something happened to another request."""
    await told(record.scope["query_string"].decode())
    await answer(record)


def _tell(word):
    _told.setdefault(word, asyncio.Event()).set()


async def told(word):
    event = _told.setdefault(word, asyncio.Event())
    await asyncio.wait_for(event.wait(), PATIENCE)
    _told.pop(word, None)


async def long_poll(record):
    """Wait for the client's end and for news at once, as long-polling apps do."""
    await read(record)
    gone = asyncio.ensure_future(record.receive())
    await asyncio.sleep(0.1)
    record.note("gone", gone.done())
    await answer(record, b"news\n")
    if gone.done():
        return
    await asyncio.wait([gone], timeout=PATIENCE)
    record.note("then", gone.done() and gone.result()["type"])


async def long_poll_left(record):
    """Wait in receive() until the client goes, then try to answer."""
    await read(record)
    _tell(f"{record.case}:waiting")
    await record.receive()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(record.receive(), 0.2)  # it may be said once only
    _tell(f"{record.case}:gone")
    with contextlib.suppress(OSError):
        await answer(record, b"nobody hears\n")


async def cancelled_receive(record):
    """Give up waiting in receive(), and come back for what arrived meanwhile."""
    received = []
    for _ in range(3):
        with contextlib.suppress(TimeoutError):
            received.append(await asyncio.wait_for(record.receive(), 0.03))
    _tell(f"{record.case}:tried")
    content = b"".join(message.get("body", b"") for message in received)
    while not received or received[-1].get("more_body"):
        received.append(await record.receive())
        content += received[-1].get("body", b"")
    await answer(record, content)


async def upload_left(record):
    """Read a body whose client goes in the middle."""
    await record.receive()
    _tell(f"{record.case}:reading")
    while (await record.receive())["type"] == "http.request":
        pass
    _tell(f"{record.case}:gone")


async def stream_left(record):
    """Stream for ever; learn from receive() that the client has gone."""
    await read(record)
    await start(record)

    async def stream():
        while True:
            await body(record, b"x" * 1000, more=True)
            await asyncio.sleep(0.005)

    streaming = asyncio.ensure_future(stream())
    await record.receive()
    streaming.cancel()
    with contextlib.suppress(asyncio.CancelledError, OSError):
        await streaming
    record.events = [event for event in record.events if not event[0].startswith("send")]
    _tell(f"{record.case}:gone")


async def raises(record):
    await read(record)
    raise ValueError("a defect of the app")


async def raises_late(record):
    await read(record)
    await start(record)
    await body(record, b"some", more=True)
    raise ValueError("a defect of the app")


async def raises_after_start(record):
    await read(record)
    await start(record)
    raise ValueError("a defect of the app")


async def raises_after_end(record):
    await answer(record)
    raise ValueError("a defect of the app")


async def silent(record):
    """Return without a response."""
    await read(record)


async def unfinished(record):
    await read(record)
    await start(record)
    await body(record, b"some", more=True)


async def unfinished_length(record):
    await read(record)
    await start(record, headers=[(b"content-length", b"100")])
    await body(record, b"some", more=True)


async def background(record):
    """Continue after the response."""
    await read(record)
    await answer(record)
    await told(f"{record.case}:seen")
    record.note("continued")
    message = await record.receive()
    record.note("after", message["type"])


async def no_start(record):
    await body(record, b"first")


async def start_twice(record):
    await start(record)
    await start(record)


async def body_twice(record):
    await answer(record)
    await body(record, b"more")


async def nonsense(record):
    await record.send({"type": "http.nonsense"})


async def bad_type(record):
    await start(record)
    await body(record, "text where bytes belong")


async def too_long(record):
    await start(record, headers=[(b"content-length", b"2")])
    await body(record, b"more than two")


async def too_short(record):
    await start(record, headers=[(b"content-length", b"20")])
    await body(record, b"less")


async def trailers(record):
    offered = "http.response.trailers" in record.scope.get("extensions", {})
    if not offered:
        await answer(record, b"not offered")
        return
    await start(record, headers=[*TEXT, (b"trailer", b"x-sum")], trailers=True)
    await body(record, b"with trailers")
    await record.send(
        {
            "type": "http.response.trailers",
            "headers": [(b"x-sum", b"13"), (b"x-more", b"a")],
            "more_trailers": False,
        }
    )


async def trailers_first(record):
    await record.send({"type": "http.response.trailers", "headers": [(b"x-sum", b"13")]})


async def trailers_late(record):
    await answer(record)
    await record.send({"type": "http.response.trailers", "headers": [(b"x-sum", b"13")]})


async def hint_late(record):
    await start(record)
    await record.send({"type": "http.response.early_hint", "links": [b"</a.js>; rel=preload"]})
    await body(record, b"end")


async def early_hint(record):
    if "http.response.early_hint" not in record.scope.get("extensions", {}):
        await answer(record, b"not offered")
        return
    links = [b"</style.css>; rel=preload; as=style", b"</a.js>; rel=preload"]
    await record.send({"type": "http.response.early_hint", "links": links})
    await answer(record)


async def push(record):
    if record.scope["path"].endswith("/pushed"):
        await answer(record, b"pushed")
        return
    if "http.response.push" not in record.scope.get("extensions", {}):
        await answer(record, b"not offered")
        return
    await record.send(
        {"type": "http.response.push", "path": "/pushed", "headers": [(b"x-case", b"push.pushed")]}
    )
    await answer(record)


async def pathsend(record):
    if "http.response.pathsend" not in record.scope.get("extensions", {}):
        await answer(record, b"not offered")
        return
    await start(record)
    await record.send({"type": "http.response.pathsend", "path": os.path.abspath(__file__)})


# --- WebSocket


async def accept(record, **more):
    message = await record.receive()
    assert message["type"] == "websocket.connect"
    await record.send({"type": "websocket.accept", **more})


async def messages(record):
    while (message := await record.receive())["type"] == "websocket.receive":
        yield message


async def echo(record):
    """Send back what comes, until the client goes."""
    await accept(record)
    async for message in messages(record):
        if message.get("text") is not None:
            await record.send({"type": "websocket.send", "text": message["text"]})
        else:
            await record.send({"type": "websocket.send", "bytes": message["bytes"]})


async def quiet_echo(record):
    """Send back what comes, and note only how much that was: for what would be too long a list."""
    await accept(record)
    count = 0
    async for message in messages(record):
        record.events.pop()
        count += 1
        key = "text" if message.get("text") is not None else "bytes"
        await record.send({"type": "websocket.send", key: message[key]})
    record.note("messages", count)


async def both_keys(record):
    await accept(record)
    await record.send({"type": "websocket.send", "text": "a", "bytes": None})
    await record.send({"type": "websocket.send", "bytes": b"b", "text": None})
    await record.send({"type": "websocket.send", "text": ""})
    await record.send({"type": "websocket.send", "bytes": b""})
    await record.send({"type": "websocket.close"})


async def subprotocol(record):
    offered = record.scope["subprotocols"]
    await accept(record, subprotocol=offered[-1] if offered else None)
    await record.send({"type": "websocket.close", "code": 1000})


async def accept_headers(record):
    await accept(
        record,
        headers=[
            (b"set-cookie", b"a=1"),
            (b"x-first", b"1"),
            (b"set-cookie", b"b=2"),
            (b"x-latin", b"caf\xe9"),
        ],
    )
    await record.send({"type": "websocket.close"})


async def close(record):
    """Close with the code and reason that the query names."""
    code, _, reason = record.scope["query_string"].decode().partition("&")
    await accept(record)
    message: dict[str, object] = {"type": "websocket.close"}
    if code:
        message["code"] = int(code)
    if reason:
        message["reason"] = reason
    await record.send(message)
    async for _ in messages(record):
        pass


async def close_and_return(record):
    await accept(record)
    await record.send({"type": "websocket.close", "code": 4000, "reason": "enough"})


async def deny(record):
    await record.receive()
    await record.send({"type": "websocket.close"})


async def deny_code(record):
    await record.receive()
    await record.send({"type": "websocket.close", "code": 4403, "reason": "who are you?"})


async def deny_response(record):
    await record.receive()
    if "websocket.http.response" not in record.scope.get("extensions", {}):
        await record.send({"type": "websocket.close"})
        return
    await record.send(
        {
            "type": "websocket.http.response.start",
            "status": 401,
            "headers": [
                (b"www-authenticate", b"Basic"),
                (b"x-twice", b"1"),
                (b"x-twice", b"2"),
                (b"content-length", b"12"),
            ],
        }
    )
    kind = "websocket.http.response.body"
    await record.send({"type": kind, "body": b"please ", "more_body": True})
    await record.send({"type": kind, "body": b"login"})


async def deny_raises(record):
    await record.receive()
    raise ValueError("a defect of the app")


async def deny_returns(record):
    await record.receive()


async def accept_without_receive(record):
    """Not every app looks at websocket.connect first."""
    await record.send({"type": "websocket.accept"})
    await record.send({"type": "websocket.send", "text": "hello"})
    await record.send({"type": "websocket.close"})


async def accept_raises(record):
    await accept(record)
    raise ValueError("a defect of the app")


async def accept_returns(record):
    await accept(record)


async def receive_raises(record):
    await accept(record)
    await record.receive()
    raise ValueError("a defect of the app")


async def send_first(record):
    await record.receive()
    await record.send({"type": "websocket.send", "text": "too early"})


async def accept_twice(record):
    await accept(record)
    await record.send({"type": "websocket.accept"})


async def send_closed(record):
    await accept(record)
    await record.send({"type": "websocket.close"})
    await record.send({"type": "websocket.send", "text": "too late"})


async def send_left(record):
    """Send after the client has gone."""
    await accept(record)
    async for _ in messages(record):
        pass
    await record.send({"type": "websocket.send", "text": "anybody there?"})


async def receive_left(record):
    """Receive once more after the client has gone."""
    await accept(record)
    async for _ in messages(record):
        pass
    await asyncio.wait_for(record.receive(), 0.3)


async def bad_message(record):
    await accept(record)
    await record.send({"type": "websocket.send"})


async def bad_text(record):
    await accept(record)
    await record.send({"type": "websocket.send", "text": b"bytes where text belongs"})


async def flood(record):
    """Send much and receive much at once, in tasks of their own."""
    await accept(record)

    async def pour():
        for number in range(1000):
            await record.send({"type": "websocket.send", "text": f"out {number}"})

    pouring = asyncio.ensure_future(pour())
    got = []
    async for message in messages(record):
        record.events.pop()
        got.append(message["text"])
        if message["text"] == "end":
            break
    await pouring
    record.note("in order", got == [*(f"in {number}" for number in range(1000)), "end"])
    await record.send({"type": "websocket.close"})


async def pour(record):
    """Send faster than the client reads."""
    await accept(record)
    for number in range(60):
        await record.send({"type": "websocket.send", "bytes": bytes([number]) * 100_000})
    await record.send({"type": "websocket.close"})


async def cancelled_websocket_receive(record):
    """Give up waiting in receive(), again and again, as Channels does."""
    await accept(record)
    got: list[str] = []
    while len(got) < 20:
        try:
            message = await asyncio.wait_for(record.receive(), 0.002)
        except TimeoutError:
            continue
        if message["type"] == "websocket.disconnect":
            break
        got.append(message["text"])
        await record.send({"type": "websocket.send", "text": message["text"]})
    record.note("in order", got == [str(number) for number in range(20)])
    await record.send({"type": "websocket.close"})
