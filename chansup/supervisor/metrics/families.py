"""From declarations and rows to the families of prometheus_client."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from chansup.protocol.counters import Buckets, Family, Row

if TYPE_CHECKING:
    from prometheus_client import Metric


def families(declared: Iterable[Family], rows: Iterable[Row]) -> Iterator["Metric"]:
    """Return the families that were declared, those without rows included."""
    made = {family.name: _made(family) for family in declared}
    for family, labels, value in rows:
        if isinstance(value, Buckets):
            bounds = (*map(str, family.bounds), "+Inf")
            buckets = list(zip(bounds, value.below, strict=True))
            made[family.name].add_metric(labels, buckets, value.total)
        elif isinstance(value, tuple):
            made[family.name].add_metric(labels, *value)
        elif family.kind == "info":
            made[family.name].add_metric(labels, {})
        else:
            made[family.name].add_metric(labels, value)
    yield from made.values()


def _made(family: Family) -> Any:
    from prometheus_client import core

    kinds = {
        "counter": core.CounterMetricFamily,
        "gauge": core.GaugeMetricFamily,
        "histogram": core.HistogramMetricFamily,
        "summary": core.SummaryMetricFamily,
        "info": core.InfoMetricFamily,
    }
    name = family.name.removesuffix("_total").removesuffix("_info")
    return kinds[family.kind](name, family.help, labels=family.labels)
