"""What relays, channel workers and hubs counted, added up over all that ever were."""

import itertools
import json
import os
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chansup.config import channels, schema
from chansup.protocol import channel_report, hub_report, relay_board, scoreboard
from chansup.protocol.channel_report import ChannelCounts, ChannelReport
from chansup.protocol.histogram import Histogram
from chansup.protocol.hub_report import HubReport, Queue
from chansup.protocol.relay_board import RelayBoard
from chansup.supervisor.stats.bulletins import (
    MAX_CHANNELS,
    MAX_PATTERNS,
    OTHERS,
    may_consume,
    read_channels,
    read_hub,
)
from chansup.supervisor.stats.ledger import Ledger, SlotTotals

pids = itertools.count(1)


class Paper:
    """A bulletin without memory."""

    def __init__(self, document: bytes | None = None) -> None:
        self.document = document

    def read(self) -> bytes | None:
        return self.document


class Child:
    """A process, as far as its counts go."""

    def __init__(self, name: str, kind: str, settings: schema.Pool) -> None:
        self.pid = next(pids)
        is_consumed = isinstance(settings, schema.Workers) and channels.are_consumed(settings)
        self.specification = SimpleNamespace(
            name=name, kind=kind, settings=settings, consumes=is_consumed
        )
        self.bulletin = Paper()
        self.relay_board: RelayBoard | None = None

    def says(self, report: ChannelReport | HubReport) -> Any:
        module = channel_report if isinstance(report, ChannelReport) else hub_report
        self.bulletin.document = module.encode(report)
        return self


IMAGES = schema.Workers(channels=["images", "mails"], concurrency=3)


def worker(settings: schema.Workers = IMAGES, name: str = "media") -> Any:
    return Child(name, "workers", settings)


def pool(settings: schema.Workers = IMAGES, name: str = "media", ready: int = 2) -> Any:
    specification = worker(settings, name).specification
    return SimpleNamespace(name=name, specification=specification, ready=ready, desired=2)


def hub() -> Any:
    return Child("hub", "hub", schema.Pool())


def times(*seconds: float) -> Histogram:
    histogram = Histogram()
    for one in seconds:
        histogram.add(one)
    return histogram


def images(**counts: Any) -> ChannelReport:
    return ChannelReport({"images": ChannelCounts(**counts)})


def look(counts: Ledger, *living: Any) -> dict[str, ChannelCounts]:
    return counts.consumption([pool()], living).pools[0].channels


def test_processes_are_added_up() -> None:
    counts = Ledger()
    first = worker().says(images(handled=5, wait=times(0.1), handling=times(1, 2), in_flight=1))
    second = worker().says(images(handled=7, failed=2, wait=times(0.2, 9), in_flight=2))
    found = counts.consumption([pool()], [first, second])
    one = found.pools[0]
    assert (one.name, one.concurrency, one.ready, one.desired) == ("media", 3, 2, 2)
    assert list(one.channels) == ["images", "mails"]  # the latter at zero
    sums = one.channels["images"]
    assert (sums.handled, sums.failed, sums.in_flight) == (12, 2, 3)
    assert sums.wait is not None
    assert (sums.wait.count, sums.handling.total) == (3, 3.0)
    assert one.channels["mails"] == ChannelCounts()


def test_counters_of_the_gone_stay_and_their_gauges_go() -> None:
    counts = Ledger()
    first = worker().says(images(handled=5, wait=times(0.1), in_flight=1, depth=4, looked=1.0))
    second = worker().says(images(handled=7, in_flight=2))
    counts.keep(first)
    found = look(counts, second)["images"]
    assert (found.handled, found.in_flight, found.depth) == (12, 2, None)
    assert found.lost == 1  # what the first one was killed with
    counts.keep(second)
    found = look(counts)["images"]
    assert (found.handled, found.in_flight, found.lost) == (12, 0, 3)
    assert look(counts)["images"] == found  # looking changes nothing


