"""What a case is, and how one is played on both sides."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

from .differences import unexpected
from .http1 import Broken, Conversation
from .processes import Side
from .rfc6455 import Client
from .sites import Pair


@dataclass(frozen=True)
class Case:
    """A conversation, named after the scenario that the app plays, up to the first dot."""

    name: str
    client: Callable[[Any], None]
    exchanges: int = 1  # times that the app is called
    without: tuple[str, ...] = ()  # servers that cannot play it even alone
    talk: Callable[..., Any] = Conversation  # what speaks: address, case, tls


@dataclass(frozen=True)
class WebSocketCase(Case):
    """A conversation by WebSocket."""

    talk: Callable[..., Any] = Client


def check(pair: Pair, cases: Iterable[Case], **more: Any) -> None:
    """Play cases, some at a time; what differs must stand in the table."""
    playable = [case for case in cases if pair.server not in case.without]
    with ThreadPoolExecutor(3) as several:
        found = list(chain(*several.map(lambda case: compare(pair, case, **more), playable)))
    assert not found, "\n".join(found)
    # Whatever an app does, it breaks nothing but its own exchange.
    assert "given up" not in pair.relayed.output(), pair.relayed.output()[-3000:]


def compare(pair: Pair, case: Case, **more: Any) -> list[str]:
    """Play a case on both sides at once; return the unexpected differences."""
    with ThreadPoolExecutor(2) as both:
        direct, relayed = both.map(lambda side: play(side, case, **more), pair.sides)
    return [
        f"{pair.server}, {case.name}: {difference}"
        for difference in unexpected(case.name, pair.server, direct, relayed)
    ]


def play(side: Side, case: Case, **more: Any) -> dict[str, Any]:
    """Return what client and app saw."""
    conversation = case.talk(side.address, case.name, **more)
    try:
        case.client(conversation)
    except Broken:
        conversation.note("broken off")
    finally:
        conversation.close()
    records = side.records(case.name, case.exchanges)
    for record in records:
        record.pop("number")
        record.setdefault("outcome", "never ended")
        normalise(record.get("scope", {}), conversation.port, side.port)
    return {"client": conversation.notes, "app": records}


def normalise(scope: dict[str, Any], client: int, server: int) -> None:
    """Replace ports, which differ from run to run, by what they are."""
    for key, port, name in (("client", client, "client's"), ("server", server, "server's")):
        if scope.get(key) and scope[key][1] in (port, f"s:{port}"):
            scope[key][1] = f"{name} port, as {type(scope[key][1]).__name__}"
    if "shared" in scope.get("state", {}):
        scope["state"]["shared"] = "a list"  # other cases add to it
