"""HTTP/1.1 through the relay is what it is without."""

from typing import Any

import pytest

from .cases import Case, check
from .http1 import Conversation
from .sites import Pair

BIG = bytes(range(256)) * 12_000  # 3 MB


def get(target: bytes = b"/", *lines: bytes, **more: Any):
    def client(talk: Conversation) -> None:
        talk.head(target, *lines, **more)
        talk.response(more.get("method", b"GET").decode())

    return client


def get_again(target: bytes = b"/", *lines: bytes, **more: Any):
    def client(talk: Conversation) -> None:
        talk.head(target, *lines, **more)
        talk.response(more.get("method", b"GET").decode())
        talk.again()

    return client


def line(start: bytes):
    def client(talk: Conversation) -> None:
        talk.send(start + b"\r\nHost: localhost\r\nX-Case: " + talk.case.encode() + b"\r\n\r\n")
        talk.response()

    return client


def post(content: bytes, *lines: bytes):
    def client(talk: Conversation) -> None:
        talk.post(content, *lines)
        talk.response()

    return client


def chunked(*chunks: bytes, trailer: bytes = b""):
    def client(talk: Conversation) -> None:
        talk.head(b"/", b"Transfer-Encoding: chunked", method=b"POST")
        for chunk in chunks:
            talk.chunk(chunk)
        talk.send(b"0\r\n" + trailer + b"\r\n")
        talk.response()

    return client


def expect_continue(talk: Conversation) -> None:
    talk.head(b"/", b"Content-Length: 5", b"Expect: 100-continue", method=b"POST")
    talk.start()
    talk.send(b"hello")
    talk.response()


def expect_refused(talk: Conversation) -> None:
    talk.head(b"/", b"Content-Length: 5", b"Expect: 100-continue", method=b"POST")
    talk.response()


def duplex(talk: Conversation) -> None:
    talk.head(b"/", b"Transfer-Encoding: chunked", method=b"POST")
    talk.chunk(b"one")
    talk.start()
    talk.chunk_data(3)
    for word in (b"two", b"three", b"four"):
        talk.chunk(word)
        talk.chunk_data(len(word))
    talk.send(b"0\r\n\r\n")
    talk.end_of_chunks()


def duplex_length(talk: Conversation) -> None:
    talk.head(b"/", b"Content-Length: 9", method=b"POST")
    talk.send(b"one")
    talk.start()
    talk.chunk_data(3)
    talk.send(b"two")
    talk.chunk_data(3)
    talk.send(b"end")
    talk.chunk_data(3)
    talk.end_of_chunks()


def pipelined(talk: Conversation) -> None:
    for number in range(3):
        talk.head(b"/%d" % number)
    for _ in range(3):
        talk.response()


def early(talk: Conversation) -> None:
    """Read the answer to an upload that is still continuing, and continue with it."""
    talk.head(b"/", b"Content-Length: 300000", method=b"POST")
    talk.send(b"x" * 1000)
    talk.response()


def early_all(talk: Conversation) -> None:
    talk.head(b"/", b"Content-Length: 300000", method=b"POST")
    talk.send(b"x" * 1000)
    talk.response()
    talk.send(b"x" * 299_000)


def another(talk: Conversation, scenario: str, word: str) -> None:
    """Have another request done on a connection of its own: it tells the app, or waits for it."""
    other = Conversation(talk.address, f"{scenario}.aside")
    other.head(f"/?{talk.case}:{word}".encode())
    other.response()
    talk.note(scenario, word, other.notes[0][1])
    other.close()


def events(talk: Conversation) -> None:
    talk.head(b"/")
    for number in range(3):
        another(talk, "tell", f"seen-{number}")
        if not number:
            talk.start()
        talk.chunk_data(9)
    talk.leave()
    another(talk, "wait_told", "gone")


def left(event: str, *, reset: bool = False):
    """Wait until the app waits, and go."""

    def client(talk: Conversation) -> None:
        talk.head(b"/")
        another(talk, "wait_told", event)
        talk.vanish() if reset else talk.leave()
        another(talk, "wait_told", "gone")

    return client


def upload_left(*lines: bytes, reset: bool = False):
    def client(talk: Conversation) -> None:
        talk.head(b"/", *lines, method=b"POST")
        talk.send(b"5\r\nhello\r\n")
        another(talk, "wait_told", "reading")
        talk.vanish() if reset else talk.leave()
        another(talk, "wait_told", "gone")

    return client


def stream_left(talk: Conversation) -> None:
    talk.head(b"/")
    talk.start()
    talk.chunk_data(1)
    talk.notes.pop()
    talk.leave()
    another(talk, "wait_told", "gone")


def cancelled_receive(talk: Conversation) -> None:
    talk.head(b"/", b"Content-Length: 10", method=b"POST")
    another(talk, "wait_told", "tried")
    talk.send(b"01234")
    talk.send(b"56789")
    talk.response()


def background(talk: Conversation) -> None:
    talk.head(b"/")
    talk.response()
    another(talk, "tell", "seen")


def states(talk: Conversation) -> None:
    for number in range(2):
        talk.head(b"/%d" % number)
        talk.response()


