"""What a rollout tells: to the log, and to whoever asked for it."""

from collections.abc import Callable
from typing import Literal, Protocol

from chansup.protocol.status import Event
from chansup.supervisor.logs.levels import Level
from chansup.supervisor.plan.generation import Generation
from chansup.supervisor.plan.specification import PoolSpecification
from chansup.supervisor.pool.pool import Pool
from chansup.supervisor.pool.slot import Slot

Outcome = Literal["running", "succeeded", "failed", "superseded", "aborted"]


class AnnouncementHost(Protocol):
    """What announcements ask of the site."""

    pools: dict[str, Pool]

    def desired_in(self, specification: PoolSpecification) -> int:
        """Return how many slots a pool gets."""

    def say(self, text: str, level: Level = "info") -> None:
        """Write a line to the log."""


class Announcements:
    """Those of one rollout."""

    def __init__(
        self, site: AnnouncementHost, generation: Generation, tell: Callable[[Event], None]
    ) -> None:
        self.message = ""  # the last one
        self._site = site
        self._generation = generation
        self._tell = tell

    def total(self) -> int:
        """How many slots the new generation wants."""
        return sum(self._site.desired_in(pool) for pool in self._generation.pools.values())

    def done(self) -> int:
        """How many slots run the new generation."""
        return sum(
            slot.serves and slot.runs(self._generation)
            for pool in self._site.pools.values()
            for slot in pool.slots
        )

    def output(self, message: str, lines: list[str]) -> None:
        """Tell what a process printed that failed."""
        self._tell(Event(type="output", message=message, lines=lines))

    def progress(self, message: str, *, step: str, slot: Slot | None = None) -> None:
        """Tell of a step, perhaps of one slot."""
        self.message = message
        self._site.say(f"rollout {self._generation.number}: {message}")
        self._tell(
            Event(
                type="progress",
                message=message,
                pool=slot.pool.name if slot else "",
                slot=slot.name if slot else "",
                step=step,
                done=self.done(),
                total=self.total(),
                generation=self._generation.number,
            )
        )

    def result(self, outcome: Outcome, message: str) -> None:
        """Tell how it ended."""
        self.message = message or {
            "superseded": "another reload took its place",
            "aborted": "the supervisor is stopping",
        }.get(outcome, outcome)
        level: Level = "info" if outcome == "succeeded" else "warning"
        self._site.say(f"rollout {self._generation.number}: {outcome}: {self.message}", level)
        self._tell(
            Event(
                type="result",
                message=self.message,
                generation=self._generation.number,
                outcome=outcome,
                exit_code=0 if outcome == "succeeded" else 1,
                done=self.done(),
                total=self.total(),
            )
        )
