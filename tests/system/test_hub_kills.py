"""A hub that is killed under load: whatever was sent without an error is received, or counted."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests import fetch
from tests.running import PATIENCE, Running, running, wait_for

pytestmark = pytest.mark.slow

CONFIG = """
[programs.idle]
command = "sleep 10000"
ready = "after:0s"

[channel_layer]
options = { capacity = 1000 }

[admin]
bind = "127.0.0.1:0"
"""
SENDER = """
import asyncio, json, sys
from chansup.layer import ChannelFull, ChannelLayer

async def main():
    who = sys.argv[1]
    layer, sent, number = ChannelLayer(timeout=30), [], 0
    print("ready", flush=True)
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop := asyncio.Event().set)
    ended = stop.__self__

    async def send(kind):
        nonlocal number
        while not ended.is_set():
            number += 1
            name = f"{who}.{number}"
            try:
                if kind == "group":
                    await layer.group_send("all", {"n": name})
                else:
                    await layer.send("work", {"n": name})
            except ChannelFull:
                await asyncio.sleep(0.05)
            except Exception as error:
                sent.append(["error", repr(error)])
            else:
                sent.append([kind, name])
            await asyncio.sleep(0.008)

    await asyncio.gather(*(send(kind) for kind in ("group", "group", "work")))
    print(json.dumps(sent), flush=True)
    await layer.close()

asyncio.run(main())
"""
RECEIVER = """
import asyncio, json, sys
from chansup.layer import ChannelLayer

async def main():
    layer, got = ChannelLayer(timeout=30), []
    channel = await layer.new_channel()
    await layer.group_add("all", channel)
    print("ready", flush=True)

    async def receive(name, pause):
        while True:
            message = await layer.receive(name)
            if message["n"] == "end":
                return
            got.append(message["n"])
            await asyncio.sleep(pause)

    tasks = [asyncio.create_task(receive(channel, 0))]
    if sys.argv[1] == "0":
        tasks.append(asyncio.create_task(receive("work", 0.006)))  # slower than they come
    await asyncio.gather(*tasks)
    print(json.dumps(got), flush=True)
    await layer.close()

asyncio.run(main())
"""
ENDER = """
import asyncio
from chansup.layer import ChannelLayer

async def main():
    layer = ChannelLayer(timeout=30)
    await layer.group_send("all", {"n": "end"})
    await layer.send("work", {"n": "end"})
    await layer.close()

asyncio.run(main())
"""


def start(run: Running, script: str, who: int) -> "subprocess.Popen[str]":
    environ = {**os.environ, "CHANSUP_CONFIG": str(run.config)}
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(who)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def hub_of(run: Running) -> int:
    found = run.slots()["hub.0"]
    return found["pid"] if found["state"] == "READY" else 0


def dropped(run: Running) -> Counter[str]:
    text = fetch.get(f"http://{run.status()['admin']}/metrics", timeout=PATIENCE).text
    found: Counter[str] = Counter()
    for reason, number in re.findall(
        r'^chansup_layer_messages_dropped_total\{.*reason="(\w+)".*\} ([\d.e+]+)$', text, re.M
    ):
        found[reason] += int(float(number))
    return found


def answer(process: "subprocess.Popen[str]") -> Any:
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    return json.loads(output)


@pytest.mark.thorough
def test_what_was_sent_is_received_once_or_counted(tmp_path: Path) -> None:
    chance = random.Random(12)
    with running(tmp_path, CONFIG) as run:
        run.wait_until_ready()
        receivers = [start(run, RECEIVER, who) for who in range(3)]
        senders = [start(run, SENDER, who) for who in range(2)]
        try:
            for kill in range(4):
                hub = run.wait_for(lambda: hub_of(run))
                time.sleep(chance.uniform(0.3, 0.6))  # of work
                if kill == 1:  # with requests under way, and messages in the sockets
                    os.kill(hub, signal.SIGSTOP)
                    time.sleep(0.1)
                frozen = receivers[kill % 3].pid
                os.kill(frozen, signal.SIGSTOP)
                os.kill(hub, signal.SIGKILL)
                run.wait_for(lambda: hub_of(run) not in (0, hub))  # noqa: B023 - it is called here
                time.sleep(0.2)  # of sends that the frozen one misses
                os.kill(frozen, signal.SIGCONT)
            sent = []
            for sender in senders:
                sent += answer(sender)
            subprocess.run(
                [sys.executable, "-c", ENDER], check=True, timeout=60,
                env={**os.environ, "CHANSUP_CONFIG": str(run.config)},
            )  # fmt: skip
            got = [answer(receiver) for receiver in receivers]
        finally:
            for process in (*receivers, *senders):
                process.kill()
                process.wait()
        expected = Counter(kind for kind, _ in sent)
        received = [Counter(one) for one in got]
        assert expected["error"] == 0, [what for kind, what in sent if kind == "error"]
        assert all(max(one.values()) == 1 for one in received)  # none of them twice
        group = {name for kind, name in sent if kind == "group"}
        work = {name for kind, name in sent if kind == "work"}
        missing = sum(len(group - set(one)) for one in received) + len(work - set(received[0]))
        wait_for(lambda: sum(dropped(run).values()) >= missing, f"{missing} of {expected} missing")
        counted = dropped(run)
        assert counted["lost"] > 0
        assert missing <= sum(counted.values()) <= missing + counted["full"] + 4
