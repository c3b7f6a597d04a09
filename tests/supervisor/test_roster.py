"""What the interface processes of relay mode are told of the app workers, and when."""

import asyncio
import functools
import random
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from chansup.protocol.roster import Roster
from tests.supervisor.pretend import Pretended

APP = """
[app]
asgi = "site_app:app"
[rollout]
settle = 0.001
stop_timeout = 0.05
start_timeout = 5
"""
INTERFACE = """
[interface]
bind = "127.0.0.1:0"
processes = 2
"""
WEB = """
[workers.web]
serves = ["http", "websocket"]
processes = 2
queue_limit = 7
"""
RELAY = APP + INTERFACE + WEB
DIRECT = APP + INTERFACE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chansup.toml"


def in_a_loop(test: Callable[[Path], Awaitable[None]]) -> Callable[[Path], None]:
    @functools.wraps(test)
    def run(path: Path) -> None:
        async def main() -> None:
            await test(path)

        asyncio.run(main())

    return run


def states(roster: Roster) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for worker in sorted(roster.workers, key=lambda worker: worker.pid):
        found.setdefault(worker.name, []).append(worker.state)
    return found


def routes(roster: Roster) -> dict[str, list[str]]:
    return {pool.name: [one.route for one in pool.routes] for pool in roster.pools}


@in_a_loop
async def test_every_interface_process_is_told_of_every_ready_worker(path: Path) -> None:
    site = Pretended(path, RELAY)
    await site.start()
    roster = site.told()
    assert states(roster) == {"web.0": ["ready"], "web.1": ["ready"]}
    assert {worker.address for worker in roster.workers} == {
        process.address for process in site.of("web")
    }
    (pool,) = roster.pools
    assert (pool.name, pool.row, pool.queue_limit) == ("web", 1, 7)
    assert (pool.drain_spread, pool.stop_timeout) == (5.0, 0.05)
    assert routes(roster) == {"web": ["http", "websocket"]}
    await site.stop()


@in_a_loop
async def test_handover_and_redeliver_of_a_route_win_over_those_of_the_pool(path: Path) -> None:
    serves = """
[workers.web]
handover = "close"
redeliver = true
serves = ["http", { route = "websocket", handover = "transparent" },
          { route = "websocket:/ws/*", redeliver = false }]
"""
    site = Pretended(path, APP + INTERFACE + serves)
    await site.start()
    (pool,) = site.told().pools
    assert [(one.route, one.handover, one.redeliver) for one in pool.routes] == [
        ("http", "close", True),
        ("websocket", "transparent", True),
        ("websocket:/ws/*", "close", False),
    ]
    await site.stop()


@in_a_loop
async def test_pools_are_known_before_any_worker_is_ready(path: Path) -> None:
    site = Pretended(path, RELAY)
    site.processes.boots = lambda process: True if process.specification.relays else None
    site.site.start()
    await site.until(lambda: len([one for one in site.of("interface") if one.listen()]) == 2)
    assert routes(site.told()) == {"web": ["http", "websocket"]}
    assert site.told().workers == []
    await site.stop()


@in_a_loop
async def test_a_worker_that_is_replaced_drains_before_it_is_asked_to_end(path: Path) -> None:
    site = Pretended(path, RELAY)
    await site.start()
    before = site.of("web")
    interface = site.of("interface")
    assert await site.reload() == "succeeded"
    assert site.of("interface") == interface  # nothing of theirs changed
    assert not set(before) & set(site.of("web"))
    for process in before:
        number, roster = process.signals[0]
        assert number == signal.SIGTERM
        assert roster is not None
        assert states(roster)[process.slot] == ["draining", "ready"]
    # At no moment was a slot without a ready worker.
    for roster in interface[0].listen():
        if len(roster.workers) > 1:
            assert sum(one.state == "ready" for one in roster.workers) == 2
    assert states(site.told()) == {"web.0": ["ready"], "web.1": ["ready"]}
    await site.stop()


@in_a_loop
async def test_the_emptiest_worker_is_replaced_first(path: Path) -> None:
    site = Pretended(path, RELAY.replace("processes = 2\nqueue", "processes = 4\nqueue"))
    await site.start()
    for process, holds in zip(site.of("web"), (5, 0, 7, 3), strict=True):
        process.holds = holds
    assert await site.reload() == "succeeded"
    done = [event.slot for event in site.events if event.step == "replaced"]
    assert done == ["web.1", "web.3", "web.0", "web.2"]
    assert [worker.websockets for worker in site.told().workers] == [0, 0, 0, 0]
    await site.stop()


@in_a_loop
async def test_the_interface_is_told_which_workers_are_to_be_replaced(path: Path) -> None:
    site = Pretended(path, RELAY)
    await site.start()
    before = {process.pid for process in site.of("web")}
    first, second = site.of("web")
    first.holds, second.holds = 4, 2
    assert await site.reload() == "succeeded"
    for process in (first, second):
        roster = process.signals[0][1]
        assert roster is not None
        for worker in roster.workers:
            assert worker.leaves_soon is (worker.pid in before)
        assert {one.pid: one.websockets for one in roster.workers}[first.pid] == 4
    assert not any(worker.leaves_soon for worker in site.told().workers)
    await site.stop()


