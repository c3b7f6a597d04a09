"""A message that reaches nobody is counted by reason and pattern, and told, but not each time."""

import logging
import time
from typing import Any

import pytest

from chansup.layer.hub import drops
from chansup.layer.hub.channel import Channel, Message
from chansup.layer.hub.drops import Drops
from chansup.layer.hub.limits import Memory
from chansup.layer.hub.observation import observe
from chansup.layer.hub.parking import CONNECTING, KEPT
from chansup.layer.hub.registry import LINGER
from chansup.layer.hub.store import Store
from chansup.layer.policies import Capacities, Policy, rules
from chansup.protocol.hub_report import Drop

CAPACITIES = Capacities(Policy(60, 86400, 2, rules({"mail*": 2, "chat*": 2})))
OWN = b"chat.0011223344556677!abc"


@pytest.fixture
def store() -> Store:
    return Store(Memory(100_000))


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.WARNING, "chansup.layer.hub")

    def found() -> list[str]:
        return [record.getMessage() for record in caplog.records]

    return found


class Pretended:
    """A reader that takes nothing."""

    def __init__(self) -> None:
        self.crowded = False
        self.flight: dict[int, tuple[Channel, Message]] = {}
        self.handed: list[tuple[int, Message]] = []

    def deliver(self, id: int, message: Message, crowded: bool) -> None:
        self.handed.append((id, message))

    def deliver_to_many(self, ids: list[int], message: Message, crowded: bool) -> None:
        self.handed.extend((id, message) for id in ids)

    def hand(self, id: int, message: Message) -> None:
        self.handed.append((id, message))


def dropped(store: Store, reason: str) -> dict[str, int]:
    return store.drops.as_dict().get(reason, {})


def test_what_is_told() -> None:
    reasons = {value for name, value in vars(Drop).items() if name.isupper()}
    assert set(drops._EXPLANATIONS) == reasons - {Drop.FLUSHED, Drop.LEFT}


def test_full(store: Store, told: Any) -> None:
    for _ in range(3):
        store.send(b"mail", b"", CAPACITIES)
    assert store.send(b"mail", b"", CAPACITIES) == Drop.FULL
    assert dropped(store, Drop.FULL) == {"mail*": 2}
    (line,) = told()
    assert line.startswith("1 message was refused")
    assert '"mail*"' in line
    assert "capacity" in line


def test_full_members_of_a_group(store: Store, told: Any) -> None:
    for name in (b"mail.1", b"mail.2", b"other"):
        store.group_add(b"all", name, 0, CAPACITIES)
    for _ in range(3):
        store.group_send(b"all", b"", CAPACITIES)
    assert dropped(store, Drop.FULL) == {"mail*": 2, "*": 1}
    assert sorted(line.split('"')[1] for line in told()) == ["*", "mail*"]


def test_expired_in_its_queue(store: Store, told: Any) -> None:
    store.send(b"mail", b"", CAPACITIES)
    store.send(b"mail", b"", CAPACITIES)
    store.now += 61
    store.sweep_all()
    assert dropped(store, Drop.EXPIRED) == {"mail*": 2}
    assert '"mail*" expired unread' in told()[0]
    assert not store.memory.used - 1200  # but for the channel


def test_expired_when_somebody_asks(store: Store, told: Any) -> None:
    store.send(b"mail", b"", CAPACITIES)
    store.now += 61
    reader = Pretended()
    store.listen(store.channels[b"mail"], reader, 1)
    assert not reader.handed
    assert dropped(store, Drop.EXPIRED) == {"mail*": 1}
    assert len(told()) == 1


def test_expired_before_it_came_back(store: Store, told: Any) -> None:
    store.put_back(b"mail", b"", (1, 0, store.now - 60, 0), CAPACITIES)
    assert dropped(store, Drop.EXPIRED) == {"mail*": 1}
    assert len(told()) == 1


def test_no_memory(store: Store, told: Any) -> None:
    assert store.send(b"mail", b"x" * 100_000, CAPACITIES) == Drop.MEMORY
    store.put_back(b"mail", b"x" * 100_000, (1, 1000, store.now, 0), CAPACITIES)
    assert dropped(store, Drop.MEMORY) == {"mail*": 2}
    store.group_add(b"all", b"mail", 0, CAPACITIES)
    store.group_send(b"all", b"x" * 100_000, CAPACITIES)
    assert dropped(store, Drop.MEMORY) == {"mail*": 2, "*": 1}
    assert all("--memory" in line for line in told())


def test_of_a_process_that_has_ended(store: Store, told: Any) -> None:
    process = store.process(OWN.partition(b"!")[0] + b"!")
    store.connected(process)
    reader = Pretended()
    store.send(OWN, b"", CAPACITIES)
    store.group_add(b"all", OWN, 0, CAPACITIES)
    store.listen(store.channels[OWN], reader, 1)
    store.group_send(b"all", b"", CAPACITIES)
    assert len(reader.handed) == 2  # and nobody took them
    store.parking.stop_reading(store.channels[OWN])
    store.disconnected(process)
    store.group_send(b"all", b"", CAPACITIES)  # there is no room, and nobody's fault
    assert dropped(store, Drop.GONE) == {"chat*": 1}
    store.now += LINGER + 1
    store.sweep()
    assert OWN not in store.channels
    assert dropped(store, Drop.GONE) == {"chat*": 3}
    assert not dropped(store, Drop.FULL)
    assert "have ended" in told()[0]
    assert '"chat*"' in told()[0]
    store.now += 100
    store.sweep()
    assert store.memory.used == 0


