"""One WebSocket that the supervisor holds, and the memory that it lies in: a few hundred bytes."""

from chansup.protocol.carry import Reason


class Segment:
    """A piece of the memory of one process, in which slots of WebSockets lie."""

    __slots__ = ("descriptor", "is_orphaned", "key", "users")

    def __init__(self, key: int, descriptor: int) -> None:
        """`key` names it to other processes."""
        self.key = key
        self.descriptor = descriptor
        self.users = 0  # WebSockets whose slot lies here
        self.is_orphaned = False  # its process is gone


class Held:
    """A WebSocket. It is at a process, on its way to one, or waits for one."""

    __slots__ = (
        "count", "deaths", "descriptor", "failures", "index", "is_clean", "orphaned_at", "reason",
        "segment", "survives_crash",
    )  # fmt: skip

    def __init__(
        self, descriptor: int, segment: Segment, index: int, survives_crash: bool = True
    ) -> None:
        """`descriptor` is the supervisor's own, of its socket; the slot is `index` in `segment`."""
        self.descriptor = descriptor
        self.segment = segment
        self.index = index
        self.survives_crash = survives_crash
        self.count = 0  # handovers
        self.deaths = 0  # of processes in a row that may have died of it
        self.failures = 0  # of processes in a row that have not taken it
        self.is_clean = False  # parked, and all that its app has sent is under way to the client
        self.reason: Reason = "deploy"  # of the newest handover
        self.orphaned_at = 0.0  # loop time at which its last process let go of it

    def __repr__(self) -> str:
        return f"<Held {self.descriptor} count={self.count} deaths={self.deaths}>"
