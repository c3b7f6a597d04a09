"""The life of a WebSocket in the relay, from one worker to the next, in one table."""

from enum import IntEnum, auto


class Phase(IntEnum):
    """Where a WebSocket stands."""

    SEEKING = auto()  # not accepted, and no worker works on it
    CONNECTING = auto()  # not accepted yet, a worker decides
    OPEN = auto()  # a worker has it
    LEAVING = auto()  # its worker was told to let it go, and finishes what it has in hand
    BETWEEN = auto()  # open for the client, and no worker has it
    REJOINING = auto()  # open for the client, another worker has not accepted it yet
    OVER = auto()


class Event(IntEnum):
    """What moves it on."""

    FOUND = auto()  # a worker for it
    ACCEPTED = auto()
    ASKED_TO_LEAVE = auto()
    LET_GO = auto()  # by the app, which has returned
    WORKER_DIED = auto()
    ENDED = auto()  # for the client, or for good


TRANSITIONS: dict[Phase, dict[Event, Phase]] = {
    Phase.SEEKING: {Event.FOUND: Phase.CONNECTING, Event.ENDED: Phase.OVER},
    Phase.CONNECTING: {
        Event.ACCEPTED: Phase.OPEN,
        Event.WORKER_DIED: Phase.SEEKING,
        Event.ENDED: Phase.OVER,
    },
    Phase.OPEN: {
        Event.ASKED_TO_LEAVE: Phase.LEAVING,
        Event.WORKER_DIED: Phase.BETWEEN,
        Event.ENDED: Phase.OVER,
    },
    Phase.LEAVING: {
        Event.LET_GO: Phase.BETWEEN,
        Event.WORKER_DIED: Phase.BETWEEN,
        Event.ENDED: Phase.OVER,
    },
    Phase.BETWEEN: {Event.FOUND: Phase.REJOINING, Event.ENDED: Phase.OVER},
    Phase.REJOINING: {
        Event.ACCEPTED: Phase.OPEN,
        Event.WORKER_DIED: Phase.BETWEEN,
        Event.ENDED: Phase.OVER,
    },
    Phase.OVER: {},
}

OPEN_FOR_CLIENT = frozenset({Phase.OPEN, Phase.LEAVING, Phase.BETWEEN, Phase.REJOINING})
PAUSED = frozenset({Phase.LEAVING, Phase.BETWEEN, Phase.REJOINING})
NEEDS_WORKER = frozenset({Phase.SEEKING, Phase.BETWEEN})
HAS_WORKER = frozenset({Phase.CONNECTING, Phase.OPEN, Phase.LEAVING, Phase.REJOINING})
