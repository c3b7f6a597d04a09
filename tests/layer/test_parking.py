"""How long a channel waits for its client's next process, and how much it holds meanwhile."""

from chansup.layer.hub.limits import Memory
from chansup.layer.hub.parking import CATCHING_UP, CONNECTING, JOINING, KEPT
from chansup.layer.hub.queues import LENIENCE
from chansup.layer.hub.store import Store
from chansup.layer.hub.takeover import Snapshot, restore, take_snapshot
from chansup.layer.policies import Capacities, Policy

CAPACITY = 3
OLD, NEW, KEY = b"specific.old!1", b"specific.new!1", b"id/1"


class Reader:
    """Keeps what it is sent."""

    crowded = False

    def __init__(self) -> None:
        self.flight: dict[int, object] = {}
        self.got: list[bytes] = []
        self.last = 0  # number

    def deliver(self, id: int, message: object, crowded: bool) -> None:
        self.got.append(message.body)  # type: ignore[attr-defined]
        self.last = message.number  # type: ignore[attr-defined]

    def deliver_to_many(self, ids: list[int], message: object, crowded: bool) -> None:
        self.deliver(ids[0], message, crowded)


class Site:
    """A store, and a channel that moves."""

    def __init__(self) -> None:
        self.store = Store(Memory(10_000_000))
        self.capacities = Capacities(Policy(expiry=60, group_expiry=86400, capacity=CAPACITY))
        self.bind(OLD)
        self.join(OLD, b"lions")
        self.join(OLD, b"geese")

    def bind(self, name: bytes) -> None:
        store = self.store
        store.parking.bind(KEY, store.channels.get(name) or store.create(name))

    def join(self, name: bytes, group: bytes) -> None:
        assert self.store.group_add(group, name, 0, self.capacities)

    def listen(self, name: bytes) -> Reader:
        reader = Reader()
        channel = self.store.channels[name]
        channel.capacity(self.capacities)
        self.store.listen(channel, reader, 1)  # type: ignore[arg-type]
        return reader

    def park(self) -> None:
        self.store.parking.park(KEY, OLD, 0, b"", 0)

    def say(self, group: bytes, body: bytes) -> None:
        self.store.group_send(group, body, self.capacities)

    def replace(self) -> None:
        """Let another hub continue."""
        snapshot = Snapshot(list(take_snapshot(self.store, "", ())))
        now = self.store.now
        self.store = Store(Memory(10_000_000))
        self.store.now = now
        restore(self.store, snapshot, lambda policy: self.capacities)

    def wait(self, seconds: float) -> None:
        self.store.now += seconds
        self.store.sweep()


def test_a_process_may_take_its_time_before_it_joins() -> None:
    site = Site()
    site.park()
    site.say(b"lions", b"1")
    site.bind(NEW)
    reader = site.listen(NEW)
    site.join(NEW, b"geese")
    site.wait(CONNECTING - 1)
    site.say(b"geese", b"2")
    assert reader.got == []
    site.join(NEW, b"lions")
    assert reader.got == [b"1", b"2"]


def test_what_is_not_joined_is_waited_for_only_for_a_moment_when_the_app_is_set_up() -> None:
    site = Site()
    site.park()
    site.say(b"lions", b"1")
    site.bind(NEW)
    reader = site.listen(NEW)
    site.join(NEW, b"geese")
    site.bind(NEW)  # it is set up
    site.say(b"geese", b"2")
    site.wait(JOINING - 0.1)
    assert reader.got == []
    site.wait(0.2)
    assert reader.got == [b"2"]
    assert site.store.drops.as_dict()["moved"]


def test_a_process_that_never_is_set_up_does_not_hold_up_for_ever() -> None:
    site = Site()
    site.park()
    site.bind(NEW)
    reader = site.listen(NEW)
    site.join(NEW, b"geese")
    site.say(b"geese", b"2")
    site.wait(CONNECTING + 0.1)
    assert reader.got == [b"2"]


def test_more_than_the_capacity_is_kept_while_it_moves_and_catches_up() -> None:
    site = Site()
    site.park()
    said = [b"%d" % number for number in range(2 * LENIENCE)]
    for body in said[:LENIENCE]:
        site.say(b"lions", body)
    site.bind(NEW)
    site.join(NEW, b"lions")
    site.join(NEW, b"geese")
    for body in said[LENIENCE:]:
        site.say(b"lions", body)
    assert site.listen(NEW).got == said
    for _ in range(CAPACITY * LENIENCE):
        site.say(b"lions", b"more")
    assert len(site.store.channels[NEW].entries) == CAPACITY * LENIENCE  # and no more than that
    site.wait(CATCHING_UP + 1)
    entries = site.store.channels[NEW].entries
    entries.popleft()
    left = len(entries)
    site.say(b"lions", b"more")
    assert len(entries) == left


def test_the_process_says_later_what_it_has_taken() -> None:
    """It had no connection for a moment: another hub has taken over."""
    site = Site()
    site.store.returning_until = site.store.now + 1.0
    for body in (b"1", b"2", b"3"):
        site.say(b"lions", body)
    site.bind(NEW)
    site.join(NEW, b"lions")
    site.join(NEW, b"geese")
    reader = site.listen(NEW)
    assert reader.got == []
    taken = site.store.channels[OLD].entries[1].number
    site.store.parking.park(KEY, OLD, taken, b"2", 60_000)
    assert reader.got == [b"2", b"3"]


def test_a_process_that_does_not_come_back_is_not_waited_for_for_long() -> None:
    site = Site()
    site.store.returning_until = site.store.now + 1.0
    site.say(b"lions", b"1")
    site.bind(NEW)
    site.join(NEW, b"lions")
    site.join(NEW, b"geese")
    reader = site.listen(NEW)
    site.wait(JOINING + 0.1)
    assert reader.got == [b"1"]


def test_nobody_comes_for_it() -> None:
    site = Site()
    site.park()
    site.say(b"lions", b"1")
    site.wait(KEPT + 1)
    assert site.store.memberships == 0 and site.store.parking.count() == 0


def test_what_came_along_in_hand_is_known_as_taken_when_it_was() -> None:
    """A process says so when it leaves: TAKEN may have been lost when the hub was replaced."""
    site = Site()
    reader = site.listen(OLD)
    site.say(b"lions", b"1")
    site.store.parking.park(KEY, OLD, reader.last, b"1", 1000)  # which it had in hand
    for name, got in (NEW, [b"1"]), (b"specific.newer!1", []):
        site.bind(name)
        for group in (b"lions", b"geese"):
            site.join(name, group)
        reader = site.listen(name)
        assert reader.got == got
        site.store.parking.park(KEY, name, reader.last, b"", 0)


def test_another_hub_lets_the_new_process_wait_for_the_old_one_just_as_long() -> None:
    site = Site()
    connected = site.store.process_of_client(b"old!")
    site.store.connected(connected)
    site.listen(OLD)
    site.say(b"lions", b"1")
    site.bind(NEW)
    site.join(NEW, b"geese")  # before the old process has said what it has taken
    site.say(b"geese", b"2")
    site.replace()
    site.listen(OLD)
    reader = site.listen(NEW)
    site.say(b"lions", b"3")
    site.say(b"geese", b"4")
    assert reader.got == []
    site.park()
    site.join(NEW, b"lions")
    assert reader.got == [b"1", b"2", b"3", b"4"]
