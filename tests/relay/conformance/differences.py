"""The one table of what differs through the relay, and why. Whatever else differs is a defect."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

ABSENT = "absent"
ANY = object()


@dataclass(frozen=True)
class Difference:
    """Where the two may differ: all four are regular expressions that must match the whole."""

    case: str
    server: str
    place: str  # "app.0.scope.extensions.chansup.handover"
    reason: str
    direct: Any = ANY
    relayed: Any = ANY

    def covers(self, case: str, server: str, place: str, direct: Any, relayed: Any) -> bool:
        return bool(
            re.fullmatch(self.case, case)
            and re.fullmatch(self.server, server)
            and re.fullmatch(self.place, place)
            and self.direct in (ANY, direct)
            and self.relayed in (ANY, relayed)
        )


# Apps that break the rules, or raise before a response: the relay answers in its own words.
NO_RESPONSE = (
    r"raises|silent|no_start|nonsense|trailers_first|(deny_raises|deny_returns|send_first)"
)
BROKEN_WEBSOCKET = (
    r"accept_raises|accept_returns|receive_raises|accept_twice|bad_message|bad_text|send_closed"
)
MISUSE = r"bad_type|bad_text|bad_message|body_twice|send_first|send_closed|start_twice|no_start|nonsense|trailers_first|trailers_late|hint_late"

DIFFERENCES = [
    Difference(
        ".*", ".*", r"app\.\d+\.scope\.extensions\.chansup\.handover(\..*)?",
        "The relay offers it.", direct=ABSENT,
    ),
    Difference(
        ".*", ".*", r"app\.\d+\.scope\.asgi\.spec_version",
        "The relay keeps to this one for HTTP, whatever the server says.", relayed="s:2.3",
    ),
    Difference(
        ".*", ".*", r"app\.\d+\.scope\.asgi\.spec_version",
        "And to this one for WebSockets: send() raises OSError once the client has gone.",
        relayed="s:2.4",
    ),
    Difference(
        r"(long_poll_left|stream_left).*", ".*", r"app\.0\.events\.\d+\..*",
        "As of ASGI 2.4 send() raises OSError once the client has gone.", direct=ABSENT,
    ),
    Difference(
        ".*", ".*", r"app\.\d+\.events\.\d+\.1\.(bytes|text)",
        "The relay leaves out what is None, as ASGI allows.", direct=None, relayed=ABSENT,
    ),
    Difference(
        ".*", ".*", r"app\.\d+\.events\.\d+\.1\.reason",
        "The relay always gives a reason with a disconnect, as of ASGI 2.3: none is empty.",
        direct=ABSENT, relayed="s:",
    ),
    Difference(
        ".*", "granian|hypercorn", r"app\.\d+\.scope\.extensions",
        "None is offered: the relay may leave the key out, a server offers what is not carried.",
    ),
    Difference(
        ".*", "granian", r"app\.\d+\.scope\.extensions\.(http\.response\.pathsend|websocket\..*)",
        "granian offers WebSocket's extensions to HTTP, too; files are not carried: the worker may "
        "see others than the interface.", direct={}, relayed=ABSENT,
    ),
    Difference(
        "pathsend", "granian", r"client\..*|app\.0\.events",
        "Not offered, so the app sends something else.",
    ),
    Difference(
        ".*", "daphne", r"app\.\d+\.scope\.(scheme|http_version|state\..*|state)",
        "daphne leaves it out; the relay says what ASGI's defaults are, and workers have a lifespan.",
        direct=ABSENT,
    ),
    Difference(
        "state", "daphne", r"app\.\d+\.events.*", "daphne has no lifespan, workers have.",
    ),
    Difference(
        r"close\..*", "hypercorn|granian|daphne", r"app\.0\.events\.1\.1\.(code|reason)",
        "Behind the relay the app is told the code that it closed with, as by uvicorn.",
    ),
    Difference(
        "send_left", ".*", r"app\.0\.(outcome|events\.2\..*)",
        "As of ASGI 2.4 send() raises OSError once the client has gone.",
    ),
    Difference(
        "receive_left", ".*", r"app\.0\.outcome",
        "Asked again after the end, the relay repeats it, as uvicorn does for HTTP.",
        relayed="returned",
    ),
    Difference(
        "refuse_then_read.*", "granian|hypercorn|daphne", r"app\.0\.events\..*",
        "After the response, the relay says http.disconnect whatever came, as uvicorn does.",
    ),
    Difference(
        "refuse_then_read.*", "hypercorn", r"app\.0\.outcome",
        "By then hypercorn alone has sometimes (1 in 16, over TLS) ended the connection, and raises.",
        direct="raised OSError", relayed="returned",
    ),
    Difference(
        r"(pieces|crumbs).*", "granian", r"client\..*",
        "The relay joins pieces that are sent without a pause; granian gives a response of one "
        "piece its length.",
    ),
    Difference(
        r"large\.head", "granian", r"app\.\d\.(outcome|events.*)",
        "granian says that the client has gone when the head of the response was sent: time decides "
        "whether the app is still sending.",
    ),
    Difference(
        r"minimal.*", "granian", r"(client|app\.\d)\..*",
        "granian demands headers and a body, though ASGI has defaults for them.",
    ),
    Difference(
        "bad_type", "granian", r"client\..*",
        "The relay refuses the message where the app sends it.",
    ),
    Difference(
        r"echo\.close-none", "daphne", r"app\.0\.events\.1\.1\.code",
        "daphne says None.", direct=None, relayed=1005,
    ),
    Difference(
        "upload.chunked-trailers", "uvicorn", r"app\.0\.scope\.headers\.3\.\d",
        "uvicorn adds trailers to the scope when they come: time decides whether the app sees them.",
    ),
    Difference(
        "refuse.*", "granian", r"client\.0\.2\.\d+",
        "Whether granian closes the connection depends on how much of the upload has come when "
        "the response begins: time decides, also without the relay.",
    ),
    Difference(
        "refuse.early", "hypercorn", r"app\.0\.outcome",
        "hypercorn cancels an app whose stream has ended, if it has not returned: time decides.",
    ),
    Difference(
        "too_long|too_short", ".*", r"app\.0\.(outcome|events.*)",
        "send() does not wait for the server in the other process, so that it cannot raise what "
        "the server says of the message. The client gets the same.",
    ),
    Difference(
        NO_RESPONSE, ".*", r"(client|app\.1)\..*",
        "The relay answers with a 500 of its own, and keeps the connection.",
    ),
    Difference(
        BROKEN_WEBSOCKET, ".*", r"client\..*",
        "The relay always closes with a code: 1011 for an app that raised, 1000 for one that "
        "returned. Servers do so or break off.",
    ),
    Difference(
        MISUSE, ".*", r"app\.0\.(outcome|events.*)",
        "The relay refuses what breaks the rules where the app sends it; some servers let it pass.",
    ),
    Difference(
        "deny_response", "granian", r"app\.0\.(outcome|events.*)",
        "granian takes one body only, and the relay joins the two.",
    ),
    Difference(
        "receive_left", ".*", r"app\.0\.events(\.2.*)?",
        "Asked again after the end, the relay repeats it, as uvicorn does for HTTP.",
    ),
]  # fmt: skip


def unexpected(case: str, server: str, direct: Any, relayed: Any) -> list[str]:
    """Return what differs and is not in the table."""
    first, second = dict(flat(direct)), dict(flat(relayed))
    places = [*first, *(place for place in second if place not in first)]
    return [
        f"{place}: {first.get(place, ABSENT)!r} directly, {second.get(place, ABSENT)!r} relayed"
        for place in places
        if first.get(place, ABSENT) != second.get(place, ABSENT)
        and not any(
            row.covers(case, server, place, first.get(place, ABSENT), second.get(place, ABSENT))
            for row in DIFFERENCES
        )
    ]


def flat(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each leaf of a document with the way to it."""
    parts: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        parts = list(value.items())
    elif isinstance(value, list):
        parts = list(enumerate(value))
    if not parts:
        yield place, value
    for key, part in parts:
        yield from flat(part, f"{place}.{key}" if place else str(key))