@in_a_loop
async def test_a_crashed_worker_is_left_out_at_once_and_its_successor_added(path: Path) -> None:
    site = Pretended(path, RELAY)
    await site.start()
    first = site.of("web")[0]
    first.end(-11)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert states(site.told()) == {"web.1": ["ready"]}
    await site.until(lambda: len(site.told().workers) == 2)
    assert first.address not in {worker.address for worker in site.told().workers}
    await site.stop()


@in_a_loop
async def test_a_worker_that_leaves_by_itself_or_hangs_drains(path: Path) -> None:
    site = Pretended(path, RELAY)
    await site.start()
    first, second = site.of("web")
    first.stopped_accepting()
    second.hung = True
    site.site.pools["web"].changed()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert states(site.told()) == {"web.0": ["draining"], "web.1": ["draining"]}
    await site.stop()


@in_a_loop
async def test_a_successor_that_never_came_to_serve_is_greeted_only(path: Path) -> None:
    site = Pretended(path, RELAY)
    await site.start()
    old = {process.pid for process in site.of("web")}
    # The proof of the second pool fails after that of the first has succeeded.
    site.processes.boots = lambda process: process.specification.name != "other"
    outcome = await site.reload(RELAY.replace("queue_limit = 7", "") + OTHER)
    assert outcome == "failed"
    for roster in site.of("interface")[0].listen():
        assert all(one.state != "draining" for one in roster.workers if one.pid not in old)
    await site.stop()


OTHER = """
[workers.other]
serves = ["http:/other/*"]
"""


@in_a_loop
async def test_new_routes_count_only_when_every_pool_has_workers_for_them(path: Path) -> None:
    site = Pretended(path, RELAY)
    await site.start()
    before = len(site.of("interface")[0].listen())
    moved = RELAY.replace('"http", "websocket"', '"http"')
    moved += '[workers.chat]\nserves = ["websocket"]\n'
    assert await site.reload(moved) == "succeeded"
    for roster in site.of("interface")[0].listen()[before:]:
        found = [route for served in routes(roster).values() for route in served]
        assert sorted(found) == ["http", "websocket"]
        for pool in roster.pools:
            ready = [one for one in roster.workers if (one.pool, one.state) == (pool.name, "ready")]
            assert ready or not pool.routes
    assert routes(site.told()) == {"web": ["http"], "chat": ["websocket"]}
    assert {pool.name: pool.row for pool in site.told().pools} == {"web": 1, "chat": 2}
    await site.stop()


@in_a_loop
async def test_a_pool_that_is_removed_stays_known_while_it_has_workers(path: Path) -> None:
    site = Pretended(path, RELAY + OTHER)
    await site.start()
    (slow,) = site.of("other")
    slow.lives_on = True
    site.write(RELAY)
    rolling = site.site.rollouts.begin(site.events.append)
    await site.until(lambda: slow.signals)
    assert routes(site.told()) == {"web": ["http", "websocket"], "other": []}
    assert states(site.told())["other.0"] == ["draining"]
    told = slow.signals[0][1]
    assert told is not None and states(told)["other.0"] == ["draining"]
    slow.end(0)
    await rolling
    await asyncio.sleep(0.01)
    assert routes(site.told()) == {"web": ["http", "websocket"]}
    # Its row is never another's.
    assert await site.reload(RELAY + '[workers.third]\nserves = ["http:/third/*"]\n') == "succeeded"
    assert {pool.name: pool.row for pool in site.told().pools} == {"web": 1, "third": 3}
    await site.stop()


@in_a_loop
async def test_from_direct_to_relay_workers_come_first(path: Path) -> None:
    site = Pretended(path, DIRECT)
    await site.start()
    assert await site.reload(RELAY) == "succeeded"
    relaying = [one for one in site.processes.born if one.specification.relays]
    first_relay = min(process.pid for process in relaying)
    workers = [one.pid for one in site.processes.born if one.specification.serves]
    assert max(workers) < first_relay
    for process in relaying:
        if process.reader is not None:
            first = process.listen()[0]
            assert routes(first) == {"web": ["http", "websocket"]}
            assert states(first) == {"web.0": ["ready"], "web.1": ["ready"]}
    await site.stop()


@in_a_loop
async def test_from_relay_to_direct_workers_go_last(path: Path) -> None:
    site = Pretended(path, RELAY)
    await site.start()
    workers = site.of("web")
    relays = site.of("interface")
    assert await site.reload(DIRECT) == "succeeded"
    assert site.processes.alive() == site.of("interface")
    order = [event.message for event in site.events if event.type == "progress"]
    assert order.index("interface.1: replaced") < order.index(
        "web: stopping, the config has it no more"
    )
    assert all(process.exit is not None for process in [*workers, *relays])
    for relay in relays:
        for roster in relay.heard[3:]:
            assert routes(roster) == {"web": ["http", "websocket"]}
    await site.stop()