def test_for_a_consumer_whose_client_went_away(store: Store, told: Any) -> None:
    process = store.process(OWN.partition(b"!")[0] + b"!")
    store.connected(process)
    store.group_add(b"all", OWN, 0, CAPACITIES)
    channel = store.channels[OWN]
    store.listen(channel, Pretended(), 1)
    store.group_send(b"all", b"", CAPACITIES)
    store.group_discard(b"all", OWN)
    store.unlisten(channel)
    store.now += 61
    store.sweep_all()
    assert dropped(store, Drop.LEFT) == {"chat*": 1}
    store.send(OWN, b"", CAPACITIES)
    store.listen(channel, Pretended(), 2)  # it is read again
    store.parking.stop_reading(channel)
    store.now += 61
    store.sweep_all()
    assert dropped(store, Drop.EXPIRED) == {"chat*": 1}
    assert len(told()) == 1


def test_for_a_group_that_the_next_process_does_not_join(store: Store, told: Any) -> None:
    store.parking.bind(b"client", store.create(OWN))
    store.group_add(b"all", OWN, 0, CAPACITIES)
    store.parking.park(b"client", OWN, 0, b"", 0)
    store.group_send(b"all", b"", CAPACITIES)
    after = b"chat.1111111111111111!abc"
    store.parking.bind(b"client", store.create(after))
    store.now += CONNECTING + 1
    store.sweep()
    assert dropped(store, Drop.MOVED) == {"chat*": 1}
    assert "did not join" in told()[0]


def test_for_a_client_that_comes_back_nowhere(store: Store, told: Any) -> None:
    store.parking.bind(b"client", store.create(OWN))
    store.send(OWN, b"", CAPACITIES)
    store.parking.park(b"client", OWN, 0, b"", 0)
    store.now += KEPT + 1
    store.sweep()
    assert dropped(store, Drop.GONE) == {"chat*": 1}
    assert len(told()) == 1


def test_flushed_is_counted_and_not_told(store: Store, told: Any) -> None:
    store.send(b"mail", b"", CAPACITIES)
    store.flush()
    assert dropped(store, Drop.FLUSHED) == {"mail*": 1}
    assert not told()


def test_what_is_told_is_told_each_ten_seconds_at_most(
    monkeypatch: pytest.MonkeyPatch, told: Any
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    counted = Drops()
    for _ in range(500):
        counted.add(Drop.FULL, "mail*")
        counted.add(Drop.FULL, "chat*", 2)
        counted.tell_rest()
    assert len(told()) == 2
    now += 9
    counted.tell_rest()
    assert len(told()) == 2
    now += 2
    counted.tell_rest()
    counted.tell_rest()
    assert sorted(line.split()[0] for line in told()[2:]) == ["499", "998"]
    now += 100
    counted.tell_rest()
    assert len(told()) == 4
    counted.add(Drop.FULL, "mail*")
    assert told()[4].startswith("1 message was")
    assert counted.as_dict() == {"full": {"mail*": 501, "chat*": 1000}}


def test_a_hub_that_takes_over_tells_what_is_new(told: Any) -> None:
    former = Drops()
    former.add(Drop.FULL, "mail*", 50)
    former.add(Drop.FLUSHED, "mail*")
    counted = Drops()
    for (reason, pattern), count in former.counts.items():
        counted.restore(reason, pattern, count)
    counted.tell_rest()
    assert len(told()) == 1
    counted.add(Drop.FULL, "mail*")
    counted.tell_rest()
    assert [line.split()[0] for line in told()] == ["50", "1"]
    assert counted.as_dict() == {"full": {"mail*": 51}, "flushed": {"mail*": 1}}


def test_what_is_too_old_behind_what_came_back_takes_no_place(store: Store) -> None:
    quick = Capacities(Policy(expiry=1, group_expiry=60, capacity=2))
    reader = Pretended()
    store.send(b"work", b"1", quick)
    store.listen(store.channels[b"work"], reader, 1)
    channel, message = reader.flight.pop(1)
    store.send(b"work", b"2", quick)
    store.send(b"work", b"3", quick)
    store.now += 0.9
    store.give_back(channel, [store.again(message, failed=True)])
    assert observe(store, [b"work"])["work"].messages == 3
    store.now += 0.2
    assert observe(store, [b"work"])["work"].messages == 1
    assert dropped(store, Drop.EXPIRED) == {"*": 2}
    assert not store.send(b"work", b"4", quick)
    assert [one.body for one in channel.entries] == [b"1", b"4"]


def test_what_may_stay_longer_hides_nothing_that_is_too_old(store: Store) -> None:
    slow, quick = (Capacities(Policy(expiry, 60, 3)) for expiry in (60, 1))
    for place, capacities in enumerate([slow, quick, quick]):
        assert not store.send(b"work", b"%d" % place, capacities)
    assert store.send(b"work", b"", quick) == Drop.FULL
    store.now += 1.1
    assert not store.send(b"work", b"", quick)
    assert dropped(store, Drop.EXPIRED) == {"*": 2}
    channel = store.channels[b"work"]
    assert [one.body for one in channel.entries] == [b"0", b""]
    store.now += 1.1
    store.sweep_all()
    assert [one.body for one in channel.entries] == [b"0"]


def test_what_was_sent_to_a_group_and_taken_back_is_no_exception(store: Store) -> None:
    slow, quick = (Capacities(Policy(expiry, 60, 5)) for expiry in (60, 1))
    store.group_add(b"all", OWN, 0, slow)
    store.listen(store.channels[OWN], Pretended(), 1)
    store.group_send(b"all", b"slow", slow)
    store.group_send(b"all", b"quick", quick)
    channel = store.channels[OWN]
    assert channel.sent == 2
    store.parking.stop_reading(channel)
    store.now += 1.1
    store.expire(channel)
    assert [one.body for one in channel.entries] == [b"slow"]
