"""Rows of the site, its rollouts and its pools."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import Metric
from chansup.supervisor.metrics.snapshot import Snapshot

OUTCOMES = ("succeeded", "failed", "superseded", "aborted")


def site_families(snapshot: Snapshot) -> Iterator["Metric"]:
    """Return the metrics of the site and its pools."""
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        InfoMetricFamily,
        SummaryMetricFamily,
    )

    status = snapshot.status
    yield InfoMetricFamily("chansup_build", "Version of chansup.", {"version": status.version})
    yield GaugeMetricFamily(
        "chansup_ready", "1 when every pool has enough ready processes.", value=status.ready
    )
    yield GaugeMetricFamily(
        "chansup_generation", "Number of the newest generation.", value=status.generation
    )
    yield CounterMetricFamily(
        "chansup_log_lines_dropped",
        "Lines of children that could not be written to stdout in time.",
        value=status.log_lines_dropped,
    )
    yield CounterMetricFamily(
        "chansup_files_restored",
        "Files and directories of chansup that vanished and were made again.",
        value=status.files_restored,
    )
    yield CounterMetricFamily(
        "chansup_admin_malformed_requests",
        "Requests to the admin address that are not HTTP.",
        value=snapshot.malformed,
    )
    running = status.rollout is not None and status.rollout.outcome == "running"
    yield GaugeMetricFamily(
        "chansup_rollout_in_progress", "1 while a rollout is under way.", value=running
    )
    rollouts = CounterMetricFamily(
        "chansup_rollouts", "Rollouts that ended, by how they ended.", labels=["result"]
    )
    durations = SummaryMetricFamily(
        "chansup_rollout_duration_seconds", "How long rollouts took.", labels=["result"]
    )
    for outcome in dict.fromkeys((*OUTCOMES, *snapshot.rollouts)):
        count, seconds = snapshot.rollouts.get(outcome, (0, 0.0))
        rollouts.add_metric([outcome], count)
        durations.add_metric([outcome], count, seconds)
    yield rollouts
    yield durations
    desired = GaugeMetricFamily(
        "chansup_pool_desired_processes", "How many processes a pool shall have.", labels=["pool"]
    )
    ready = GaugeMetricFamily(
        "chansup_pool_ready_processes", "How many processes of a pool are ready.", labels=["pool"]
    )
    for pool in status.pools:
        desired.add_metric([pool.name], pool.desired)
        ready.add_metric([pool.name], pool.ready)
    yield desired
    yield ready
