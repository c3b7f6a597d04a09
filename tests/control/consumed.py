"""Channel workers and a hub, as the supervisor tells of them, for tests."""

from typing import Any

import msgspec

from chansup.protocol.channel_report import ChannelCounts
from chansup.protocol.histogram import Histogram
from chansup.protocol.hub_report import HubReport, Queue
from chansup.protocol.status import (
    ChannelStatus,
    ConsumerPool,
    Consumption,
    LayerStatus,
    PoolStatus,
    Status,
)


def times(*seconds: float) -> Histogram:
    histogram = Histogram()
    for one in seconds:
        histogram.add(one)
    return histogram


def counts(handled: int = 0, each: float = 0.0, waited: float | None = 0.0, **more: Any) -> Any:
    """Return what was counted of a channel whose messages all took and waited the same."""
    done = handled + more.get("failed", 0)
    return ChannelCounts(
        handled=handled,
        handling=times(*[each] * done),
        wait=None if waited is None else times(*[waited] * done),
        **{"depth": 0, "oldest": 0.0, **more},
    )


def pool(name: str = "images", ready: int = 1, **more: Any) -> ConsumerPool:
    """Return a pool; what is not a setting is one of its channels."""
    settings = {key: more.pop(key) for key in ("layer", "concurrency", "desired") if key in more}
    return ConsumerPool(
        name, **{"layer": "default", "concurrency": 1, "desired": ready or 1, **settings},
        ready=ready, channels=more,
    )  # fmt: skip


def consumption(taken: float, *pools: ConsumerPool, hub: HubReport | None = None) -> Consumption:
    return Consumption(taken, list(pools), hub)


def busy() -> Consumption:
    """Return a consumption in which something of everything happens."""
    resize = ChannelCounts(
        handled=90, failed=4, returned=2, lost=1, redelivered=5, dead=3, listener_failures=6,
        wait=times(*[0.004] * 50, *[7.0] * 44), handling=times(*[0.2] * 90, *[3000.0] * 4),
        in_flight=2, depth=12, oldest=3.4, looked=5.0,
    )  # fmt: skip
    hub = HubReport(
        messages_sent=100, group_messages_sent=20, messages_delivered=150, messages_redelivered=5,
        dropped={"full": {"*": 7, "thumb*": 2}, "moved": {"*": 1}, "unheard-of": {"*": 9}},
        pending={"*": Queue(3, 15, 3.5), "web*": Queue(1, 1, 0.5)},
        observed={"resize": Queue(1, 12, 3.4)}, connections=6, channels=40, groups=5,
        memberships=38, parked=2, memory=1_500_000, memory_limit=268_435_456, epoch="e",
    )  # fmt: skip
    media = pool("media", 2, concurrency=2, resize=resize, idle=ChannelCounts())
    return consumption(100.0, media, hub=hub)


def before() -> Consumption:
    """Return the first of two looks, ten seconds apart."""
    resize = counts(1000, 0.05, 0.02)
    media = pool("media", 2, resize=resize, mails=counts(5, 0.1, 0.001))
    slow = pool("reports", 2, reports=counts(50, 0.222, 3.0, depth=20, oldest=5.0))
    return consumption(100.0, media, slow)


def after(behind: bool = False) -> Consumption:
    """Return the second one: all is well unless the workers fall behind."""
    resize = counts(1093, 0.05, 0.02, failed=2, in_flight=1)
    media = pool("media", 2, resize=resize, mails=counts(5, 0.1, 0.001))
    depth = 50 if behind else 20
    reports = counts(140, 0.222, 3.0, depth=depth, oldest=5.4, in_flight=2)
    return consumption(110.0, media, pool("reports", 2, reports=reports))


def shown(status: Status) -> Status:
    """Return a status with channels and a hub in it."""
    channels = [
        ChannelStatus("resize", 12, 3.4, 2, 240, 3, 0.012),
        ChannelStatus("mails", None, None, 0, 0, 0, None),
    ]
    layer = LayerStatus(13, 3.4, 1_500_000, 268_435_456, 2)
    interface, thumbnails, redis = status.pools
    pools = [
        PoolStatus("hub", "hub", "channel layer", 1, 1, [], layer=layer),
        interface,
        msgspec.structs.replace(thumbnails, queue=None, channels=channels),
        redis,
    ]
    return msgspec.structs.replace(status, pools=pools)
