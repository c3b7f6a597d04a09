"""Commands to a pool that still waits for others: they go by the rules of the start."""

import asyncio
from pathlib import Path
from typing import Any

from chansup.protocol.status import Event
from chansup.supervisor.api.operations import Operations, Shutdown
from tests.supervisor.pretend import Nothing, Pretended, PretendProcess

CHAIN = """
[programs.first]
command = "first"
ready = "notify"

[programs.second]
command = "second"
ready = "notify"
after = ["first"]

[programs.third]
command = "third"
ready = "notify"
after = ["second"]
"""
WITH_TASK = """
[programs.base]
command = "base"
ready = "notify"

[tasks.migrate]
command = "migrate"
after = ["base"]
before = ["web"]

[programs.web]
command = "web"
ready = "notify"
"""


class Commanded:
    """A pretended site that takes commands, and whose processes become ready when told to."""

    def __init__(self, path: Path, config: str) -> None:
        self.pretended = Pretended(path / "chansup.toml", config)
        anything: Any = Nothing()
        self.operations = Operations(
            self.pretended.site, anything, anything, Shutdown(), lambda: None
        )
        self.pretended.processes.boots = lambda process: None
        self.pretended.site.start()

    def alive(self, pool: str) -> list[PretendProcess]:
        """Return the processes of a pool, or of a task."""
        alive = self.pretended.processes.alive()
        return [process for process in alive if process.slot.partition(".")[0] == pool]

    async def make_ready(self, pool: str) -> None:
        """Wait for the processes of a pool, and let them be ready."""
        await self.pretended.until(lambda: self.alive(pool))
        for process in self.alive(pool):
            process.became_ready()

    def born(self) -> list[str]:
        """Return the slots of all processes that ever were, in their order."""
        return [process.slot for process in self.pretended.processes.born]


async def told(events: Any) -> list[Event]:
    return [event async for event in events]


def result_of(events: list[Event]) -> tuple[str | None, str]:
    return events[-1].outcome, events[-1].message


def test_a_restart_of_a_pool_that_waits_waits_along(tmp_path: Path) -> None:
    async def scenario() -> None:
        site = Commanded(tmp_path, CHAIN)
        restarts = [
            asyncio.create_task(told(site.operations.restart(target)))
            for target in ("third", "third.0")
        ]
        await site.pretended.until(lambda: site.alive("first"))
        await asyncio.sleep(0.02)
        assert site.born() == ["first.0"]
        for pool in ("first", "second", "third"):
            assert not any(restart.done() for restart in restarts)
            await site.make_ready(pool)
        for restart in restarts:
            events = await restart
            messages = [event.message for event in events]
            assert messages[:2] == ["third waits for second", "second waits for first"]
            end = "third had not started yet; it has now, with 1 process"
            assert result_of(events) == ("succeeded", end)
        assert site.born() == ["first.0", "second.0", "third.0"]

    asyncio.run(scenario())


def test_a_restart_of_all_names_what_waits(tmp_path: Path) -> None:
    async def scenario() -> None:
        site = Commanded(tmp_path, CHAIN.replace('after = ["second"]', ""))
        await site.make_ready("third")
        outcome, message = result_of(await told(site.operations.restart(None)))
        assert outcome == "succeeded"
        assert "; second has not started yet, it waits for first" in message

    asyncio.run(scenario())


def test_a_scale_of_a_pool_that_waits_starts_nothing_early(tmp_path: Path) -> None:
    async def scenario() -> None:
        site = Commanded(tmp_path, CHAIN)
        none = await told(site.operations.scale("second", 0))
        assert result_of(none) == ("succeeded", "second starts no processes")
        scale = asyncio.create_task(told(site.operations.scale("second", 3)))
        await site.pretended.until(lambda: site.alive("first"))
        await asyncio.sleep(0.02)
        assert site.born() == ["first.0"]
        await site.make_ready("first")
        await site.pretended.until(lambda: len(site.alive("second")) == 3)
        await site.make_ready("second")
        assert result_of(await scale) == ("succeeded", "second has 3 of 3 processes ready")

    asyncio.run(scenario())


def test_what_is_waited_for_fails(tmp_path: Path) -> None:
    async def scenario() -> None:
        site = Commanded(tmp_path, WITH_TASK)
        scale = asyncio.create_task(told(site.operations.scale("web", 2)))
        restart = asyncio.create_task(told(site.operations.restart("web")))
        await site.make_ready("base")
        await site.pretended.until(lambda: site.alive("migrate"))
        site.alive("migrate")[0].end(3)
        for events in (await scale, await restart):
            outcome, message = result_of(events)
            assert outcome == "failed"
            assert message.startswith("task migrate: exit code 3; web waits for it")
        assert not site.alive("web")
        again = asyncio.create_task(told(site.operations.restart("web")))
        assert result_of(await again)[0] == "failed"  # it pauses before its next attempt
        await site.pretended.until(lambda: site.alive("migrate"))
        site.alive("migrate")[0].end(0)
        await site.pretended.until(lambda: len(site.alive("web")) == 2)

    asyncio.run(scenario())


def test_a_reload_runs_a_task_after_what_it_waits_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        site = Commanded(tmp_path, WITH_TASK)
        await site.pretended.until(lambda: site.alive("base"))
        reload = asyncio.create_task(told(site.operations.reload()))
        await asyncio.sleep(0.02)
        assert not site.alive("migrate") and not site.alive("web")
        await site.make_ready("base")
        await site.pretended.until(lambda: site.alive("migrate"))
        assert not site.alive("web")
        site.alive("migrate")[0].end(0)
        while not reload.done():
            for process in site.pretended.processes.alive():
                process.became_ready()
            await asyncio.sleep(0.005)
        assert result_of(await reload)[0] == "succeeded"

    asyncio.run(scenario())


def test_a_stop_ends_the_wait(tmp_path: Path) -> None:
    async def scenario() -> None:
        site = Commanded(tmp_path, CHAIN)
        scale = asyncio.create_task(told(site.operations.scale("third", 2)))
        await site.pretended.until(lambda: site.alive("first"))
        deadline = asyncio.get_running_loop().time() + 5
        await site.pretended.site.stop(deadline, asyncio.Event())
        outcome, message = result_of(await scale)
        assert outcome == "failed"
        assert "it was stopped before it had started" in message

    asyncio.run(scenario())