LARGE_HEADERS = [b"X-Large-%d: " % number + b"v" * 3900 for number in range(9)]
SCOPES = [
    Case("plain.get", get(b"/path?a=b&c=%20d")),
    Case("plain.keep", get_again(b"/")),
    Case("plain.headers", get(b"/", b"X-A: 1", b"x-b: 2", b"X-A: 3", b"X-Empty:", b"Accept: */*",
                              b"Cookie: a=1; b=2", b"X-Latin: caf\xe9", b"X-Spaces:   a  b  ")),
    Case("plain.large-headers", get(b"/", *LARGE_HEADERS)),
    Case("plain.question", get(b"/?")),
    Case("plain.query-bytes", get(b"/?q=\xe9%ff&q=&&=")),
    Case("plain.percent", get(b"/a%20b/%2Fc%3Fd")),
    Case("plain.utf8", get(b"/caf%C3%A9/\xc3\xa9")),
    Case("plain.not-utf8", get(b"/%E4%F6%FF")),
    Case("plain.double", get(b"//a//b/../c/./")),
    Case("plain.long-path", get(b"/" + b"p" * 3000 + b"?" + b"q" * 3000)),
    Case("plain.absolute", get(b"http://example.org:81/x?y")),
    Case("plain.only-query", get(b"?only"), 0),
    Case("plain.star", get(b"*", method=b"OPTIONS")),
    Case("plain.empty", line(b"GET  HTTP/1.1"), 0),
    Case("plain.head", get_again(b"/", method=b"HEAD")),
    Case("plain.options", get(b"/", method=b"OPTIONS")),
    Case("plain.propfind", get(b"/", method=b"PROPFIND")),
    Case("plain.http10", get_again(b"/", version=b"1.0")),
    Case("plain.http10-keep", get(b"/", b"Connection: keep-alive", version=b"1.0")),
    Case("plain.close", get_again(b"/", b"Connection: close")),
    Case("plain.pipelined", pipelined, 3),
    Case("plain.forwarded", get(b"/", b"X-Forwarded-For: 10.1.2.3", b"X-Forwarded-Proto: https")),
    Case("plain.h2c", get(b"/", b"Connection: keep-alive, X-Hop", b"X-Hop: 1", b"TE: trailers")),
    Case("state", states, 2),
]  # fmt: skip
# The app is called when the whole body is there.
READ_FIRST = ("daphne",)
UPLOADS = [
    Case("upload.length", post(b"hello")),
    Case("upload.empty", post(b"")),
    Case("upload.big", post(BIG)),
    Case("upload.chunked", chunked(b"one", b"two", b"3" * 70_000)),
    Case("upload.chunked-empty", chunked()),
    Case("upload.chunked-trailers", chunked(b"one", trailer=b"X-Sum: 1\r\n")),
    Case("upload.continue", expect_continue),
    Case("upload.get", get(b"/", b"Content-Length: 0")),
    Case("refuse.continue", expect_refused, without=READ_FIRST),
    Case("refuse.early", early, without=READ_FIRST),
    Case("refuse.early-all", early_all, without=READ_FIRST),
    Case("refuse.unread", post(b"x" * 100_000)),
    Case("refuse_then_read.small", post(b"unread")),
    Case("talk.chunked", duplex, without=READ_FIRST),
    Case("talk.length", duplex_length, without=READ_FIRST),
    Case("cancelled_receive", cancelled_receive, without=READ_FIRST),
    Case("upload_left.chunked", upload_left(b"Transfer-Encoding: chunked"), without=READ_FIRST),
    Case("upload_left.length", upload_left(b"Content-Length: 100"), without=READ_FIRST),
    Case("upload_left.reset", upload_left(b"Content-Length: 100", reset=True), without=READ_FIRST),
]
HEAD_WITH_BODY = ("daphne",)  # it sends the body, too
RESPONSES = [
    Case("pieces", get_again()),
    Case("pieces.head", get_again(method=b"HEAD"), without=HEAD_WITH_BODY),
    Case("pieces.http10", get(version=b"1.0")),
    Case("crumbs", get()),
    Case("large", get()),
    Case("large.head", get_again(method=b"HEAD"), without=HEAD_WITH_BODY),
    Case("large_stream", get()),
    Case("minimal", get_again()),
    Case("minimal.head", get_again(method=b"HEAD")),
    *(Case(f"status.{code}", get(b"/?%d" % code))
      for code in (200, 201, 204, 206, 301, 304, 400, 404, 418, 451, 499, 500, 503, 599)),
    Case("headers", get()),
    Case("large_headers", get()),
    Case("own_chunked", get_again()),
    Case("says_close", get_again()),
    Case("events", events),
    Case("long_poll", get()),
    Case("long_poll_left", left("waiting")),
    Case("long_poll_left.reset", left("waiting", reset=True)),
    Case("stream_left", stream_left),
    Case("background", background),
    Case("trailers", get(b"/", b"TE: trailers")),
    Case("early_hint", get()),
    Case("push", get()),
    Case("pathsend", get()),
]  # fmt: skip
# Their clients wait for ever.
NEVER_TOLD = ("daphne",)
DEFECTS = [
    Case("raises", get_again()),
    Case("raises_after_start", get(), without=NEVER_TOLD),
    Case("raises_late", get(), without=NEVER_TOLD),
    Case("raises_after_end", get()),
    Case("silent", get(), without=NEVER_TOLD),
    Case("unfinished", get(), without=NEVER_TOLD),
    Case("unfinished_length", get(), without=NEVER_TOLD),
    Case("no_start", get(), without=NEVER_TOLD),
    Case("start_twice", get(), without=NEVER_TOLD),
    Case("body_twice", get()),
    Case("nonsense", get(), without=NEVER_TOLD),
    Case("trailers_first", get(), without=NEVER_TOLD),
    Case("trailers_late", get()),
    Case("hint_late", get(), without=NEVER_TOLD),
    Case("bad_type", get(), without=NEVER_TOLD),
    Case("too_long", get()),
    Case("too_short", get(), without=(*NEVER_TOLD, "granian")),
]
GROUPS = {"scopes": SCOPES, "uploads": UPLOADS, "responses": RESPONSES, "defects": DEFECTS}


@pytest.mark.parametrize("group", GROUPS)
def test_http1(pair: Pair, group: str) -> None:
    check(pair, GROUPS[group])