def test_with_redeliver_nothing_in_hand_is_lost() -> None:
    settings = schema.Workers(channels=["images"], redeliver=True)
    counts = Ledger()
    counts.keep(worker(settings).says(images(in_flight=2, handled=1)))
    found = counts.consumption([pool(settings)], []).pools[0].channels["images"]
    assert (found.handled, found.lost) == (1, 0)


def test_the_newest_look_counts() -> None:
    counts = Ledger()
    older = worker().says(images(depth=9, oldest=3.0, looked=10.0))
    newer = worker().says(images(depth=4, oldest=1.0, looked=11.0))
    for order in ((older, newer), (newer, older)):
        found = look(counts, *order)["images"]
        assert (found.depth, found.oldest) == (4, 1.0)


def test_the_hub_knows_better_and_when_no_worker_lives_too() -> None:
    counts = Ledger()
    one = worker().says(images(depth=4, oldest=1.0, looked=11.0))
    queues = {"images": Queue(1, 6, 2.5), "stranger": Queue(1, 1, 1.0)}
    living_hub = hub().says(HubReport(observed=queues))
    for living in ([one], []):
        found = look(counts, *living, living_hub)
        assert (found["images"].depth, found["images"].oldest) == (6, 2.5)
        assert set(found) == {"images", "mails"}
    elsewhere = schema.Workers(channels=["images"], layer="other")
    seen = counts.consumption([pool(elsewhere)], [living_hub]).pools[0].channels["images"]
    assert seen.depth is None


def test_only_pools_of_channel_workers_that_are_there_now_are_told_of() -> None:
    counts = Ledger()
    counts.keep(worker(name="gone").says(images(handled=3)))
    web = pool(schema.Workers(serves=["http"]), "web")
    command = pool(schema.Workers(command="sleep 1"), "sleep")
    assert [one.name for one in counts.consumption([web, command, pool()], []).pools] == ["media"]
    # A channel that the pool does not name any more has no row.
    now = schema.Workers(channels=["mails"])
    counts.keep(worker().says(images(handled=3)))
    assert list(counts.consumption([pool(now)], []).pools[0].channels) == ["mails"]


@pytest.mark.parametrize(
    ("settings", "channel", "may"),
    [
        ({"channels": ["a"]}, "a", True),
        ({"channels": ["a"]}, "b", False),
        ({"only_channels": ["a*"]}, "ab", True),
        ({"only_channels": ["a*"]}, "b", False),
        ({"only_channels": ["a*"], "exclude_channels": ["ab"]}, "ab", False),
        ({"exclude_channels": ["ab"]}, "b", True),
        ({"exclude_channels": ["ab"]}, "specific.1!x", False),
        ({"exclude_channels": ["ab"]}, "a\nb", False),
        ({"exclude_channels": ["ab"]}, "x" * 101, False),
    ],
)
def test_channels_are_those_of_the_pool(settings: Any, channel: str, may: bool) -> None:
    table = schema.Workers(**settings)
    assert may_consume(table, channel) is may
    report = ChannelReport({channel: ChannelCounts(handled=1)})
    found = read_channels(Paper(channel_report.encode(report)), table)
    assert found is not None
    assert (channel in found.channels) is may


def test_the_number_of_channels_is_bounded() -> None:
    settings = schema.Workers(only_channels=["*"])
    counts = Ledger()
    for prefix in ("a", "b"):
        channels = {f"{prefix}{n}": ChannelCounts(handled=1) for n in range(2 * MAX_CHANNELS)}
        counts.keep(worker(settings).says(ChannelReport(channels)))
    living = worker(settings).says(ChannelReport({"c": ChannelCounts(handled=1)}))
    assert len(counts.consumption([pool(settings)], [living]).pools[0].channels) == MAX_CHANNELS


