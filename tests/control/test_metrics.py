import asyncio
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from chansup.protocol import relay_board, scoreboard
from chansup.protocol.counters import declared
from chansup.protocol.hub_report import Drop
from chansup.protocol.status import Measurement
from chansup.supervisor.carry import counters
from chansup.supervisor.carry.counters import HolderCounters, HolderReport
from chansup.supervisor.metrics import metrics
from chansup.supervisor.metrics.metrics import Metrics
from chansup.supervisor.metrics.readings import CpuClock, Reading

from . import consumed
from .fake import FakeCommands, cells

pytestmark = pytest.mark.slow  # the interpreter makes no difference

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5,*/*;q=0.1"
ROOT = Path(__file__).parents[2]
DOCUMENTATION = ROOT / "docs" / "metrics.md"
ALERTS = ROOT / "contrib" / "prometheus" / "alerts.yml"


def measurement(slot: str = "interface.0", **changes: object) -> Measurement:
    fields: dict[str, object] = {
        "pool": slot.partition(".")[0], "slot": slot, "state": "READY", "pid": os.getpid(),
        "started": 1_790_000_000.5, "restarts": {}, "last_exit_code": None, "cells": cells(),
    }  # fmt: skip
    return Measurement(**(fields | changes))  # type: ignore[arg-type]


def busy() -> Measurement:
    values = cells(BEATS=9, LOOP_LAG=0.002, IN_PROGRESS=2, WEBSOCKETS_OPEN=5, WEBSOCKETS_OPENED=7,
                   DURATION_SUM=4.5)  # fmt: skip
    values[scoreboard.request_cell("GET", 200)] = 10
    values[scoreboard.request_cell("BREW", 418)] = 1
    values[scoreboard.close_cell(1012)] = 2
    values[scoreboard.close_cell(4000)] = 1
    for place, count in ((0, 3), (4, 5), (14, 3)):
        values[scoreboard.DURATIONS + place] = count
    return measurement(cells=values, restarts={"crash": 2}, last_exit_code=-9)


def relay_row() -> list[float]:
    row = [0.0] * relay_board.CELLS
    for place, cell in enumerate(relay_board.GAUGES):
        row[cell] = place + 1
    for cell in (relay_board.RETRIES, relay_board.FAILED, relay_board.LOST):
        row[cell] = cell
    row[relay_board.WAITS] = 4
    row[relay_board.WAITS + len(relay_board.WAIT_BOUNDS)] = 1
    row[relay_board.WAIT_SUM] = 70.5
    row[relay_board.PAUSES + 2] = 6
    row[relay_board.PAUSE_SUM] = 0.12
    row[relay_board.REJECTED + relay_board.REJECTIONS.index("late")] = 3
    crash = relay_board.HANDED_OVER + len(relay_board.HANDOVERS)
    row[crash + relay_board.HANDOVERS.index("denied")] = 2
    row[relay_board.BYTES + 1] = 1e12
    return row


def page(fake: FakeCommands, accept: str = "") -> str:
    async def made() -> str:
        return (await Metrics(fake).page(accept))[0].decode()

    return asyncio.run(made())


def samples(text: str, parse=parse_plain) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found = {}
    for family in parse(text):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found
            found[key] = sample.value
    return found


def value(found, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


@pytest.fixture
def fake():
    one = FakeCommands()
    one.measured = [busy(), measurement("interface.1"), measurement("redis.0")]
    no_route = [0.0] * relay_board.CELLS
    no_route[relay_board.REJECTED + relay_board.REJECTIONS.index("no_route")] = 8
    one.relay_rows = {"": no_route, "web": relay_row()}
    one.consumed = consumed.busy()
    held = HolderCounters()
    held.add(counters.ADOPTED, "crash", 4)
    held.add(counters.NOT_CARRIED, "whatever a process says")
    held.pauses.add(0.03)
    one.holder = HolderReport(5, 1, 1000, 40960, held)
    one.ended = {"succeeded": (3, 12.5), "failed": (1, 2.0)}
    return one


@pytest.mark.parametrize(("accept", "parse"), [("", parse_plain), (OPENMETRICS, parse_openmetrics)])
def test_both_formats_say_the_same(fake, accept, parse):
    found = samples(page(fake, accept), parse)
    assert value(found, "chansup_carry_held") == 5
    assert value(found, "chansup_carry_adopted_total", reason="crash") == 4
    assert value(found, "chansup_carry_adopted_total", reason="deploy") == 0
    assert value(found, "chansup_carry_not_carried_total", reason="other") == 1
    assert value(found, "chansup_carry_pause_seconds_bucket", le="0.05") == 1
    assert value(found, "chansup_carry_pause_seconds_bucket", le="0.025") == 0
    assert value(found, "chansup_carry_messages_lost_total") == 0
    slot = {"pool": "interface", "slot": "interface.0"}
    assert value(found, "chansup_process_up", **slot) == 1
    assert value(found, "chansup_process_state", **slot, state="ready") == 1
    assert value(found, "chansup_process_state", **slot, state="backoff") == 0
    assert value(found, "chansup_process_start_time_seconds", **slot) == 1_790_000_000.5
    assert value(found, "chansup_process_restarts_total", **slot, reason="crash") == 2
    assert value(found, "chansup_process_restarts_total", **slot, reason="hang") == 0
    assert value(found, "chansup_process_last_exit_code", **slot) == -9
    assert value(found, "chansup_process_resident_memory_bytes", **slot) > 1_000_000
    assert value(found, "chansup_process_cpu_seconds_total", **slot) > 0
    assert value(found, "chansup_process_open_fds", **slot) > 3
    assert value(found, "chansup_process_event_loop_lag_seconds", **slot) == 0.002
    assert value(found, "chansup_requests_total", **slot, method="GET", status="2xx") == 10
    assert value(found, "chansup_requests_total", **slot, method="GET", status="5xx") == 0
    assert value(found, "chansup_requests_total", **slot, method="OTHER", status="4xx") == 1
    assert value(found, "chansup_requests_in_progress", **slot) == 2
    assert value(found, "chansup_websockets_open", **slot) == 5
    assert value(found, "chansup_websockets_opened_total", **slot) == 7
    assert value(found, "chansup_websockets_closed_total", **slot, code="1012") == 2
    assert value(found, "chansup_websockets_closed_total", **slot, code="4xxx") == 1
    duration = "chansup_request_duration_seconds"
    assert value(found, f"{duration}_bucket", **slot, le="0.001") == 3
    assert value(found, f"{duration}_bucket", **slot, le="0.025") == 8
    assert value(found, f"{duration}_bucket", **slot, le="30.0") == 8
    assert value(found, f"{duration}_bucket", **slot, le="+Inf") == 11
    assert value(found, f"{duration}_count", **slot) == 11
    assert value(found, f"{duration}_sum", **slot) == 4.5
    assert value(found, "chansup_pool_desired_processes", pool="thumbnails") == 2
    assert value(found, "chansup_pool_ready_processes", pool="thumbnails") == 0
    assert value(found, "chansup_rollouts_total", result="failed") == 1
    assert value(found, "chansup_rollouts_total", result="aborted") == 0
    assert value(found, "chansup_rollout_duration_seconds_sum", result="succeeded") == 12.5
    assert value(found, "chansup_log_lines_dropped_total") == 3
    assert value(found, "chansup_build_info", version="0.1.0") == 1
    assert value(found, "chansup_supervisor_resident_memory_bytes") > 1_000_000
    assert value(found, "chansup_ready") == 0


@pytest.mark.parametrize(("accept", "parse"), [("", parse_plain), (OPENMETRICS, parse_openmetrics)])
def test_what_relays_count(fake, accept, parse):
    found = samples(page(fake, accept), parse)
    web = {"pool": "web"}
    wait, pause = "chansup_relay_queue_wait_seconds", "chansup_relay_handover_pause_seconds"
    assert value(found, f"{wait}_bucket", **web, le="0.001") == 4
    assert value(found, f"{wait}_bucket", **web, le="60.0") == 4
    assert value(found, f"{wait}_bucket", **web, le="+Inf") == 5
    assert value(found, f"{wait}_sum", **web) == 70.5
    assert value(found, f"{pause}_bucket", **web, le="0.01") == 0
    assert value(found, f"{pause}_bucket", **web, le="0.025") == 6
    assert value(found, f"{pause}_count", **web) == 6
    assert value(found, "chansup_relay_queue_depth", **web) == relay_board.WAITING + 1
    assert value(found, "chansup_relay_requests_in_flight", **web) == relay_board.IN_FLIGHT + 1
    assert value(found, "chansup_relay_websockets_attached", **web) == relay_board.ATTACHED + 1
    assert value(found, "chansup_relay_messages_held", **web) == relay_board.HELD + 1
    assert value(found, "chansup_relay_websockets_paused", **web) == relay_board.PAUSED + 1
    assert value(found, "chansup_relay_retries_total", **web) == relay_board.RETRIES
    assert value(found, "chansup_relay_failed_total", **web) == relay_board.FAILED
    assert value(found, "chansup_relay_messages_lost_total", **web) == relay_board.LOST
    assert value(found, "chansup_relay_messages_redelivered_total", **web) == 0
    assert value(found, "chansup_relay_poison_total", **web) == 0
    rejected = "chansup_relay_rejected_total"
    assert value(found, rejected, **web, reason="late") == 3
    assert value(found, rejected, **web, reason="full") == 0
    assert value(found, rejected, pool="", reason="no_route") == 8
    handovers = "chansup_relay_handovers_total"
    assert value(found, handovers, **web, cause="crash", result="denied") == 2
    assert value(found, handovers, **web, cause="deploy", result="moved") == 0
    assert value(found, "chansup_relay_bytes_total", **web, direction="to_client") == 1e12
    assert value(found, "chansup_relay_credits_exhausted_total", **web, direction="to_worker") == 0


def test_there_is_nothing_about_relays_outside_relay_mode(fake):
    fake.relay_rows = {}
    assert "chansup_relay" not in page(fake)


@pytest.mark.parametrize(("accept", "parse"), [("", parse_plain), (OPENMETRICS, parse_openmetrics)])
def test_what_the_hub_counts(fake, accept, parse):
    found = samples(page(fake, accept), parse)
    for name, expected in {
        "messages_sent_total": 100, "group_messages_sent_total": 20,
        "messages_delivered_total": 150, "messages_redelivered_total": 5, "connections": 6,
        "channels": 40, "groups": 5, "memberships": 38, "parked_channels": 2,
        "memory_bytes": 1_500_000, "memory_limit_bytes": 268_435_456,
    }.items():  # fmt: skip
        assert value(found, f"chansup_layer_{name}") == expected
    dropped = "chansup_layer_messages_dropped_total"
    assert value(found, dropped, pattern="*", reason="full") == 7
    assert value(found, dropped, pattern="thumb*", reason="full") == 2
    assert value(found, dropped, pattern="*", reason="moved") == 1
    assert value(found, dropped, pattern="web*", reason="expired") == 0
    reasons = {dict(labels)["reason"] for name, labels in found if name == dropped}
    assert reasons == set(Drop)
    assert value(found, "chansup_layer_queue_messages", pattern="*") == 15
    assert value(found, "chansup_layer_queue_oldest_seconds", pattern="web*") == 0.5


@pytest.mark.parametrize(("accept", "parse"), [("", parse_plain), (OPENMETRICS, parse_openmetrics)])
def test_what_channel_workers_count(fake, accept, parse):
    found = samples(page(fake, accept), parse)
    one = {"pool": "media", "channel": "resize"}
    for result, expected in {
        "handled": 90, "failed": 4, "returned": 2, "lost": 1, "dead": 3,
    }.items():  # fmt: skip
        name = "chansup_channel_messages_total"
        assert value(found, name, **one, result=result) == expected
        assert value(found, name, pool="media", channel="idle", result=result) == 0
    assert value(found, "chansup_channel_redelivered_total", **one) == 5
    assert value(found, "chansup_channel_listener_failures_total", **one) == 6
    assert value(found, "chansup_channel_depth", **one) == 12
    assert value(found, "chansup_channel_oldest_seconds", **one) == 3.4
    assert value(found, "chansup_channel_in_flight", **one) == 2
    wait, handling = "chansup_channel_wait_seconds", "chansup_channel_handling_seconds"
    assert value(found, f"{wait}_bucket", **one, le="0.0025") == 0
    assert value(found, f"{wait}_bucket", **one, le="0.005") == 50
    assert value(found, f"{wait}_bucket", **one, le="5.0") == 50
    assert value(found, f"{wait}_bucket", **one, le="10.0") == 94
    assert value(found, f"{wait}_sum", **one) == pytest.approx(50 * 0.004 + 44 * 7)
    assert value(found, f"{handling}_bucket", **one, le="1800.0") == 90
    assert value(found, f"{handling}_bucket", **one, le="+Inf") == 94
    assert value(found, f"{handling}_count", **one) == 94
    # What the layer does not tell, or nobody has looked at, has no rows.
    idle = {key for key in found if ("channel", "idle") in key[1]}
    assert not [name for name, _ in idle if "wait" in name or "depth" in name or "oldest" in name]


def test_there_is_nothing_about_channels_where_there_are_none(fake):
    fake.consumed = consumed.consumption(1.0)
    assert not re.search("chansup_(channel|layer)_", page(fake))


def test_rows_do_not_depend_on_which_processes_came_and_went(fake):
    before = set(samples(page(fake)))
    fake.measured = [
        msgspec.structs.replace(one, pid=os.getppid(), restarts={"crash": 50})
        for one in fake.measured
    ]
    assert set(samples(page(fake))) == before


def test_rows_that_can_be_expected_are_there_before_they_are_needed(fake):
    found = samples(page(fake))
    idle = {"pool": "interface", "slot": "interface.1"}
    for status in scoreboard.STATUS_CLASSES:
        assert value(found, "chansup_requests_total", **idle, method="POST", status=status) == 0
    assert value(found, "chansup_websockets_closed_total", **idle, code="1006") == 0
    # Seen in one slot: there for the whole pool.
    assert value(found, "chansup_requests_total", **idle, method="OTHER", status="2xx") == 0
    assert not [key for key in found if ("method", "DELETE") in key[1]]


def test_a_pool_that_counts_nothing_has_no_rows_of_requests(fake):
    names = {name for name, labels in samples(page(fake)) if ("pool", "redis") in labels}
    assert "chansup_process_up" in names
    assert not [name for name in names if "request" in name or "websocket" in name]


def test_a_slot_without_a_process(fake):
    fake.measured = [measurement(state="BACKOFF", pid=None, started=None)]
    found = samples(page(fake))
    slot = {"pool": "interface", "slot": "interface.0"}
    assert value(found, "chansup_process_up", **slot) == 0
    assert value(found, "chansup_process_state", **slot, state="backoff") == 1
    assert not [name for name, _ in found if name.startswith("chansup_process_resident")]


def test_a_process_that_is_gone_meanwhile_is_left_out(fake):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    fake.measured = [measurement(pid=gone.pid)]
    assert "chansup_process_resident_memory_bytes{" not in page(fake)


def test_names_with_quotes_survive(fake):
    fake.measured = [measurement('a"b\\c\nd.0')]
    found = samples(page(fake))
    assert value(found, "chansup_process_up", pool='a"b\\c\nd', slot='a"b\\c\nd.0') == 1


def test_cpu_time_goes_on_over_restarts():
    clock = CpuClock()
    first, second = measurement(pid=1), measurement(pid=2)
    assert clock.add(measurement(pid=None), None) is None
    assert clock.add(first, Reading(5.0, 1, 1)) == 5
    assert clock.add(first, Reading(7.0, 1, 1)) == 7
    assert clock.add(measurement(pid=None), None) == 7
    assert clock.add(second, Reading(0.5, 1, 1)) == 7.5
    assert clock.add(second, None) == 7.5
    assert clock.add(second, Reading(1.5, 1, 1)) == 8.5
    clock.forget_others([measurement("other.0")])
    assert clock.add(second, Reading(1.5, 1, 1)) == 1.5


def test_those_who_ask_at_once_share_one_page(fake, monkeypatch):
    rendered = []

    def render(self: Metrics, snapshot: object, openmetrics: bool) -> bytes:
        rendered.append(openmetrics)
        time.sleep(0.05)
        return b"page"

    monkeypatch.setattr(Metrics, "_render", render)

    async def ask() -> None:
        made = Metrics(fake)
        impatient = asyncio.create_task(made.page(""))
        await asyncio.sleep(0)
        others = [asyncio.create_task(made.page("")) for _ in range(20)]
        impatient.cancel()
        assert {(await other)[0] for other in others} == {b"page"}
        await made.page("")
        assert len(rendered) == 1
        monkeypatch.setattr(metrics, "MAX_AGE", -1.0)
        await made.page("")
        assert len(rendered) == 2

    asyncio.run(ask())


def test_a_page_that_failed_is_made_anew(fake):
    async def ask() -> None:
        made = Metrics(fake)
        good, fake.measured = fake.measured, [measurement(cells=[1.0])]
        with pytest.raises(IndexError):
            await made.page("")
        fake.measured = good
        assert b"chansup_ready" in (await made.page(""))[0]

    asyncio.run(ask())


def test_the_loop_is_not_held_while_a_page_is_made(fake):
    fake.measured = [msgspec.structs.replace(busy(), slot=f"interface.{n}") for n in range(200)]

    async def ask() -> float:
        made = Metrics(fake)
        await made.page("application/openmetrics-text")  # the imports
        asked = asyncio.create_task(made.page(""))
        worst = 0.0  # of processor time: others on this machine do not count
        while not asked.done():
            before = time.thread_time()
            await asyncio.sleep(0)
            worst = max(worst, time.thread_time() - before)
        return worst

    assert asyncio.run(ask()) < 0.1


def test_all_that_is_declared_is_on_the_page(fake):
    shown = {family.name for family in parse_plain(page(fake)) if family.samples}
    assert shown >= {one.name.removesuffix("_total") for one in declared()}


@pytest.mark.parametrize("file", [DOCUMENTATION, ALERTS], ids=lambda file: file.name)
def test_queries_name_metrics_and_labels_that_exist(fake, file):
    found = samples(page(fake))
    names = {name for name, _ in found} | {"chansup_build_info"}
    queries = file.read_text().partition("## Questions")[2] or file.read_text()
    for name, selector in re.findall(r"\b(chansup_\w+)(?:\{([^}]*)\})?", queries):
        assert name in names
        labels = {label for one, pairs in found if one == name for label, _ in pairs}
        assert set(re.findall(r"(\w+)[=!]~?\"", selector)) <= labels
