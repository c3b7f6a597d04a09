"""One process whose WebSockets outlive it, as the holder sees it."""

from chansup.protocol.carry import Forget, Leave, Ready
from chansup.supervisor.carry.channel import Channel
from chansup.supervisor.carry.held import Held, Segment


class Carrier:
    """A process of that kind. Its slots are numbered by itself."""

    def __init__(self, name: str) -> None:
        """Make its channel; `name` is for the log. Raises OSError."""
        self.name = name
        self.channel = Channel()
        self.ready: Ready | None = None  # what it said of itself; None: it takes nothing yet
        self.leaves = False  # it takes nothing any more
        self.gives_up = False  # it was told that nobody will adopt what it has
        self.sockets: dict[int, Held] = {}  # by slot
        self.pending: dict[int, Held] = {}  # that it was given and has not taken, by ticket
        self.segments: dict[int, Segment] = {}  # of its own memory, by number
        self._tickets: dict[int, int] = {}  # slots of those that are not settled, by ticket
        self._unsettled: dict[int, int] = {}  # the same the other way round
        self._knows: set[int] = set()  # keys of the memory of others

    def __repr__(self) -> str:
        return f"<Carrier {self.name}: {len(self.sockets)} + {len(self.pending)}>"

    @property
    def load(self) -> int:
        """How many it has, with those that are under way to it."""
        return len(self.sockets) + len(self.pending)

    @property
    def under_way(self) -> int:
        """How many it was given and has not answered."""
        return len(self.pending)

    @property
    def can_adopt(self) -> bool:
        """Whether it can be given something."""
        return self.ready is not None and not self.leaves and self.channel.is_open

    def takes_part(self) -> bool:
        """Whether it carries WebSockets, after all that it has said until now."""
        self.channel.read_all()
        return self.ready is not None and self.channel.is_open

    @property
    def survives_crash(self) -> bool:
        """Whether what it has can be adopted after it was killed."""
        return self.ready is not None and self.ready.survives_crash and not self.gives_up

    def knows(self, segment: Segment) -> bool:
        """Whether it was given a piece of memory of another process."""
        return segment.key in self._knows

    def learns(self, segment: Segment) -> None:
        """Take notice that it was given one."""
        self._knows.add(segment.key)

    def forget(self, segment: Segment) -> None:
        """Have it let go of a piece of memory."""
        if segment.key in self._knows:
            self._knows.discard(segment.key)
            self.channel.tell(Forget(segment.key))

    def leave(self, *, adoptable: bool) -> None:
        """Tell it what becomes of its WebSockets when it drains."""
        if self.leaves and self.gives_up is not adoptable:
            return  # it knows that
        self.leaves = True
        self.gives_up = not adoptable
        self.channel.tell(Leave(adoptable))

    def takes(self, ticket: int, slot: int) -> Held:
        """Take notice that it has taken what it was given. Raises KeyError if it was not."""
        held = self.sockets[slot] = self.pending.pop(ticket)
        self._tickets[ticket], self._unsettled[slot] = slot, ticket
        return held

    def settles(self, slot: int) -> None:
        """Take notice that one is as safe as all others there."""
        ticket = self._unsettled.pop(slot, None)
        if ticket is not None:
            del self._tickets[ticket]

    def slot_of(self, ticket: int) -> int | None:
        """Return where one is that was taken and is not settled."""
        return self._tickets.get(ticket)

    def let_go(self, slot: int) -> Held | None:
        """Take one away from it; None if there is none."""
        self.settles(slot)
        return self.sockets.pop(slot, None)

    def suspects(self) -> list[Held]:
        """Return what it may have died of: what it began to adopt and has not finished."""
        unsettled = [self.sockets[slot] for slot in self._unsettled]
        return [*unsettled, *list(self.pending.values())[:1]]  # it takes one after the other