BROKEN = [
    b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000,
    b'{"channels": {"images": {"handled": -1}}}',
    b'{"channels": {"images": {"handled": 1.5}}}',
    b'{"channels": {"images": {"handled": 99999999999999999999}}}',
    b'{"channels": {"images": {"oldest": -1}}}',
    b'{"channels": {"images": {"oldest": 1e999}}}',
    b'{"channels": {"images": {"handling": {"counts": {"99999": 1}}}}}',
    b'{"channels": {"images": {"handling": {"counts": {"1": -1}}}}}',
    b'{"channels": {"images": {"wait": {"total": -1}}}}',
]  # fmt: skip


@pytest.mark.parametrize("document", BROKEN, ids=lambda one: one[:50].decode("latin-1"))
def test_what_is_broken_counts_as_what_was_said_before(document: bytes) -> None:
    counts = Ledger()
    one = worker()
    one.bulletin.document = document
    assert look(counts, one)["images"] == ChannelCounts()
    one.says(images(handled=5))
    assert look(counts, one)["images"].handled == 5
    one.bulletin.document = document
    assert look(counts, one)["images"].handled == 5
    counts.keep(one)
    assert look(counts)["images"].handled == 5


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from([*ChannelCounts.__struct_fields__, *HubReport.__struct_fields__,
                         "counts", "total", "images", "1", "messages"]), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_document_is_an_exception(document: bytes) -> None:
    counts = Ledger()
    one, other = worker(schema.Workers(exclude_channels=["none"])), hub()
    one.bulletin.document = other.bulletin.document = document
    look(counts, one, other)
    counts.keep(one)
    counts.keep(other)


# The hub


def test_a_crash_of_the_hub_lets_no_counter_fall() -> None:
    counts = Ledger()
    assert counts.hub([]) is None
    first = hub().says(HubReport(messages_sent=10, epoch="a", connections=4, memory=7,
                                 dropped={"full": {"*": 3}}))  # fmt: skip
    assert counts.hub([first]).messages_sent == 10  # type: ignore[union-attr]
    first.says(HubReport(messages_sent=12, epoch="a", connections=4, dropped={"full": {"*": 4}}))
    counts.keep(first)
    between = counts.hub([])
    assert between is not None
    assert (between.messages_sent, between.connections, between.memory) == (12, 0, 0)
    second = hub().says(HubReport(messages_sent=1, epoch="b", connections=2,
                                  dropped={"full": {"*": 1}, "expired": {"a*": 2}}))  # fmt: skip
    after = counts.hub([second])
    assert after is not None
    assert (after.messages_sent, after.connections) == (13, 2)
    assert after.dropped == {"full": {"*": 5}, "expired": {"a*": 2}}


def test_a_planned_replacement_goes_on_counting() -> None:
    counts = Ledger()
    old = hub().says(HubReport(messages_sent=10, epoch="a", connections=4))
    new = hub()
    assert counts.hub([old, new]).messages_sent == 10  # type: ignore[union-attr]
    new.says(HubReport(messages_sent=11, epoch="a", connections=5))
    for living in ([old, new], [new, old], [new]):
        seen = counts.hub(living)
        assert seen is not None
        assert seen.messages_sent == 11
        assert seen.connections == (4 if living[-1] is old else 5)
    counts.keep(old)
    assert counts.hub([new]).messages_sent == 11  # type: ignore[union-attr]


def test_many_crashes_are_remembered_in_sum() -> None:
    counts = Ledger()
    for number in range(50):
        one = hub().says(HubReport(messages_sent=2, epoch=f"{number}", dropped={"full": {"a": 1}}))
        counts.consumption([], [one])
        counts.keep(one)
    seen = counts.hub([])
    assert seen is not None
    assert (seen.messages_sent, seen.dropped) == (100, {"full": {"a": 50}})
    assert len(counts._epochs) < 20


