"""App workers count as ready when an interface process has greeted them, and when that matters."""

import asyncio
from pathlib import Path

import pytest

from chansup.protocol import roster
from chansup.supervisor.api import report
from chansup.supervisor.errors import StartFailedError
from chansup.supervisor.pool.replacement import replace
from tests.supervisor.pretend import Pretended, PretendProcess
from tests.supervisor.test_roster import OTHER, RELAY, in_a_loop


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chansup.toml"


def answers(monkeypatch: pytest.MonkeyPatch, refusal: str | None, of: str = "web") -> None:
    """Have interface processes say `refusal` of each worker of a pool; None: nothing at all."""
    greet = PretendProcess.greet

    def answer(self: PretendProcess, worker: PretendProcess) -> None:
        if worker.specification.name != of:
            greet(self, worker)
        elif refusal and self.reader is not None and worker.address and worker.has_booted:
            self.reader.send(roster.encode(roster.Greeted(worker.address, refusal)))

    monkeypatch.setattr(PretendProcess, "greet", answer)


def test_a_worker_that_nobody_greets_is_not_ready(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        site = Pretended(path, RELAY.replace("start_timeout = 5", "start_timeout = 0.3"))
        await site.start()
        before = site.of("web")
        answers(monkeypatch, None)
        with pytest.raises(
            StartFailedError, match=r"no interface process has greeted it within 0\.3 s"
        ):
            await replace(site.site.pools["web"].slots[0], None, "command")
        assert site.of("web") == before
        assert await site.reload() == "failed"
        assert site.of("web") == before
        await site.stop()

    asyncio.run(run())


def test_a_worker_that_is_refused_ends_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        site = Pretended(path, RELAY)
        await site.start()
        before = site.of("web")
        answers(monkeypatch, "it speaks another language")
        with pytest.raises(
            StartFailedError, match="cannot speak to it: it speaks another language;"
        ):
            await replace(site.site.pools["web"].slots[0], None, "command")
        assert site.of("web") == before
        await site.stop()

    asyncio.run(run())


@in_a_loop
async def test_without_an_interface_a_worker_is_ready_by_itself(path: Path) -> None:
    site = Pretended(path, RELAY)
    site.processes.boots = lambda process: None if process.specification.relays else True
    site.site.start()
    await site.until(lambda: site.site.pools["web"].ready == 2)
    assert not site.site.pools["interface"].ready
    await site.stop()


def test_an_interface_that_can_serve_some_pools_starts_and_says_which_not(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        answers(monkeypatch, "it speaks another language", of="other")
        site = Pretended(path, RELAY + OTHER)
        await site.start()
        reasons = report.reasons_not_ready(site.site)
        assert "other: interface.0 cannot speak to its workers: it speaks another language" in (
            reasons
        )
        with pytest.raises(StartFailedError, match="cannot speak to the workers of other"):
            await replace(site.site.pools["interface"].slots[0], None, "command")
        await site.stop()

    asyncio.run(run())
