"""What two versions of chansup rely on does not change without another number.

If a test here fails, let the version of the contract in `protocol/versions.py` grow, or only add:
a field with a default, a cell at the end.
"""

import os
import subprocess
import sys
from collections.abc import Callable

import msgspec
import pytest

from chansup.layer.greetings import Hello, Welcome, understands
from chansup.layer.hub import ledger, takeover
from chansup.layer.policies import Policy
from chansup.protocol import (
    bulletin,
    channel_report,
    hub_report,
    launch,
    probe,
    relay_board,
    roster,
    scoreboard,
    session_table,
    shared_memory,
    versions,
)
from chansup.protocol.bulletin import Bulletin
from chansup.protocol.launch import Launch
from chansup.protocol.relay_board import RelayBoard
from chansup.protocol.scoreboard import Scoreboard
from chansup.protocol.session_table import SessionTable
from chansup.protocol.versions import Contract, VersionError

SCOREBOARD = {
    "BEATS": 0, "LOOP_LAG": 1, "IN_PROGRESS": 2, "WEBSOCKETS_OPEN": 3, "WEBSOCKETS_OPENED": 4,
    "DURATION_SUM": 5, "DURATIONS": 6, "REQUESTS": 21, "WEBSOCKETS_CLOSED": 81,
    "OUT_OF_DESCRIPTORS": 101, "PHASE": 102, "LAME_DUCK": 103, "OUT_OF_DESCRIPTORS_NOW": 104,
}  # fmt: skip
RELAY_BOARD = {
    "WAITING": 0, "IN_FLIGHT": 1, "ATTACHED": 2, "HELD": 3, "PAUSED": 4, "WAIT_SUM": 5, "WAITS": 6,
    "REJECTED": 22, "HANDED_OVER": 26, "PAUSE_SUM": 42, "PAUSES": 43, "RETRIES": 56, "FAILED": 57,
    "LOST": 58, "REDELIVERED": 59, "POISON": 60, "EXHAUSTED": 61, "BYTES": 63,
    "STICKY_REQUESTS": 65, "SESSIONS_LEARNED": 68, "SESSIONS_DISPLACED": 69,
}  # fmt: skip


def test_each_cell_stays_where_it_is() -> None:
    assert versions.SCOREBOARD.newest == versions.RELAY_BOARD.newest == 1, "record them anew"
    assert {name: getattr(scoreboard, name) for name in SCOREBOARD} == SCOREBOARD
    assert {name: getattr(relay_board, name) for name in RELAY_BOARD} == RELAY_BOARD
    assert scoreboard.CELLS <= scoreboard.SIZE // 8 == 500
    assert relay_board.CELLS <= relay_board.ROOM == 128
    assert roster.MAX_POOLS == 64
    assert (session_table.BUCKETS, session_table.WAYS) == (8192, 8)
    assert bulletin.SIZE == 4096 + 2 * 512 * 1024


LAUNCH = """{"pool": "web", "slot": 0, "generation": 1, "server": "relay", "application": "a:b",
"gateway": "asgi", "directory": "/srv", "listeners": [{"fd": 3, "address": "unix:a", "steered":
false}], "options": {}, "drain": {"settle": 1, "spread": 1, "keep_alive": 1, "timeout": 1},
"version": 1, "relay": {"roster_fd": 4}, "app_worker": {"concurrency": 1, "threads": 1,
"peers": [0]}, "channel_worker": {"channels": [], "only": [], "exclude": [], "concurrency": 1,
"redeliver": false, "max_deliveries": 1, "dead_letters": null, "layer": "default"},
"of a later version": true}"""
ROSTER = b"""{"pools": [{"name": "web", "row": 1, "routes": [{"route": "http"}], "queue_limit": 1,
"queue_timeout": 1, "worker_timeout": 1, "websocket_timeout": 1, "handover_rate": 1,
"drain_spread": 1, "stop_timeout": 1}], "workers": [{"name": "web.0", "pool": "web", "pid": 1,
"generation": 1, "address": "/run/a", "state": "ready"}], "of a later version": true}"""