def test_the_number_of_patterns_is_bounded() -> None:
    many = {f"p{n:04}": 1 for n in range(500)}
    report = HubReport(dropped={"full": many}, pending={name: Queue(1, 2, 3.0) for name in many})
    seen = read_hub(Paper(hub_report.encode(report)))
    assert seen is not None
    assert len(seen.dropped["full"]) == len(seen.pending) == MAX_PATTERNS + 1
    assert sum(seen.dropped["full"].values()) == 500
    assert seen.pending[OTHERS].messages == 2 * (500 - MAX_PATTERNS)


@pytest.mark.parametrize(
    "document",
    [b"{", b'{"connections": -1}', b'{"pending": {"*": {"oldest": -2}}}',
     b'{"dropped": {"full": {"*": -1}}}', json.dumps({"epoch": "x" * 1000}).encode()],
)  # fmt: skip
def test_a_broken_report_of_the_hub_counts_as_none(document: bytes) -> None:
    assert read_hub(Paper(document)) is None


# Relays and slots


def interface() -> tuple[Any, RelayBoard]:
    """Return an interface process that relays, and the board as the process sees it."""
    descriptor = relay_board.create()
    process = Child("interface", "interface", schema.Interface())
    process.relay_board, theirs = RelayBoard(descriptor), RelayBoard(descriptor)
    os.close(descriptor)
    return process, theirs


def test_counters_of_relays_that_are_gone_stay() -> None:
    counts, rows = Ledger(), {"": 0, "other": 1, "web": 3}
    (first, one), (second, two) = interface(), interface()
    for number, relay in enumerate((one, two), 1):
        relay.row(3)[relay_board.RETRIES] = number
        relay.row(3)[relay_board.WAITING] = 10 * number
        relay.row(0)[relay_board.REJECTED] = 100 * number
    web = counts.relayed(rows, [first, second])["web"]
    assert (web[relay_board.RETRIES], web[relay_board.WAITING]) == (3, 30)
    counts.keep(first)
    found = counts.relayed(rows, [second])
    assert found["web"][relay_board.RETRIES] == 3
    assert found["web"][relay_board.WAITING] == 20
    assert counts.relayed(rows, [])[""][relay_board.REJECTED] == 100
    assert sum(found["other"]) == 0


def test_what_a_relay_wrote_is_not_trusted() -> None:
    process, relay = interface()
    relay.row(5)[relay_board.BYTES] = float("nan")
    relay.row(5)[relay_board.RETRIES] = -4
    relay.row(5)[relay_board.FAILED] = float("inf")
    relay.row(5)[relay_board.LOST] = 2
    counts = Ledger()
    assert sum(counts.relayed({"web": 5}, [process])["web"]) == 2
    counts.keep(process)
    assert sum(counts.relayed({"web": 5}, [])["web"]) == 2


def test_a_slot_keeps_the_counters_of_its_processes() -> None:
    old, new = (SimpleNamespace(scoreboard=scoreboard_of()) for _ in range(2))
    totals = SlotTotals()
    for process, lag in ((old, 3.0), (new, 0.5)):
        cells = process.scoreboard.cells
        cells[scoreboard.request_cell("GET", 200)] = 5
        cells[scoreboard.WEBSOCKETS_OPEN] = 2
        cells[scoreboard.LOOP_LAG] = lag
    found = totals.cells([old, new], new)
    assert found[scoreboard.request_cell("GET", 200)] == 10
    assert (found[scoreboard.WEBSOCKETS_OPEN], found[scoreboard.LOOP_LAG]) == (4, 0.5)
    totals.keep(old)
    totals.keep(old)  # it has been kept: nothing happens
    found = totals.cells([old, new], None)
    assert old.scoreboard is None
    assert found[scoreboard.request_cell("GET", 200)] == 10
    assert found[scoreboard.close_cell(1006)] == 2  # those that it was killed with
    assert (found[scoreboard.WEBSOCKETS_OPEN], found[scoreboard.LOOP_LAG]) == (2, 0)


def scoreboard_of() -> scoreboard.Scoreboard:
    descriptor = scoreboard.create()
    found = scoreboard.Scoreboard(descriptor)
    os.close(descriptor)
    return found
