"""What one page of metrics is made of."""

from typing import NamedTuple

from chansup.protocol.status import Consumption, Measurement, Status
from chansup.supervisor.carry.counters import HolderReport


class Snapshot(NamedTuple):
    """What one page is made of; taken at one moment in the event loop."""

    status: Status
    measurements: list[Measurement]
    rollouts: dict[str, tuple[int, float]]
    relayed: dict[str, list[float]]
    consumption: Consumption
    carried: HolderReport | None  # None: no WebSocket outlives its process here
    loop_lag: float
    malformed: int  # requests to the admin address
