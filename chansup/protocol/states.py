"""The states of a process and of a slot, and every transition between them."""

from enum import StrEnum


class State(StrEnum):
    """What a slot is in: the state of the process that fills it, or why none does."""

    STARTING = "STARTING"  # spawned, not ready yet
    READY = "READY"  # it does its work
    DRAINING = "DRAINING"  # takes nothing new, finishes what it holds
    GONE = "GONE"  # ended, or not started yet
    BACKOFF = "BACKOFF"  # the last one crashed; the next is due after a pause
    FAILED = (
        "FAILED"  # cannot work until something outside changes: no retry before the next reload
    )


class Event(StrEnum):
    """What can happen to a slot."""

    SPAWNED = "spawned"
    BECAME_READY = "became ready"
    ASKED_TO_STOP = "asked to stop"
    EXITED = "exited"
    PAUSED = "paused before the next attempt"
    GAVE_UP = "gave up"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.GONE, Event.SPAWNED): State.STARTING,
    (State.BACKOFF, Event.SPAWNED): State.STARTING,
    (State.FAILED, Event.SPAWNED): State.STARTING,
    (State.STARTING, Event.BECAME_READY): State.READY,
    (State.STARTING, Event.ASKED_TO_STOP): State.DRAINING,
    (State.READY, Event.ASKED_TO_STOP): State.DRAINING,
    (State.BACKOFF, Event.ASKED_TO_STOP): State.GONE,
    (State.FAILED, Event.ASKED_TO_STOP): State.GONE,
    (State.STARTING, Event.EXITED): State.GONE,
    (State.READY, Event.EXITED): State.GONE,
    (State.DRAINING, Event.EXITED): State.GONE,
    (State.GONE, Event.PAUSED): State.BACKOFF,
    (State.BACKOFF, Event.PAUSED): State.BACKOFF,
    (State.FAILED, Event.PAUSED): State.BACKOFF,
    (State.GONE, Event.GAVE_UP): State.FAILED,
}

ALIVE = frozenset({State.STARTING, State.READY, State.DRAINING})


class IllegalTransitionError(Exception):
    """A defect in chansup: something happened that the table does not know."""


def after(state: State, event: Event) -> State:
    """Return the state that follows. Raises IllegalTransitionError."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransitionError(f"{event.value} while {state.value}") from None
