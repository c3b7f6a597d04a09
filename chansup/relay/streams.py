"""What may come in which order on one stream: the whole course stands in two tables.

Free of I/O. A frame that may not come now is the other side's defect, or not the other side at all:
`advance` raises, and the connection ends.
"""

from chansup.relay.frames import END, FrameError, Kind

_ENDS = 0x100  # added to a kind that is flagged END


class State:
    """How far one direction of a stream has come. Plain integers, as `Kind`."""

    # From the interface to the worker
    UPLOADING = 1  # more of the request's body comes
    UPLOADED = 2
    ATTACHED = 3  # a WebSocket
    LEAVING = 4  # a WebSocket that shall go to another worker
    GONE = 5  # the client is gone

    # From the worker to the interface
    WAITING = 11  # for a response
    STARTED = 12  # a response whose body is not complete
    ANSWERED = 13
    CONNECTING = 14  # a WebSocket that is not accepted yet
    DENYING = 15  # a WebSocket that is answered by an HTTP response
    ACCEPTED = 16
    CLOSED = 17  # by the app
    OVER = 18  # the app has returned


Table = dict[int, dict[int, int]]

TO_WORKER: Table = {
    State.UPLOADING: {
        Kind.BODY: State.UPLOADING,
        Kind.BODY | _ENDS: State.UPLOADED,
        Kind.DISCONNECT: State.GONE,
        Kind.CREDIT: State.UPLOADING,
    },
    State.UPLOADED: {Kind.DISCONNECT: State.GONE, Kind.CREDIT: State.UPLOADED},
    State.ATTACHED: {
        Kind.MESSAGE: State.ATTACHED,
        Kind.LEAVE: State.LEAVING,
        Kind.DISCONNECT: State.GONE,
        Kind.CREDIT: State.ATTACHED,
    },
    State.LEAVING: {Kind.DISCONNECT: State.GONE, Kind.CREDIT: State.LEAVING},
    State.GONE: {Kind.CREDIT: State.GONE},
}

TO_INTERFACE: Table = {
    State.WAITING: {
        Kind.RECEIVED: State.WAITING,
        Kind.EVENT: State.WAITING,
        Kind.START: State.STARTED,
        Kind.RESPONSE | _ENDS: State.ANSWERED,
        Kind.DONE: State.OVER,
        Kind.CREDIT: State.WAITING,
    },
    State.STARTED: {
        Kind.BODY: State.STARTED,
        Kind.BODY | _ENDS: State.ANSWERED,
        Kind.EVENT: State.STARTED,
        Kind.DONE: State.OVER,
        Kind.CREDIT: State.STARTED,
    },
    State.ANSWERED: {
        Kind.EVENT: State.ANSWERED,
        Kind.DONE: State.OVER,
        Kind.CREDIT: State.ANSWERED,
    },
    State.CONNECTING: {
        Kind.ACCEPT: State.ACCEPTED,
        Kind.CLOSE: State.CLOSED,
        Kind.START: State.DENYING,
        Kind.RESPONSE | _ENDS: State.CLOSED,
        Kind.CHECKPOINT: State.CONNECTING,
        Kind.DONE: State.OVER,
    },
    State.DENYING: {
        Kind.BODY: State.DENYING,
        Kind.BODY | _ENDS: State.CLOSED,
        Kind.DONE: State.OVER,
    },
    State.ACCEPTED: {
        Kind.MESSAGE: State.ACCEPTED,
        Kind.CONSUMED: State.ACCEPTED,
        Kind.CHECKPOINT: State.ACCEPTED,
        Kind.CLOSE: State.CLOSED,
        Kind.DONE: State.OVER,
    },
    State.CLOSED: {
        Kind.CONSUMED: State.CLOSED,
        Kind.CHECKPOINT: State.CLOSED,
        Kind.DONE: State.OVER,
    },
}


def advance(table: Table, state: int, kind: int, flags: int) -> int:
    """Return the state after a frame. Raises FrameError when it may not come in `state`."""
    try:
        return table[state][kind | _ENDS if flags & END else kind]
    except KeyError:
        raise FrameError(f"a frame of kind {kind} in state {state}") from None