def test_what_the_supervisor_of_the_same_version_says_is_understood(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert versions.LAUNCH.newest == versions.BULLETIN.newest == 1, "record them anew"
    monkeypatch.setenv(launch.VARIABLE, LAUNCH)
    assert launch.receive().directory == "/srv"
    assert roster.decode(ROSTER).workers[0].name == "web.0"
    assert roster.decode_report(b'{"type": "greeted", "address": "a"}')
    assert hub_report.decode(b"{}") == hub_report.HubReport()
    assert channel_report.decode(b'{"channels": {"a": {}}}').channels["a"].handled == 0


def test_what_hub_and_clients_of_the_same_version_say_is_understood() -> None:
    assert (versions.LAYER.oldest, versions.TAKEOVER.oldest) == (1, 1), "record them anew"
    hello = {
        "protocol": 1,
        "process": "a",
        "policy": [60, 60, 100],
    }
    assert understands(msgspec.convert(hello, Hello))
    assert understands(msgspec.convert({"protocol": 1, "version": "", "epoch": ""}, Welcome))
    records = [
        ["counts", "epoch", 1, 2, 3, 4, [["full", "*", 1]]],
        ["message", 1, b"body", 1.0, 2.0, None],
        ["channel", b"a", [0], None, None, None, [], []],
        ["hold", b"a", 0],
        ["group", b"g", 60.0, [[b"a", 1.0]]],
    ]
    for record in records:
        msgspec.convert(record, takeover.Record)
    assert ledger.size(10) == (20 + 64 + 1) * 64, "its magic has the version"


def launch_of(version: int) -> None:
    os.environ[launch.VARIABLE] = msgspec.json.encode({"version": version}).decode()
    launch.receive()


@pytest.mark.parametrize(
    ("contract", "create", "open_it"),
    [
        ("SCOREBOARD", scoreboard.create, Scoreboard),
        ("RELAY_BOARD", relay_board.create, RelayBoard),
        ("SESSIONS", session_table.create, SessionTable),
        ("BULLETIN", bulletin.create, Bulletin),
    ],
)
def test_memory_of_another_version_is_not_written_to(
    contract: str,
    create: Callable[[], int],
    open_it: Callable[[int], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    descriptor = create()
    open_it(descriptor)
    known: Contract = getattr(versions, contract)
    monkeypatch.setattr(versions, contract, known._replace(newest=8, oldest=8))
    with pytest.raises(VersionError, match=r"has version 1, .* knows version 8: restart chansup"):
        open_it(descriptor)
    before = os.memfd_create("as it was before there was a head")
    os.ftruncate(before, os.fstat(descriptor).st_size)
    with pytest.raises(VersionError, match="has version 0"):
        open_it(before)
    os.close(before)
    os.close(descriptor)


def test_memory_of_another_size_is_not_written_to() -> None:
    descriptor = shared_memory.create("small", versions.SCOREBOARD, 80)
    with pytest.raises(VersionError, match="has 144 bytes, and 4064 were expected"):
        Scoreboard(descriptor)
    os.close(descriptor)


@pytest.mark.parametrize("version", [0, versions.LAUNCH.newest + 1])
def test_orders_of_another_version_are_not_followed(version: int) -> None:
    with pytest.raises(VersionError, match=f"has version {version}, .*restart chansup"):
        launch_of(version)


def test_a_question_of_another_version_is_left_to_the_start_of_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chansup.launch.examine"],
        env={**os.environ, probe.VARIABLE: "{}"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_orders_say_their_version() -> None:
    assert Launch.__struct_defaults__.count(versions.LAUNCH.newest)
    assert msgspec.json.decode(LAUNCH, type=Launch).version == versions.LAUNCH.newest


@pytest.mark.parametrize(
    ("ours", "theirs", "found"),
    [((1, 2), (2, 3), 2), ((2, 3), (1, 2), 2), ((1, 1), (2, 2), None), ((3, 3), (1, 2), None)],
)
def test_two_sides_speak_the_newest_version_that_both_know(
    ours: tuple[int, int], theirs: tuple[int, int], found: int | None
) -> None:
    oldest, newest = ours
    assert versions.common(Contract("it", newest, oldest), *theirs) == found


def test_a_client_of_another_version_is_not_understood() -> None:
    policy = Policy(expiry=60, group_expiry=60, capacity=100)
    newest = versions.LAYER.newest
    assert understands(Hello(process="", policy=policy, protocol=newest, newest=newest + 5))
    assert not understands(Hello(process="", policy=policy, protocol=newest + 1))


def test_the_ledger_of_another_hub_is_left_alone_until_that_has_ended() -> None:
    descriptor = os.memfd_create("ledger")
    os.ftruncate(descriptor, ledger.size(4))
    os.pwrite(descriptor, b"chshub9\0" + b"x" * 100, 0)
    kept = ledger.inherited(descriptor, 4)
    assert os.pread(descriptor, 8, 0) == b"chshub9\0"
    assert kept.lost == 0
    kept.claim()
    row = kept.open(bytes(16), 1, os.getpid())
    assert row is not None
    row.give(3)
    again = ledger.inherited(descriptor, 4).find(bytes(16), 1)
    assert again is not None
    assert again.given == 3
    os.close(descriptor)
