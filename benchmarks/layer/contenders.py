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
from dataclasses import dataclass, field
from typing import Any

from benchmarks.process import free_port

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


def make(name: str, address: str, capacity: int = CAPACITY) -> Any:
    """Return a layer."""
    if name == HUB:
        from chansup.layer import LocalChannelLayer

        return LocalChannelLayer(address, capacity=capacity, timeout=30)
    if name in CORE:
        from channels_redis.core import RedisChannelLayer

        return RedisChannelLayer(hosts=[host(address)], capacity=capacity)
    if name in PUBSUB:
        from channels_redis.pubsub import RedisPubSubChannelLayer

        return RedisPubSubChannelLayer(hosts=[host(address)])
    from channels.layers import InMemoryChannelLayer

    layer = InMemoryChannelLayer(capacity=capacity)
    layer.channel_capacity = []
    return layer


def host(address: str) -> dict[str, Any]:
    """Return a host for channels_redis: without this, redis-py 8 breaks off what waits for 5 s."""
    return {"address": address, "socket_timeout": None}


@dataclass
class Servers:
    """What runs: addresses and processes by the names of the layers."""

    addresses: dict[str, str] = field(default_factory=dict)
    pids: dict[str, int] = field(default_factory=dict)  # of the hub or Redis

    def present(self, names: list[str], notes: list[str]) -> list[str]:
        """Return those that can be measured here, and note the others."""
        missing = [name for name in names if name not in self.addresses]
        if missing:
            notes.append(f"No redis-server here, so nothing of {', '.join(missing)}.")
        return [name for name in names if name in self.addresses]


@contextlib.contextmanager
def started(*hub_options: str) -> Iterator[Servers]:
    """Start a hub and, if there is one, a Redis."""
    with tempfile.TemporaryDirectory(prefix="layers-") as directory:
        hub = os.path.join(directory, "hub.sock")
        servers = Servers({HUB: hub, MEMORY: ""})
        commands = [[sys.executable, "-m", "chansup.layer.hub", "--socket", hub, *hub_options]]
        sockets = [hub]
        if redis := shutil.which("redis-server"):
            path = os.path.join(directory, "redis.sock")
            port = free_port()
            commands.append(
                [
                    *(redis, "--port", str(port), "--bind", "127.0.0.1", "--unixsocket", path),
                    *("--save", "", "--appendonly", "no", "--dir", directory),
                ]
            )
            sockets.append(path)
            unix, tcp = f"unix://{path}", f"redis://127.0.0.1:{port}"
            servers.addresses |= {CORE_UNIX: unix, PUBSUB_UNIX: unix}
            servers.addresses |= {CORE_TCP: tcp, PUBSUB_TCP: tcp}
        processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
        servers.pids[HUB] = processes[0].pid
        servers.pids |= dict.fromkeys((*CORE, *PUBSUB), processes[-1].pid)
        try:
            _wait_for(sockets, processes)
            yield servers
        finally:
            for process in processes:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _wait_for(paths: list[str], processes: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + 20
    while not all(map(_is_listened_on, paths)):
        if time.monotonic() > deadline or any(each.poll() is not None for each in processes):
            raise SystemExit("the hub or redis-server does not start")
        time.sleep(0.02)


def _is_listened_on(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0
