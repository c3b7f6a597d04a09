"""What came out, as a document."""

from typing import Any

from chansup.bench.latencies import Latencies
from chansup.bench.load import Load

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


def document(load: Load) -> dict[str, Any]:
    """Return what `--json` prints. Times are seconds."""
    counters, options = load.counters, load.options
    elapsed = elapsed_of(load)
    found: dict[str, Any] = {
        "url": load.target.url,
        "mode": mode_of(load),
        "connections": options.connections,
        "rate": options.rate,
        "interrupted": load.interrupted,
        "seconds": round(elapsed, 6),
        "answers": counters.answers,
        "per_second": round(counters.answers / elapsed, 3) if elapsed else 0.0,
        "failed": counters.failures,
        "failed_by_kind": dict(counters.failed.most_common()),
        "unfinished": load.unfinished,
        "latency": times(counters.latencies),
        "connects": counters.connects.count,
        "connect_time": times(counters.connects),
        "most_open": counters.most_open,
        "closed_while_idle": counters.closed_idle,
        "bytes_received": counters.received,
    }
    if load.target.is_websocket:
        found["closes"] = {str(code): count for code, count in sorted(counters.closes.items())}
        found["unasked_messages"] = counters.unasked
    else:
        found["statuses"] = {str(code): count for code, count in sorted(counters.statuses.items())}
    return found


def mode_of(load: Load) -> str:
    """Return what was done."""
    if not load.target.is_websocket:
        return "http"
    return "websocket, idle" if load.options.idle else "websocket, echo"


def elapsed_of(load: Load) -> float:
    """Return the time from the beginning to the last answer, or to the end if none came."""
    if load.kept_pace is not None:
        return load.kept_pace
    if load.begun is not None and load.counters.last_answer > load.begun and load.ended is not None:
        return load.counters.last_answer - load.begun
    return load.seconds


def times(latencies: Latencies) -> dict[str, float] | None:
    """Return the quantiles of durations, or None if there were none."""
    if latencies.mean is None:
        return None
    shown = {name: latencies.quantile(share) or 0.0 for name, share in QUANTILES.items()}
    shown |= {"max": latencies.largest, "mean": latencies.mean}
    return {name: round(value, 7) for name, value in shown.items()}
