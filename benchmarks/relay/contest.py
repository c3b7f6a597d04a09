"""Contenders that are up at the same time and measured in turns, so that a slow minute hits all."""

import contextlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Self, TypeVar

from benchmarks import report
from benchmarks.contenders import ByHand, Chansup, Contender, OwnReload, Relay, Site
from benchmarks.process import StartError

PEERS = ("uvicorn", "granian", "daphne")
CARRIERS = ("uvicorn", "granian", "hypercorn", "daphne")  # servers that carry the relay
PAGE = "shop.asgi:application"  # the Django project
DEFAULT = "site_asgi:application"

Sample = TypeVar("Sample")


class Contest:
    """Starts contenders, each with a site of its own, and stops them at the end."""

    def __init__(self, result: report.Report) -> None:
        self.result = result
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def enter(
        self,
        make: Callable[[str, Site], Contender],
        server: str,
        processes: int,
        *,
        application: str = DEFAULT,
        import_seconds: float = 0.0,
    ) -> Contender | None:
        """Start one. Return None, and say so in the report, if it does not come up."""
        root = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-"))
        site = Site(Path(root), processes, import_seconds, application)
        site.releases.deploy("1")
        if application == PAGE:
            _fill(site)
        contender = make(server, site)
        report.progress(f"starting {contender.label}")
        try:
            await self._stack.enter_async_context(contender)
        except StartError as error:
            report.progress(str(error))
            self.result.claim(f"{contender.label} starts", str(error).splitlines()[0], False)
            return None
        return contender

    async def enter_all(
        self, carriers: Sequence[str], peers: Sequence[str], processes: int, workers: int
    ) -> list[Contender]:
        """Start relays with one interface process, and peers; return those that came up."""
        entered = [await self.enter(Relay, server, workers) for server in carriers]
        entered += [await self.enter(peer, server, processes) for server in peers]
        return [contender for contender in entered if contender is not None]


def peer(server: str, site: Site) -> Contender:
    """Return the server alone, as people start it."""
    return (ByHand if server == "daphne" else OwnReload)(server, site)


def direct(server: str, site: Site) -> Contender:
    """Return the server under chansup, without the relay."""
    contender = Chansup(server, site)
    contender.label = f"direct, {server} x{site.processes}"
    return contender


def is_relay(contender: Contender) -> bool:
    """Say whether it is what is to be measured, and not what stands beside it."""
    return isinstance(contender, Relay)


async def in_turns(
    contenders: Sequence[Contender],
    rounds: int,
    what: str,
    measure: Callable[[Contender], Awaitable[Sample]],
) -> dict[str, list[Sample]]:
    """Measure each contender once a round; the first of one round is the last of the next."""
    samples: dict[str, list[Sample]] = {contender.label: [] for contender in contenders}
    for number in range(rounds):
        report.progress(f"{what}: round {number + 1} of {rounds}")
        place = number % len(contenders)
        for contender in (*contenders[place:], *contenders[:place]):
            samples[contender.label].append(await measure(contender))
    return samples


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, str]:
    """Return the median of the rounds' ratios, and how it looks with the smallest and largest."""
    ratios = [one / other for one, other in zip(ours, theirs, strict=True) if other]
    if not ratios:
        return 0.0, "–"
    middle = statistics.median(ratios)
    return middle, f"{middle:.3f} [{min(ratios):.3f}–{max(ratios):.3f}]"


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Return the median, with the smallest and the largest."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):,.{digits}f} [{low:,.{digits}f}–{high:,.{digits}f}]"


def _fill(site: Site) -> None:
    subprocess.run(
        [sys.executable, "-m", "shop.fill"], check=True, cwd=site.releases.current.resolve()
    )
