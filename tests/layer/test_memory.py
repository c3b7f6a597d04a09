"""What clients can make a hub hold is bounded, and counted without drift."""

import asyncio
import contextlib
import os
import socket

import msgspec
import pytest

from chansup.layer import HubError, LocalChannelLayer
from chansup.layer.frames import ID, Kind, pack, string
from chansup.layer.greetings import Hello
from chansup.layer.hub import limits
from chansup.layer.hub.limits import Memory, NoRoomError
from chansup.layer.hub.parking import KEPT
from chansup.layer.hub.registry import LINGER
from chansup.layer.hub.store import Store
from chansup.layer.policies import Capacities, Policy, rules
from chansup.protocol import connection
from chansup.protocol.hub_report import Drop
from tests.layer import hubs
from tests.layer.hubs import PATIENCE, Hub
from tests.layer.test_drops import Pretended
from tests.layer.test_take import run

CAPACITIES = Capacities(Policy(60, 86400, 1, rules({"chat*": 1})))
LIMIT = 50_000


@pytest.fixture
def store() -> Store:
    return Store(Memory(LIMIT))


def strange(number: int) -> bytes:
    return b"chat.%016d!a" % number


def fill(store: Store) -> None:
    """Queue what there is room for."""
    reader = Pretended()  # so that the queue stays
    store.listen(store.for_reader(b"full"), reader, 1)
    wide = Capacities(Policy(60, 86400, 10**6))
    while not store.send(b"full", b"", wide):
        pass
    assert store.memory.used > LIMIT - limits.CHANNEL


def test_messages_to_nobody_stop_at_the_limit(store: Store) -> None:
    refusals = [store.send(strange(number), b"", CAPACITIES) for number in range(200)]
    assert set(refusals) == {"", Drop.MEMORY}
    assert store.memory.used <= LIMIT
    assert len(store.channels) == len(store.processes) == refusals.count("")
    assert store.drops.as_dict() == {"memory": {"chat*": refusals.count(Drop.MEMORY)}}
    store.now += 120
    store.sweep()
    assert (store.memory.used, len(store.channels), len(store.processes)) == (0, 0, 0)


def test_what_is_refused_leaves_nothing_behind(store: Store) -> None:
    process = store.process_of_client(b"chat.0000000000000001!")
    store.connected(process)
    assert not store.send(strange(1), b"", CAPACITIES)
    before = store.memory.used
    other = b"chat.0000000000000001!other"
    assert store.send(other, b"", CAPACITIES) == Drop.FULL  # its process is behind
    assert (store.memory.used, other in store.channels) == (before, False)
    fill(store)
    before = store.memory.used
    for number in range(10, 20):
        assert store.send(strange(number), b"", CAPACITIES) == Drop.MEMORY
        assert not store.group_add(b"all", strange(number), 0, CAPACITIES)
        store.put_back(strange(number), b"", (1, 1000, store.now, 0), CAPACITIES)
    assert store.memory.used == before


def test_who_reads_finds_room_in_a_full_hub_but_not_without_end(store: Store) -> None:
    fill(store)
    with pytest.raises(NoRoomError, match="--memory"):
        _ = [store.for_reader(b"own.%d" % number) for number in range(1000)]
    assert LIMIT * 1.2 < store.memory.used <= LIMIT * 1.25
    with pytest.raises(NoRoomError):
        _ = [store.process_of_client(b"%016d!" % number) for number in range(1000)]
    assert LIMIT * 1.25 < store.memory.used <= LIMIT * 1.5
    assert store.for_reader(b"full") is store.channels[b"full"]


def test_a_process_that_goes_is_not_counted_any_more(store: Store) -> None:
    process = store.process_of_client(b"0000000000000001!")
    store.connected(process)
    assert store.memory.used == limits.PROCESS
    store.disconnected(process)
    store.now += LINGER + 1
    store.sweep()
    assert store.memory.used == 0


