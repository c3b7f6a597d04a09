"""Requests, WebSockets, deploys and crashes in any order: nobody is forgotten, the books are even.

One interface and some workers in one loop, so that any moment is as good as any other.
"""

import asyncio
import logging
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from chansup.protocol import relay_board
from chansup.relay.frames import MAX_STREAM
from tests.relay.both_sides import BothSides, relayed, until
from tests.relay.clients import Request, WebSocket
from tests.relay.echo_app import app
from tests.relay.test_broken_peers import run

CONCURRENCY = 3
UPLOAD: dict[str, Any] = {"method": "POST", "headers": [(b"transfer-encoding", b"chunked")]}
STEPS = {
    "turn": 6,  # of the loop
    "pause": 2,
    "get": 3,
    "post": 2,
    "unfinished": 1,
    "open": 3,
    "say": 8,
    "say much": 2,
    "leave": 2,
    "deploy": 2,
    "kill": 2,
}


class Course:
    def __init__(self, both: BothSides, dice: list[int]) -> None:
        self.both = both
        self.dice = dice
        self.requests: list[Request] = []
        self.websockets: list[WebSocket] = []
        self.gone: list[WebSocket] = []
        self.kills = 0

    def pick(self, among: list[Any]) -> Any:
        return among[self.dice.pop() % len(among)] if self.dice else among[-1]

    async def step(self, name: str) -> None:
        both = self.both
        if name == "turn":
            await asyncio.sleep(0)
        elif name == "pause":
            await asyncio.sleep(0.002)
        elif name == "get":
            self.requests.append(Request(both))
        elif name == "post":
            self.requests.append(Request(both, b"x" * 20_000, b"y", path="/streamed", **UPLOAD))
        elif name == "unfinished":
            self.requests.append(Request(both, b"x", complete=False, **UPLOAD))
        elif name == "open":
            self.websockets.append(WebSocket(both))
        elif name.startswith("say") and self.websockets:
            one = self.pick(self.websockets)
            one.say(f"{one.said + 1} " + "x" * (50_000 if name == "say much" else 0))
        elif name == "leave" and self.websockets:
            one = self.pick(self.websockets)
            self.websockets.remove(one)
            self.gone.append(one)
            one.leave()
        elif name == "deploy":
            former = list(both.app_workers.values())
            await both.add_worker()
            for worker in former:
                worker.drain()
        elif name == "kill":
            self.kills += 1
            both.kill(self.pick([worker for worker in both.app_workers if worker.usable]))
            if not any(worker.usable for worker in both.app_workers):
                await both.add_worker()

    async def end(self) -> None:
        for one in self.websockets:
            await self.check(one)
            one.leave()
        for one in [*self.websockets, *self.gone]:
            assert await one.end() is None
            assert not one.close_code, "it was closed"
        for request in self.requests:
            request.leave()
            raised = await request.end()
            if raised is not None:
                assert self.kills and type(raised).__name__ == "BrokenResponseError"
            elif request.status:
                assert request.status == 200 or self.kills
        await until(lambda: not any(worker.streams for worker in self.both.app_workers))
        for gauge in relay_board.GAUGES:
            assert self.both.cells[gauge] == 0, gauge
        for worker, app_worker in self.both.app_workers.items():
            assert worker.used == 0 or worker.is_closed
            await until(lambda it=app_worker: not it.counters._in_hand.requests)  # type: ignore[misc]

    async def check(self, one: WebSocket) -> None:
        """Have the last message answered, and look at all answers before."""
        for _ in range(self.kills + 1):
            one.say(f"{one.said + 1} ")
        last = f"{one.said} "
        await until(lambda: one.sent and one.sent[-1].get("text") == last)
        numbers = [int(event["text"].split()[0]) for event in one.sent if "text" in event]
        if self.kills:  # one message may be lost with each worker, or answered and not confirmed
            assert numbers == sorted(set(numbers))
            assert one.said - len(numbers) <= self.kills
        else:
            assert numbers == list(range(1, one.said + 1))


@settings(deadline=None, max_examples=60)
@given(
    steps=st.lists(
        st.sampled_from([name for name, weight in STEPS.items() for _ in range(weight)]),
        max_size=40,
    ),
    dice=st.lists(st.integers(0, 1000), max_size=30),
)
@example(steps=["open", "pause", "say much", "deploy", "leave"], dice=[])
@example(steps=["open", "open", "pause", "say", "turn", "deploy", "turn", "say", "kill"], dice=[])
def test_nobody_is_forgotten(steps: list[str], dice: list[int]) -> None:
    async def scenario() -> None:
        async with relayed(app, concurrency=CONCURRENCY, workers=2) as both:
            course = Course(both, list(dice))
            for step in steps:
                await course.step(step)
            await course.end()

    logging.getLogger("chansup.relay").setLevel(logging.CRITICAL)
    try:
        run(scenario)
    finally:
        logging.getLogger("chansup.relay").setLevel(logging.NOTSET)


def test_the_numbers_of_streams_come_round() -> None:
    async def scenario() -> None:
        async with relayed(app, concurrency=CONCURRENCY) as both:
            (worker,) = both.app_workers
            lasting = WebSocket(both)
            assert await lasting.ask("before") == "before"
            first = next(iter(worker.streams))
            worker._next = MAX_STREAM - 1
            (other_side,) = both.app_workers[worker]._interfaces
            other_side._last = MAX_STREAM - 2
            for _ in range(first + 4):
                assert await Request(both).answer() == (200, b"")
                assert await Request(both, b"x", **UPLOAD).answer() == (200, b"x")
                assert await lasting.ask("still") == "still"
            assert worker._next < 100
            lasting.leave()
            await lasting.end()

    run(scenario)
