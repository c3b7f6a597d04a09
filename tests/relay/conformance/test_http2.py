"""HTTP/2 and TLS through the relay: the same as without."""

import ssl
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from . import test_http1, test_websocket
from .cases import Case, check
from .http2 import Conversation2
from .sites import Pair, Sites

BIG = bytes(range(256)) * 4_000  # 1 MB
TLS = {
    "uvicorn": ("ssl_certfile", "ssl_keyfile", "root_path"),
    "granian": ("ssl_cert", "ssl_key", "url_path_prefix"),
    "hypercorn": ("certfile", "keyfile", "root_path"),
    "daphne": ("certKey", "privateKey", "root_path"),
}


def get(path: str = "/", *headers: tuple[str, str], method: str = "GET"):
    def client(talk: Conversation2) -> None:
        talk.finish(talk.request(path, *headers, method=method))

    return client


def several(talk: Conversation2) -> None:
    for number in range(5):
        talk.request(f"/{number}")
    talk.finish()


def post(content: bytes, *headers: tuple[str, str]):
    """Upload, without a length unless one is given: HTTP/2 needs none."""

    def client(talk: Conversation2) -> None:
        number = talk.request("/", *headers, method="POST", end=False)
        talk.data(number, content, end=True)
        talk.finish()

    return client


def post_trailers(talk: Conversation2) -> None:
    number = talk.request("/", method="POST", end=False)
    talk.data(number, b"content")
    talk.trailers(number, ("x-sum", "7"))
    talk.finish()


def duplex(talk: Conversation2) -> None:
    number = talk.request("/", method="POST", end=False)
    have = 0
    for word in (b"one", b"two", b"three"):
        talk.data(number, word)
        have += len(word)
        talk.body(number, have)
    talk.data(number, b"", end=True)
    talk.finish()


def early(talk: Conversation2) -> None:
    number = talk.request("/", ("content-length", "300000"), method="POST", end=False)
    talk.data(number, b"x" * 1000)
    talk.finish(number)


def reset_response(talk: Conversation2) -> None:
    number = talk.request("/")
    talk.body(number, 1)
    talk.reset(number)
    other = talk.request(f"/?{talk.case}:gone", case="wait_told.aside")
    talk.finish(other)
    talk._streams.pop(number)  # how much had come is a matter of time


def push(talk: Conversation2) -> None:
    talk.finish(talk.request("/"))
    talk.finish()


def websocket(talk: Conversation2) -> None:
    """A text frame there and back, then a close."""
    number = talk.connect("/ws?a=b", ("sec-websocket-protocol", "chat"))
    talk.start(number)
    talk.data(number, bytes.fromhex("8185000000006865") + b"llo")
    talk.body(number, 7)
    talk.data(number, bytes.fromhex("88820000000003e8"))
    talk.body(number, 11)


CASES = [
    Case("plain.get", get("/path?a=b&c=%20d")),
    Case("plain.headers", get("/", ("x-a", "1"), ("x-b", "2"), ("x-a", "3"), ("cookie", "a=1"),
                              ("cookie", "b=2"), ("x-empty", ""))),
    Case("plain.percent", get("/a%20b/%2Fc%3Fd/%E4")),
    Case("plain.head", get("/", method="HEAD")),
    Case("plain.several", several, 5, without=("granian",)),  # in any order
    Case("state", get()),
    Case("upload.none", post(b"")),
    Case("upload.small", post(b"hello")),
    Case("upload.length", post(b"hello", ("content-length", "5"))),
    Case("upload.big", post(BIG)),
    Case("upload.trailers", post_trailers),
    Case("refuse.early", early),
    Case("talk", duplex),
    Case("pieces", get()),
    Case("crumbs", get()),
    Case("large_stream", get("/?5")),
    Case("headers", get()),
    Case("minimal", get()),
    Case("stream_left", reset_response),
    Case("raises", get()),
    Case("silent", get()),
    Case("raises_late", get(), without=("hypercorn",)),  # the stream stays open
    Case("unfinished", get(), without=("hypercorn",)),
    Case("trailers", get("/", ("te", "trailers"))),
    Case("early_hint", get()),
    Case("push", push, 2),
    Case("echo.h2", websocket, without=("granian",)),
]  # fmt: skip


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("tls")
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    subject = ["-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *subject, *files], check=True, capture_output=True)
    return certificate, key


@pytest.fixture
def tls_pair(server: str, started: Sites, certificate: tuple[Path, Path]) -> Pair:
    names = TLS[server]
    values: list[Any] = [*map(str, certificate), "/root"]
    return started.get(server, "tls", dict(zip(names, values, strict=True)))


def context(certificate: tuple[Path, Path], *protocols: str) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(certificate[0]))
    made.set_alpn_protocols(list(protocols))
    return made


def speaking_http2(cases: Iterable[Case]) -> list[Case]:
    return [replace(case, talk=Conversation2) for case in cases]


def named(cases: Iterable[Case], *names: str) -> list[Case]:
    return [case for case in cases if case.name in names]


OVER_TLS = [
    *named(test_http1.SCOPES, "plain.get", "plain.percent", "plain.absolute", "plain.pipelined"),
    *named(test_http1.UPLOADS, "upload.chunked", "upload.big", "refuse_then_read.small"),
    *named(test_http1.RESPONSES, "pieces", "large", "stream_left", "headers"),
    *named(test_websocket.CASES, "echo.text", "echo.1mb", "echo.target", "subprotocol", "deny"),
]


def test_tls(tls_pair: Pair, certificate: tuple[Path, Path]) -> None:
    """HTTP/1.1 and WebSockets over TLS, and a root path."""
    check(tls_pair, OVER_TLS, tls=context(certificate, "http/1.1"))


@pytest.mark.parametrize("http2_server", ["granian", "hypercorn"])
def test_http2(started: Sites, http2_server: str) -> None:
    """HTTP/2 of prior knowledge."""
    pytest.importorskip(http2_server)
    check(started.get(http2_server), speaking_http2(CASES))


@pytest.mark.parametrize("server", ["hypercorn"], indirect=True)
def test_http2_over_tls(tls_pair: Pair, certificate: tuple[Path, Path]) -> None:
    check(tls_pair, speaking_http2(CASES), tls=context(certificate, "h2"))
