"""A slot, driven with every order of what can happen to it.

The processes stand in for real ones, so that thousands of histories fit into seconds; what a slot
does with real ones is in tests/system.
"""

import asyncio
import signal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chansup.backoff import Backoff
from chansup.clock import Moment
from chansup.config import load
from chansup.protocol.states import Event, State, after
from chansup.supervisor.errors import SlotRemovedError, StartFailedError
from chansup.supervisor.logs.recent_lines import RecentLines
from chansup.supervisor.plan.building import build
from chansup.supervisor.plan.generation import Generation
from chansup.supervisor.plan.specification import PoolSpecification
from chansup.supervisor.pool.pool import Pool
from chansup.supervisor.pool.replacement import replace
from chansup.supervisor.pool.slot import Slot
from chansup.supervisor.process.process import Exit, Process

CONFIG = """
[programs.one]
command = "anything"
ready = "notify"
stop_timeout = 0.05
start_timeout = 5
on_reload = "{how}"
"""
HUB = """
[programs.one]
command = "anything"

[channel_layer]

[rollout]
stop_timeout = 0.05
settle = 0.01
drain_spread = 0.01
keep_alive = 0.01
"""


class StandIn(Process):
    """A process without a child: it ends when it is told to."""

    def __init__(
        self,
        slot: Slot,
        specification: PoolSpecification,
        generation: Generation,
        takes_over: bool,
    ) -> None:
        self.serving = False
        self.takes_over = takes_over
        self.slot = slot.name
        self.specification = specification
        self.generation = generation
        self.pid = 1
        self.began, self.started_monotonic = Moment(), 0.0
        self.state = after(State.GONE, Event.SPAWNED)
        self.scoreboard = None
        self.status = self.exit = self.draining_since = None
        self.late = self.hung = self.watchdog = False
        self.ready, self.accepts_no_more = asyncio.Event(), asyncio.Event()
        self.gone, self.settled = asyncio.Event(), asyncio.Event()
        self.ended = self.gone
        self.owner = slot
        self._on_leave = slot.on_draining

    def became_ready(self) -> bool:
        """A hub that takes over is ready when its predecessor has given it everything."""
        if self.takes_over and self.state is State.STARTING:
            for process in self.predecessors():
                process.serving = False
                asyncio.get_running_loop().call_soon(process.end, 0)
        self.serving = self.serving or self.exit is None
        return super().became_ready()

    def predecessors(self) -> "list[StandIn]":
        everybody = self.owner.pool.site.alive()  # type: ignore[attr-defined]
        return [process for process in everybody if process.serving]

    def signal(self, number: int) -> None:
        if number == signal.SIGTERM:
            asyncio.get_running_loop().call_soon(self.end, 0)

    def ask_to_end(self) -> None:
        self.signal(signal.SIGTERM)

    def kill_alone(self) -> None:
        self.end(-9)

    def kill(self) -> None:
        self.end(-9)

    def end(self, code: int) -> None:
        if self.exit is None:
            self.exit = Exit(code)
            self.state = after(self.state, Event.EXITED)
            for event in (self.accepts_no_more, self.settled, self.gone):
                event.set()
            self.owner.process_ended(self)


class Roster:
    """A roster that nobody reads."""

    def changed(self) -> None:
        pass

    async def published(self) -> None:
        pass


class Adopters:
    """Nothing here has WebSockets."""

    def look(self) -> None:
        pass

    def tell_leaving(self, process: Process) -> None:
        pass


class Site:
    """As much of a site as one slot asks for."""

    stopping = False
    settle = 0.0
    roster = Roster()
    adopters = Adopters()

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self.turns, self.spawning = asyncio.Semaphore(4), asyncio.Lock()
        self.born: list[StandIn] = []

    def spawn(
        self,
        slot: Slot,
        specification: PoolSpecification,
        generation: Generation,
        *,
        takes_over: bool = False,
    ) -> StandIn:
        self.born.append(StandIn(slot, specification, generation, takes_over))
        return self.born[-1]

    def recent_lines(self) -> RecentLines:
        return RecentLines(5)

    def say(self, text: str, level: str = "info") -> None:
        pass

    def crashed(self, slot: Slot) -> None:
        pass

    def alive(self) -> list[StandIn]:
        return [process for process in self.born if process.exit is None]


