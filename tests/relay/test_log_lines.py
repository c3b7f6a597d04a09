"""Nobody who sends something can begin a line of the log."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import pytest

import chansup.layer
import chansup.worker  # noqa: F401
from chansup.log_lines import OneLineFormatter, traceback_of
from chansup.relay.interface.response import BrokenResponseError
from chansup.text import visible
from tests.relay.both_sides import relayed, until

FORGED = "/x\nchansup | SIGTERM: stopping\r\x1b[2J\u2028\u202e\x85"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/caf\u00e9 \u4f60\u597d", "/caf\u00e9 \u4f60\u597d"),
        ("a\nb\r\x1b[2J", "a\\nb\\r\\x1b[2J"),
        ("\u2028\u202e\x85\ud800", "\\u2028\\u202e\\x85\\ud800"),
    ],
)
def test_what_is_not_printable_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(
    "name", ["chansup.relay", "chansup.worker", "chansup.layer", "chansup.layer.hub"]
)
def test_every_logger_of_ours_keeps_a_message_on_one_line(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger(name).error("%s %r: 100 %% of %d", FORGED, "a\nb", 5)
    (record,) = caplog.records
    assert len(record.getMessage().splitlines()) == 1
    assert record.getMessage().endswith("'a\\nb': 100 % of 5")


def test_a_message_of_others_is_kept_on_one_line_and_its_traceback_follows() -> None:
    try:
        raise ValueError("what")
    except ValueError as error:
        info = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("django.request", 40, __file__, 1, "Error: %s", (FORGED,), info)
    shown = OneLineFormatter("%(message)s").format(record).splitlines()
    assert shown[0].startswith("Error: /x\\nchansup")
    assert shown[1] == "Traceback (most recent call last):"


def test_what_an_exception_quotes_stays_a_part_of_it() -> None:
    shown = traceback_of(ValueError(FORGED)).splitlines()
    assert shown == [
        "ValueError: /x",
        "    chansup | SIGTERM: stopping\\r\\x1b[2J\\u2028\\u202e\\x85",
    ]
    error = KeyError("second")
    error.__cause__ = ValueError(FORGED)
    told = traceback_of(error).splitlines()
    assert told[0] == "ValueError: /x" and told[-1] == "KeyError: 'second'"
    assert "The above exception was the direct cause of the following exception:" in told


async def raises(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[Any]],
    send: Callable[[Any], Awaitable[None]],
) -> None:
    if scope["type"] == "http" and scope["query_string"] == b"broken":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
    raise ValueError(scope["path"])


@pytest.mark.parametrize("query", [b"", b"broken"])
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_path_is_on_one_line_wherever_it_is_printed(
    kind: str, query: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    scope: dict[str, Any] = {
        "type": kind, "http_version": "1.1", "method": "GET", "path": FORGED, "raw_path": b"/",
        "query_string": query, "headers": [], "subprotocols": [], "scheme": "http",
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"} if kind == "http" else {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        pass

    async def run() -> None:
        async with relayed(raises) as both:
            with contextlib.suppress(BrokenResponseError):
                await both(scope, receive, send)
            await until(lambda: caplog.records)

    asyncio.run(run())
    lines = [line for record in caplog.records for line in record.getMessage().splitlines()]
    assert lines
    assert not [line for line in lines if line.startswith("chansup | SIGTERM")]
