"""What a trial found, and how it is told."""

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from chansup.cli.trial.comparison import Answer, compare
from chansup.errors import ExitCode
from chansup.text import visible

Finding = Literal["survives", "closed", "left for dead", "unknown"]

_EXIT_CODES = {
    "survives": ExitCode.OK,
    "closed": ExitCode.CLOSED,
    "left for dead": ExitCode.LEFT_FOR_DEAD,
    "unknown": ExitCode.FAILED,
}
_SHOWN = 3  # answers of each kind
_LONGEST = 100  # characters of one
_REMEDY = (
    "What the app knew of this client was in the process that it left. Say so, and its clients are "
    'closed with 1012 and come back: [handover] close, handover = "close", or the app itself: '
    "chansup's documentation, which-apps-survive.md"
)


class Trial(msgspec.Struct, frozen=True):
    """What was heard. Each list of answers is that to the same messages."""

    url: str
    subprotocol: str | None
    stayed: list[list[Answer]]  # to what was said again, on connections that stayed
    moved: list[Answer]  # the same on the one that moved
    unasked: list[Answer]  # what came while it moved
    close_code: int | None  # of the one that moved


class Verdict(msgspec.Struct, frozen=True):
    """What became of the WebSocket, for people and for programs."""

    finding: Finding
    close_code: int | None
    explanation: str
    compared: str | None  # how strictly
    numbers_differ: bool  # where nothing else does
    stayed: list[str]
    moved: list[str]
    unasked: list[str]

    @property
    def exit_code(self) -> ExitCode:
        """What the command exits with."""
        return _EXIT_CODES[self.finding]

    def lines(self) -> Iterator[str]:
        """Yield what a person reads."""
        code = f" with {self.close_code}" if self.finding == "closed" else ""
        yield f"{self.finding}{code}: {self.explanation}"
        if self.unasked:
            yield "While it moved, without having asked, the client got:"
            yield from self.unasked
            if self.finding == "survives":
                yield "An app that greets its clients greets them again after each move, unless it"
                yield 'looks at "count" in scope["extensions"]["chansup.handover"].'
        if self.numbers_differ:
            yield "Numbers or ids differ from those on a connection that stayed. Process ids and"
            yield "times do that, and so does a counter that started from zero. On one that stayed:"
            yield from self.stayed
            yield "On the one that moved:"
            yield from self.moved
        if self.finding == "left for dead":
            yield "On a connection that stayed, the answers were:"
            yield from self.stayed or ["  none"]
            yield "On the one that moved:"
            yield from self.moved or ["  none"]
            yield _REMEDY


def judge(trial: Trial) -> Verdict:
    """Return what a trial means."""
    strictness, numbers_differ = None, False
    reference = trial.stayed[0]
    if trial.close_code is not None:
        finding, explanation = "closed", _of_code(trial.close_code)
    elif not any(trial.stayed):
        finding = "unknown"
        explanation = (
            "the app answers nothing on a connection that stays either: give what it answers, with "
            "--again, and what it wants to hear before, with --send"
        )
    else:
        comparison = compare(trial.stayed, trial.moved)
        strictness, numbers_differ = comparison.strictness, comparison.numbers_differ
        how = f"compared {strictness}" if strictness else "it speaks unasked: compared in part"
        if comparison.is_same:
            finding = "survives"
            explanation = f"after the move the app answers as on a connection that stayed ({how})"
        elif trial.moved:
            finding = "left for dead"
            explanation = f"after the move the app answers something else ({how})"
        else:
            finding = "left for dead"
            explanation = "after the move the connection is open, and nothing is answered"
    return Verdict(
        finding,  # type: ignore[arg-type]
        trial.close_code,
        explanation,
        strictness,
        numbers_differ,
        _shown(reference),
        _shown(trial.moved),
        _shown(trial.unasked),
    )


def _of_code(code: int) -> str:
    if code == 1012:
        return (
            "instead of moving it, chansup told the client to come back. Clients that connect "
            "again after a close, as libraries of such protocols do, lose nothing"
        )
    return (
        "the app refused the connection at the new process, or gave it up there: a handshake that "
        "works only once, perhaps. The client was told by the close code"
    )


def _shown(answers: Sequence[Answer]) -> list[str]:
    shown = [f"  {_short(answer)}" for answer in answers[:_SHOWN]]
    if len(answers) > _SHOWN:
        shown.append(f"  and {len(answers) - _SHOWN} more")
    return shown


def _short(answer: Answer) -> str:
    text = answer if isinstance(answer, str) else f"{len(answer)} bytes: {answer[:20].hex(' ')}"
    return visible(text[:_LONGEST]) + ("…" if len(text) > _LONGEST else "")
