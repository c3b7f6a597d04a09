"""Scopes on their way to the worker: what the app gets is what the server gave."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chansup.relay import scopes
from chansup.relay.scopes import Resumption, ScopeError

QUICK = settings(deadline=None, max_examples=40)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
HEADERS = st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=30)), max_size=8)
ADDRESSES = st.one_of(
    st.none(),
    st.tuples(TEXT, st.one_of(st.none(), st.integers(0, 65535))),
    st.tuples(TEXT, st.integers(0, 65535)).map(list),
)
SHARED = {
    "http_version": st.sampled_from(["1.0", "1.1", "2", "3"]),
    "path": TEXT,
    "headers": HEADERS,
}
OPTIONAL = {
    "raw_path": st.one_of(st.none(), st.binary(max_size=40)),
    "query_string": st.binary(max_size=40),
    "root_path": TEXT,
    "client": ADDRESSES,
    "server": ADDRESSES,
}
HTTP = st.fixed_dictionaries(
    {"type": st.just("http"), **SHARED, "method": TEXT},
    optional={"scheme": st.sampled_from(["http", "https"]), **OPTIONAL},
)
WEBSOCKET = st.fixed_dictionaries(
    {"type": st.just("websocket"), "path": TEXT, "headers": HEADERS},
    optional={
        "http_version": SHARED["http_version"],
        "scheme": st.sampled_from(["ws", "wss"]),
        "subprotocols": st.lists(TEXT, max_size=3),
        **OPTIONAL,
    },
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), TEXT, st.binary()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=5,
)


def http_there(scope: dict[str, Any], state: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what the app gets."""
    return scopes.http_scope(scopes.decode_http(scopes.encode_http(scope, 1.5)), state)


def websocket_there(
    scope: dict[str, Any],
    resumption: Resumption | None = None,
    state: dict[str, Any] | None = None,
) -> dict[str, Any]:
    payload = scopes.opening(resumption or Resumption("a.1"), scopes.encode_websocket(scope, 1.5))
    told, fields = scopes.decode_websocket(payload)
    return scopes.websocket_scope(fields, told, state)


def address(value: Any) -> Any:
    return None if value is None else tuple(value)


def check(scope: dict[str, Any], there: dict[str, Any]) -> None:
    for key in ("path", "headers", "type"):
        assert there[key] == scope[key], key
    for key, default in {"query_string": b"", "root_path": ""}.items():
        assert there[key] == scope.get(key, default)
    assert there.get("raw_path") == scope.get("raw_path")
    assert ("raw_path" in there) == (scope.get("raw_path") is not None)
    assert address(there["client"]) == address(scope.get("client"))
    assert address(there["server"]) == address(scope.get("server"))
    assert there["asgi"]["version"] == "3.0"


@QUICK
@given(HTTP)
def test_an_http_scope_arrives_as_it_was(scope: dict[str, Any]) -> None:
    there = http_there(scope)
    check(scope, there)
    assert there["http_version"] == scope["http_version"]
    assert there["method"] == scope["method"]
    assert there["scheme"] == scope.get("scheme", "http")
    assert "state" not in there


@QUICK
@given(WEBSOCKET)
def test_a_websocket_scope_arrives_as_it_was(scope: dict[str, Any]) -> None:
    there = websocket_there(scope)
    check(scope, there)
    assert there["http_version"] == scope.get("http_version", "1.1")
    assert there["scheme"] == scope.get("scheme", "ws")
    assert there["subprotocols"] == scope.get("subprotocols", [])


def test_headers_keep_their_order_and_repeat() -> None:
    headers = [
        (b"cookie", b"a=1"),
        (b"x", b"\xff\x00"),
        (b"cookie", b"b=2"),
        (b"X", b""),
        (b"", b""),
    ]
    scope = {"type": "http", "http_version": "1.1", "method": "GET", "path": "/"}
    assert http_there({**scope, "headers": headers})["headers"] == headers
    assert http_there({**scope, "headers": tuple(headers)})["headers"] == headers
    assert http_there({**scope, "headers": [list(one) for one in headers]})["headers"] == headers


def test_what_only_the_server_may_use_does_not_leave_it() -> None:
    scope = {"type": "http", "http_version": "1.1", "method": "GET", "path": "/", "headers": []}
    there = http_there({**scope, "state": {"pool": object()}, "app": object(), "x": lambda: 1})
    assert not {"state", "app", "x", "extensions"} & set(there)


def test_each_scope_has_its_own_copy_of_the_workers_state() -> None:
    state = {"pool": object()}
    scope = {"type": "http", "http_version": "1.1", "method": "GET", "path": "/", "headers": []}
    there = http_there(scope, state)
    assert there["state"] == state
    there["state"]["mine"] = 1
    assert "mine" not in state
    there = websocket_there({**scope, "type": "websocket"}, state=state)
    assert there["state"] == state and there["state"] is not state


@QUICK
@given(st.dictionaries(st.one_of(TEXT, st.sampled_from(["tls", "http.response.trailers"])), VALUES))
def test_extensions_arrive_if_the_relay_carries_them(extensions: dict[str, Any]) -> None:
    scope = {"type": "http", "http_version": "2", "method": "GET", "path": "/", "headers": []}
    there = http_there({**scope, "extensions": extensions})
    known = {name: one for name, one in extensions.items() if name in scopes.EXTENSIONS["http"]}
    if extensions:
        assert there["extensions"] == known
    else:
        assert "extensions" not in there