@in_a_loop
async def test_a_pool_that_stops_serving_is_replaced_after_the_interface(path: Path) -> None:
    site = Pretended(path, RELAY)
    await site.start()
    background = '[workers.web]\ncommand = "true"\n'
    assert await site.reload(DIRECT + background) == "succeeded"
    order = [event.message for event in site.events if event.type == "progress"]
    assert order.index("interface.1: replaced") < order.index("web.0: replaced")
    assert await site.reload(RELAY) == "succeeded"
    assert states(site.told()) == {"web.0": ["ready"], "web.1": ["ready"]}
    await site.stop()


@in_a_loop
async def test_a_failed_way_to_relay_mode_leaves_no_interface_without_workers(path: Path) -> None:
    site = Pretended(path, DIRECT)
    await site.start()
    site.processes.boots = lambda process: process.slot != "interface.1"
    assert await site.reload(RELAY) == "failed"
    # The directory is the same: interface.0 cannot go back, so its workers stay.
    assert routes(site.told()) == {"web": ["http", "websocket"]}
    assert len(site.of("web")) == 2
    site.processes.boots = lambda process: True
    assert await site.reload(RELAY) == "succeeded"
    assert len(site.of("interface")) == 2
    assert states(site.told()) == {"web.0": ["ready"], "web.1": ["ready"]}
    assert await site.reload(DIRECT) == "succeeded"
    assert site.of("web") == []
    await site.stop()


@in_a_loop
async def test_scaling_to_nothing_and_back(path: Path) -> None:
    site = Pretended(path, RELAY)
    await site.start()
    await site.site.scale(site.site.pools["web"], 0)
    await asyncio.sleep(0.01)
    assert site.told().workers == []
    assert routes(site.told()) == {"web": ["http", "websocket"]}
    await site.site.scale(site.site.pools["web"], 3)
    await site.until(lambda: len(site.told().workers) == 3)
    assert await site.reload() == "succeeded"
    assert len(site.told().workers) == 3
    await site.stop()


@in_a_loop
async def test_nothing_is_sent_when_nothing_changed(path: Path) -> None:
    site = Pretended(path, RELAY)
    await site.start()
    await asyncio.sleep(0.01)
    heard = len(site.of("interface")[0].listen())
    for _ in range(5):
        for pool in site.site.pools.values():
            pool.changed()
        await asyncio.sleep(0.001)
    assert len(site.of("interface")[0].listen()) == heard
    await site.stop()


MOVED = (
    DIRECT
    + """
[workers.web]
serves = ["http"]
[workers.chat]
serves = ["websocket"]
processes = 3
"""
)
BACKGROUND = DIRECT + '[workers.web]\ncommand = "true"\nready = "after:0s"\n'
CONFIGS = (DIRECT, RELAY, RELAY + OTHER, MOVED, BACKGROUND)


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_reloads_crashes_and_failed_boots(path: Path, seed: int) -> None:
    asyncio.run(live(path, random.Random(seed)))


async def live(path: Path, chance: random.Random) -> None:
    site = Pretended(path, chance.choice(CONFIGS))
    await site.start()
    fails = 0.1
    site.processes.boots = lambda process: chance.random() >= fails
    rollings: list[asyncio.Task[None]] = []
    for _ in range(12):
        step = chance.choice(("reload", "reload", "crash", "leave", "scale", "pause"))
        if step == "reload":
            site.write(chance.choice(CONFIGS))
            rollings.append(site.site.rollouts.begin(site.events.append))
        elif step == "scale":
            pool = chance.choice(list(site.site.pools.values()))
            rollings.append(asyncio.create_task(site.site.scale(pool, chance.randrange(4))))
        elif step != "pause" and (alive := site.processes.alive()):
            one = chance.choice(alive)
            one.end(-9) if step == "crash" else one.stopped_accepting()
        await asyncio.sleep(chance.choice((0, 0, 0.001, 0.005, 0.02)))
    fails = 0.0
    # A number that was never in the file undoes a `scale`.
    assert await site.reload(RELAY.replace("processes = 2", "processes = 4")) == "succeeded"
    if rollings:
        await asyncio.wait_for(asyncio.wait(rollings), 10)
    await site.until(lambda: len(site.processes.alive()) == 8)
    await asyncio.sleep(0.01)  # for the last word to be sent
    assert set(site.site.pools) == {"web", "interface"}
    assert routes(site.told()) == {"web": ["http", "websocket"]}
    assert states(site.told()) == {f"web.{number}": ["ready"] for number in range(4)}
    rows = site.site.roster.rows
    assert len(set(rows.values())) == len(rows)
    await site.stop()
    assert site.processes.alive() == []
    # Nobody who relayed ever heard that nothing is served, or the same by two pools.
    for process in site.processes.born:
        for roster in process.heard:
            served = [route for pool in routes(roster).values() for route in pool]
            assert sorted(set(served) - {"http:/other/*"}) == ["http", "websocket"]
            assert len(served) == len(set(served))
