"""Requests that two workers died with wait for their turn, and not for ever."""

import asyncio

import pytest

from chansup.protocol import relay_board as board
from chansup.relay.interface import quarantine
from tests.relay.both_sides import BothSides, Receive, Scope, Send, relayed, until
from tests.relay.clients import Request
from tests.relay.test_broken_peers import run

LATE = board.REJECTED + board.REJECTIONS.index("late")


class Hangs:
    """An app that never answers, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        await asyncio.sleep(3600)


async def become_suspect(both: BothSides, app: Hangs) -> None:
    """Kill two workers, one after the other, that work on the request, while another is tried."""
    both.pool.quarantine.enter("another", lambda: None)
    for asked in (1, 2):
        await until(lambda asked=asked: app.asked == asked)  # type: ignore[misc]
        (worker,) = both.app_workers
        await both.add_worker()
        both.kill(worker)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "_LONGEST", 3600.0)


def test_a_suspect_whose_turn_does_not_come_is_turned_away() -> None:
    app = Hangs()

    async def scenario() -> None:
        async with relayed(app, queue_timeout=0.3) as both:
            request = Request(both)
            await become_suspect(both, app)
            assert (await request.answer())[0] == 503
            (start, _) = request.sent
            assert (b"retry-after", b"1") in start["headers"]
            assert both.cells[LATE] == 1
            both.pool.quarantine.leave("another")
            await asyncio.sleep(0)
            assert app.asked == 2

    run(scenario)


def test_a_suspect_whose_client_leaves_is_not_tried() -> None:
    app = Hangs()

    async def scenario() -> None:
        async with relayed(app) as both:
            request = Request(both)
            await become_suspect(both, app)
            request.leave()
            assert await request.end() is None
            assert request.sent == []
            both.pool.quarantine.leave("another")
            await asyncio.sleep(0)
            assert app.asked == 2

    run(scenario)


def test_a_suspect_whose_turn_comes_is_tried() -> None:
    app = Hangs()

    async def scenario() -> None:
        async with relayed(app) as both:
            request = Request(both)
            await become_suspect(both, app)
            assert app.asked == 2
            both.pool.quarantine.leave("another")
            await until(lambda: app.asked == 3)
            request.leave()
            await request.end()

    run(scenario)
