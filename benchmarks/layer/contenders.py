"""The channel layers that are measured, and the servers behind them."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

CAPACITY = 1_000_000  # of each channel: nothing is to be dropped

HUB = "chansup"
CORE_UNIX = "channels_redis core, Unix"
CORE_TCP = "channels_redis core, TCP"
PUBSUB_UNIX = "channels_redis pubsub, Unix"
PUBSUB_TCP = "channels_redis pubsub, TCP"
MEMORY = "InMemory"
CORE = (CORE_UNIX, CORE_TCP)
PUBSUB = (PUBSUB_UNIX, PUBSUB_TCP)
NAMES = (HUB, *CORE, *PUBSUB, MEMORY)


def make(name: str, address: str) -> Any:
    """Return a layer."""
    if name == HUB:
        from chansup.layer import LocalChannelLayer

        return LocalChannelLayer(address, capacity=CAPACITY, timeout=30)
    if name in CORE:
        from channels_redis.core import RedisChannelLayer

        return RedisChannelLayer(hosts=[address], capacity=CAPACITY)
    if name in PUBSUB:
        from channels_redis.pubsub import RedisPubSubChannelLayer

        return RedisPubSubChannelLayer(hosts=[address])
    from channels.layers import InMemoryChannelLayer

    layer = InMemoryChannelLayer(capacity=CAPACITY)
    layer.channel_capacity = []
    return layer


@contextlib.contextmanager
def started() -> Iterator[dict[str, str]]:
    """Start a hub and, if there is one, a Redis. Yield the addresses by the layers' names."""
    with tempfile.TemporaryDirectory(prefix="layers-") as directory:
        hub = os.path.join(directory, "hub.sock")
        addresses = {HUB: hub, MEMORY: ""}
        commands = [[sys.executable, "-m", "chansup.layer.hub", "--socket", hub]]
        sockets = [hub]
        if redis := shutil.which("redis-server"):
            path = os.path.join(directory, "redis.sock")
            port = _free_port()
            commands.append(
                [
                    *(redis, "--port", str(port), "--bind", "127.0.0.1", "--unixsocket", path),
                    *("--save", "", "--appendonly", "no", "--dir", directory),
                ]
            )
            sockets.append(path)
            unix, tcp = f"unix://{path}", f"redis://127.0.0.1:{port}"
            addresses |= {CORE_UNIX: unix, PUBSUB_UNIX: unix, CORE_TCP: tcp, PUBSUB_TCP: tcp}
        processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
        try:
            deadline = time.monotonic() + 10
            while not all(map(os.path.exists, sockets)) and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(0.2)
            yield addresses
        finally:
            for process in processes:
                process.terminate()
                process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