STEPS = (
    *("ready", "crash", "exit", "leave", "turn", "pause", "replace", "cancel", "restart"),
    *("give", "fail"),  # of a hub: the old one has given all it had; the new one ends
)


@pytest.mark.parametrize("how", ["overlap", "restart", "takeover"])
@settings(deadline=None, max_examples=150)
@given(steps=st.lists(st.sampled_from(STEPS), max_size=14), stops=st.booleans())
def test_any_history(
    tmp_path_factory: pytest.TempPathFactory, how: str, steps: list[str], stops: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / f"{how}.toml"
    path.write_text(HUB if how == "takeover" else CONFIG.format(how=how))
    asyncio.run(live(path, how, steps, stops))


@cache
def generations_of(path: Path) -> list[Generation]:
    loaded = load.load(path, {})
    return [build(number, loaded, {}) for number in range(1, 20)]


async def live(path: Path, how: str, steps: list[str], stops: bool) -> None:
    generations = generations_of(path)
    site: Any = Site(generations[0])
    pool = Pool(site, generations[0].pools["hub" if how == "takeover" else "one"])
    slot = Slot(pool, 0)
    pool.slots.append(slot)
    slot._retry._backoff = Backoff(base=0.001, cap=0.002)
    slot.start(generations[0])
    newest = 0
    commands: list[asyncio.Task[None]] = []
    for step in steps:
        current = slot.current
        if step == "ready":
            for process in site.alive():
                process.became_ready()
        elif step == "crash" and isinstance(current, StandIn):
            current.end(-11)
        elif step == "exit" and isinstance(current, StandIn):
            current.end(0)
        elif step == "leave" and current is not None:
            current.stopped_accepting()
        elif step == "give" and isinstance(slot.successor, StandIn):
            for process in slot.successor.predecessors() if slot.successor.takes_over else []:
                process.serving = False
                process.end(0)
        elif step == "fail" and isinstance(slot.successor, StandIn):
            slot.successor.end(1)
        elif step == "replace":
            newest += 1
            commands.append(asyncio.create_task(replace(slot, generations[newest], "reload")))
        elif step == "restart":
            commands.append(asyncio.create_task(replace(slot, None, "command")))
        elif step == "cancel" and commands:
            commands[-1].cancel()
        await asyncio.sleep(0.003 if step == "pause" else 0)
        check(slot, site, how)
    if stops:
        await asyncio.wait_for(slot.stop(), 5)
        assert slot.current is slot.successor is None
    # Whatever was begun comes to an end, once everything that boots becomes ready.
    async with asyncio.timeout(5):
        while not all(command.done() for command in commands) or not at_rest(slot):
            for process in site.alive():
                process.became_ready()
            await asyncio.sleep(0.001)
            check(slot, site, how)
    for command in commands:
        if not command.cancelled() and (error := command.exception()):
            assert isinstance(error, StartFailedError | SlotRemovedError)
    if stops:
        assert site.alive() == []
        assert slot.state is State.GONE
    else:
        assert slot.serves
        assert site.alive() == [slot.current]


def at_rest(slot: Slot) -> bool:
    return not slot.draining and (slot.stopped or slot.serves) and slot.successor is None


def check(slot: Slot, site: Site, how: str) -> None:
    known = slot.processes()
    assert len(known) == len(set(known))
    assert set(site.alive()) == set(known), (
        "a process that no table knows, or a dead one in a table"
    )
    assert slot.state in State
    if how == "takeover":
        assert sum(process.serving for process in site.alive()) <= 1, "two hubs on one socket"
    if how == "restart":
        working = [process for process in site.alive() if process.draining_since is None]
        assert len(working) <= 1, "two of a program that must not run twice"


def test_whoever_waits_for_a_slot_whose_process_hangs_lets_others_run(tmp_path: Path) -> None:
    path = tmp_path / "chansup.toml"
    path.write_text(CONFIG.format(how="overlap"))

    async def wait() -> None:
        (generation, *_) = generations_of(path)
        site: Any = Site(generation)
        slot = Slot(Pool(site, generation.pools["one"]), 0)
        slot.start(generation)
        while (process := slot.current) is None:
            await asyncio.sleep(0)
        assert isinstance(process, StandIn)
        process.became_ready()
        process.hung = True
        waiting = asyncio.create_task(slot.booted())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        process.end(-9)
        with pytest.raises(StartFailedError):
            await waiting

    asyncio.run(wait())
