"""Looking twice, some seconds apart."""

import time
from collections.abc import Callable, Iterator

from chansup.cli.client import Client
from chansup.cli.latency.comparison import Latency, compare
from chansup.errors import ChansupError, ExitCode
from chansup.protocol.status import Consumption

STEP = 0.1  # seconds between two signs of progress


class NothingToMeasureError(ChansupError):
    """There are no channel workers, or none of that channel."""

    exit_code = ExitCode.USAGE


def measure(
    client: Client,
    seconds: float,
    channel: str | None = None,
    progress: Callable[[float], None] = lambda passed: None,
) -> Latency:
    """Return what happened in the next `seconds`; in fewer, if the user interrupts.

    Raises NothingToMeasureError.
    """
    before = client.consumption()
    _check(before, channel)
    begun = time.monotonic()
    try:
        while (passed := time.monotonic() - begun) < seconds:
            progress(passed)
            time.sleep(min(STEP, seconds - passed))
    except KeyboardInterrupt:
        pass
    return compare(before, client.consumption(), channel)


def measure_again_and_again(
    client: Client, seconds: float, channel: str | None = None
) -> Iterator[Latency]:
    """Return what happens in each `seconds`, without end. Raises NothingToMeasureError."""
    before = client.consumption()
    _check(before, channel)
    while True:
        time.sleep(seconds)
        after = client.consumption()
        yield compare(before, after, channel)
        before = after


def _check(consumption: Consumption, channel: str | None) -> None:
    if not consumption.pools:
        raise NothingToMeasureError(
            "this site has no channel workers: add a table [workers.NAME] with"
            ' channels = ["…"] to its config'
        )
    known = sorted({name for pool in consumption.pools for name in pool.channels})
    if channel is not None and channel not in known:
        there_are = f"there are {', '.join(known)}" if known else "none is known yet"
        raise NothingToMeasureError(f"no channel worker consumes {channel!r}; {there_are}")
