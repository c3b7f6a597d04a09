"""What came out, as a document."""

from typing import Any

from chansup.bench.latencies import Latencies
from chansup.bench.load import Load

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


def document(load: Load) -> dict[str, Any]:
    """Return what `--json` prints. Times are seconds."""
    tally, options = load.tally, load.options
    elapsed = elapsed_of(load)
    found: dict[str, Any] = {
        "url": load.target.url,
        "mode": mode_of(load),
        "connections": options.connections,
        "rate": options.rate,
        "interrupted": load.interrupted,
        "seconds": round(elapsed, 6),
        "answers": tally.answers,
        "per_second": round(tally.answers / elapsed, 3) if elapsed else 0.0,
        "failed": tally.failures,
        "failed_by_kind": dict(tally.failed.most_common()),
        "unfinished": load.unfinished,
        "latency": times(tally.latencies),
        "connects": tally.connects.count,
        "connect_time": times(tally.connects),
        "most_open": tally.most_open,
        "closed_while_idle": tally.closed_idle,
        "bytes_received": tally.received,
    }
    if load.target.is_websocket:
        found["closes"] = {str(code): count for code, count in sorted(tally.closes.items())}
        found["unasked_messages"] = tally.unasked
    else:
        found["statuses"] = {str(code): count for code, count in sorted(tally.statuses.items())}
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
    if load.begun is not None and load.tally.last_answer > load.begun and load.ended is not None:
        return load.tally.last_answer - load.begun
    return load.seconds


def times(latencies: Latencies) -> dict[str, float] | None:
    """Return the quantiles of durations, or None if there were none."""
    if latencies.mean is None:
        return None
    shown = {name: latencies.quantile(share) or 0.0 for name, share in QUANTILES.items()}
    shown |= {"max": latencies.largest, "mean": latencies.mean}
    return {name: round(value, 7) for name, value in shown.items()}