def test_extensions_that_the_relay_does_not_carry_need_not_be_of_any_type() -> None:
    scope = {"type": "http", "http_version": "2", "method": "GET", "path": "/", "headers": []}
    offered = {
        "http.response.pathsend": {},
        "http.response.zerocopysend": object(),
        "tls": {"a": 1},
    }
    assert http_there({**scope, "extensions": offered})["extensions"] == {"tls": {"a": 1}}
    offered = {"websocket.http.response": {}, "http.response.trailers": {}, "odd": object()}
    there = websocket_there({**scope, "type": "websocket", "extensions": offered})
    assert set(there["extensions"]) == {"websocket.http.response", "chansup.handover"}


@QUICK
@given(
    st.integers(0, 1000), st.sampled_from([None, "deploy", "crash"]), st.one_of(TEXT, st.binary())
)
def test_the_app_is_told_of_a_handover(count: int, reason: str | None, checkpoint: Any) -> None:
    scope = {"type": "websocket", "path": "/", "headers": []}
    there = websocket_there(scope, Resumption("a.1", count, reason, checkpoint))
    assert there["extensions"]["chansup.handover"] == {
        "count": count,
        "reason": reason,
        "checkpoint": checkpoint,
    }


class Odd:
    pass


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    "odd",
    [
        {"path": "/\ud800"},
        {"path": "/a\udcffb"},
        {"root_path": "\udfff"},
        {"path": Odd()},
        {"headers": iter(())},
        {"headers": [(Odd(), b"")]},
        {"client": ("::1", 2**64)},
        {"client": Odd()},
        {"server": ENDLESS},
        {"extensions": {"tls": Odd()}},
        {"extensions": {"tls": {"server_cert": 2**70}}},
        {"extensions": {"tls": ENDLESS}},
    ],
    ids=lambda odd: next(iter(odd)),
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_scope_that_cannot_be_relayed_is_an_error_of_its_own(
    kind: str, odd: dict[str, Any]
) -> None:
    scope = {"type": kind, "http_version": "1.1", "method": "GET", "path": "/", "headers": []}
    encode = scopes.encode_http if kind == "http" else scopes.encode_websocket
    with pytest.raises(ScopeError):
        encode({**scope, **odd}, 0.0)


DECODERS = [
    scopes.decode_http,
    scopes.decode_websocket,
    scopes.decode_websocket_scope,
    scopes.decode_head,
    scopes.decode_accept,
    scopes.decode_event,
    scopes.decode_checkpoint,
]
SAMPLES = [
    scopes.encode_http(
        {
            "http_version": "1.1", "method": "POST", "scheme": "http", "path": "/é", "raw_path": b"/",
            "headers": [(b"host", b"x"), (b"a", b"b")], "client": ("::1", 80), "server": None,
            "extensions": {"tls": {"server_cert": None, "client_cert_chain": []}},
        },
        2.5,
    ),
    scopes.opening(Resumption("0123456789abcdef.12", 2, "crash", b"x"), scopes.encode_websocket({"path": "/", "headers": []}, 1)),
    scopes.encode_head({"status": 200, "headers": [(b"a", b"b")]}, False),
    scopes.encode({"type": "http.response.early_hint", "links": [b"</a>; rel=preload"]}),
]  # fmt: skip


@settings(deadline=None, max_examples=80)
@given(
    st.one_of(st.binary(max_size=60), st.sampled_from(SAMPLES)),
    st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=4),
    st.integers(0, 200),
)
def test_garbage_raises_one_kind_of_error(
    payload: bytes, changes: list[tuple[int, int]], length: int
) -> None:
    garbage = bytearray(payload)
    for place, value in changes:
        if garbage:
            garbage[place % len(garbage)] = value
    for decode in DECODERS:
        for data in (bytes(garbage), bytes(garbage[:length])):
            try:
                decode(data)
            except msgspec.DecodeError:
                pass


def test_text_that_is_not_utf_8_is_an_error_like_any_other() -> None:
    http = SAMPLES[0].replace("/é".encode(), b"/\xff\xfe")
    head = b"\x93" + scopes.encode("text")[:1] + b"\xff\xfe\xff\xfe\x90\xc2"
    event = b"\x81\xa2\xff\xfe\x01"
    accept = b"\x92\xa2\xff\xfe\x90"
    for decode, payload in (
        (scopes.decode_http, http),
        (scopes.decode_head, head),
        (scopes.decode_event, event),
        (scopes.decode_accept, accept),
    ):
        with pytest.raises(msgspec.DecodeError):
            decode(payload)


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("depth", [1000, 16_000])
def test_what_is_nested_too_deeply_is_an_error_like_any_other(decode: Any, depth: int) -> None:
    for prefix in (b"", b"\x81\xa1a", b"\x92", b"\x9d\x01"):
        for nesting in (b"\x91", b"\x81\xa1a"):
            with pytest.raises(msgspec.DecodeError):
                decode(prefix + nesting * depth)


@pytest.mark.parametrize(
    "events",
    [
        {"status": 200, "headers": [(b"a", b"b"), (b"a", b"c")]},
        {"status": 204},
        {"status": 200, "headers": ((b"a", b"b") for _ in range(2))},
        {"status": 200, "headers": [[b"a", b"b"]]},
    ],
)
def test_status_and_headers_arrive_as_they_were(events: dict[str, Any]) -> None:
    generated = not isinstance(events.get("headers", []), list)
    head = scopes.decode_head(scopes.encode_head(events, trailers=True))
    assert head.status == events["status"]
    assert head.trailers
    if generated:
        assert head.headers == [(b"a", b"b")] * 2
    else:
        assert head.headers == [tuple(one) for one in events.get("headers", [])]