def test_a_channel_is_of_one_connection(store: Store) -> None:
    channel = store.for_reader(strange(1))
    store.parking.bind(b"one", channel)
    store.parking.bind(b"one", channel)
    with pytest.raises(ValueError, match="two connections"):
        store.parking.bind(b"two", channel)


def test_a_chain_of_moves_is_counted_once(store: Store) -> None:
    """The middle one is forgotten while it waits, and is waited for."""
    channels = [store.for_reader(strange(number)) for number in range(3)]
    for place, channel in enumerate(channels[:2]):
        store.listen(channel, Pretended(), place)
    for channel in channels:
        store.parking.bind(b"one", channel)
    store.parking.forget(channels[1])
    store.parking.forget(channels[1])
    assert channels[0].successor is channels[2]
    store.parking.stop_reading(channels[0])
    assert channels[0].successor is None
    store.now += KEPT + 120
    store.sweep()
    assert store.memory.used == limits.CHANNEL * len(set(store.channels.values())) + (
        limits.PROCESS * len(store.processes)
    )


def test_a_channel_that_waited_for_another_is_forgotten_by_it(store: Store) -> None:
    first, second = store.for_reader(strange(1)), store.for_reader(strange(2))
    store.listen(first, Pretended(), 1)
    store.group_add(b"all", first.name, 0, CAPACITIES)
    for channel in (first, second):
        store.parking.bind(b"one", channel)
    store.parking.forget(second)
    store.parking.stop_reading(first)
    assert list(store.groups[b"all"].members) == [first]


def greeted(hub: Hub) -> socket.socket:
    raw = socket.socket(socket.AF_UNIX)
    raw.settimeout(PATIENCE)
    raw.connect(hub.path)
    policy = Policy(60, 60, 10)
    hello = Hello(process=os.urandom(8).hex(), policy=policy)
    raw.sendall(pack(Kind.HELLO, msgspec.msgpack.encode(hello)))
    return raw


def until_closed(raw: socket.socket) -> bytes:
    found = b""
    try:
        while data := raw.recv(65536):
            found += data
    except ConnectionResetError:
        pass
    return found


async def memory(hub: Hub) -> tuple[int, int]:
    layer = LocalChannelLayer(hub.path)
    found = await layer.statistics()
    await layer.close()
    return found["memory"], found["memory_limit"]


def test_a_client_that_listens_without_end_is_cut_off() -> None:
    with hubs.running("--memory", "1M") as hub:
        with greeted(hub) as raw:
            for number in range(2000):
                with contextlib.suppress(BrokenPipeError):
                    raw.sendall(pack(Kind.LISTEN, ID.pack(number + 1) + b"mail.%d" % number))
            until_closed(raw)
        assert "a client is disconnected: the hub holds as much as it may" in hub.log.read_text()
        used, limit = run(memory(hub))
        assert used <= limit * 1.25 + 10 * limits.PROCESS


def test_a_client_that_binds_without_end_is_refused() -> None:
    async def bound(hub: Hub) -> None:
        layer = LocalChannelLayer(hub.path)
        token = connection.connection.set(connection.Connection("client"))
        await asyncio.gather(*(layer.new_channel() for _ in range(2000)))
        connection.connection.reset(token)
        with pytest.raises(HubError, match="memory"):
            await layer.group_add("all", await layer.new_channel())
        await layer.close()

    with hubs.running("--memory", "1M") as hub:
        run(bound(hub))
        used, limit = run(memory(hub))
        assert limit * 0.9 < used <= limit + 10 * limits.PROCESS


def test_one_channel_bound_twice_cuts_the_client_off(hub: Hub) -> None:
    with greeted(hub) as raw:
        for key in (b"one/1", b"two/1"):
            raw.sendall(pack(Kind.BIND, string(key) + string(b"x.p!a")))
        until_closed(raw)
    assert "one channel for two connections" in hub.log.read_text()
