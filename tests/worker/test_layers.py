"""Channel workers on the site's own hub, and on layers that are nobody's in particular."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from chansup.layer import LocalChannelLayer
from tests.layer import hubs
from tests.servers import redis
from tests.worker import project
from tests.worker.project import Project
from tests.worker.test_handling import numbers

pytestmark = pytest.mark.slow  # the interpreter makes no difference

BOTH = '[workers.x]\nchannels = ["thumbnails", "mail"]\n'


def test_on_the_site_s_own_hub(tmp_path: Path) -> None:
    options = "\n[channel_layer]\noptions = { capacity = 5000 }\n"
    site = project.write(tmp_path, {"BACKEND": "chansup.layer.ChannelLayer"})
    with site.running(BOTH + "redeliver = true\nprocesses = 2\n" + options) as run:
        site.send_all((one, {"number": n}) for n in range(50) for one in ("thumbnails", "mail"))
        run.wait_for(lambda: len(site.journal()) == 100)
        site.send("thumbnails", *numbers(100, seconds=0.05))
        done = run.command("restart", "hub")
        assert done.returncode == 0, done.stderr
        (killed, _) = run.pids("x")
        run.send_to(killed, signal.SIGKILL)
        run.wait_for(lambda: set(site.journal()[100:]) == set(range(100)))
        assert run.stop() == 0
    counts = Counter(site.journal()[100:])
    assert sum(counts.values()) <= 101  # what the killed process was done with a moment ago


@pytest.mark.thorough
def test_several_redis_servers(tmp_path: Path) -> None:
    """Senders take them in turn, so all of them must be waited for."""
    with redis.on_socket() as (_, first), redis.on_socket() as (_, second):
        site = project.on_redis(tmp_path, [first, second])
        with site.running('[workers.x]\nchannels = ["thumbnails"]\n') as run:
            site.send("thumbnails", *numbers(30))
            run.wait_for(lambda: len(site.journal()) == 30)
            site.send("thumbnails", {"number": 100})  # each sender begins at the first server
            site.send("thumbnails", {"number": 101})
            run.wait_for(lambda: {100, 101} <= set(site.journal()))
            assert run.stop() == 0
    assert Counter(site.journal()) == dict.fromkeys([*range(30), 100, 101], 1)


@pytest.mark.parametrize("more", ["", "redeliver = true\nmax_deliveries = 2\n"])
@pytest.mark.thorough
def test_what_nobody_can_read_on_the_hub(site: Project, hub: hubs.Hub, more: str) -> None:
    async def put() -> None:
        layer = LocalChannelLayer(hub.path)
        layer.serialize = lambda message: b"\xc1"  # type: ignore[method-assign]
        await layer.send("thumbnails", {"type": "x"})
        await layer.close()

    asyncio.run(put())
    with site.running(f'[workers.x]\nchannels = ["thumbnails"]\n{more}') as run:
        site.send("thumbnails", {"number": 2})
        run.wait_for(lambda: site.journal() == [2])
        assert run.stop() == 0
    assert run.output().count("a message cannot be read, ") == (2 if more else 1)
    assert ("given up after 2 attempts" in run.output()) is bool(more)
    assert "receive failed" not in run.output()


@pytest.mark.thorough
def test_what_cannot_be_read_costs_one_message(redis_site: Project) -> None:
    redis_site.python("""
    import asyncio, time
    from channels.layers import get_channel_layer

    async def put():
        connection = get_channel_layer().connection(0)
        await connection.zadd("asgithumbnails", {b"garbage": time.time()})

    asyncio.run(put())
    """)
    with redis_site.running('[workers.x]\nchannels = ["thumbnails"]\n') as run:
        redis_site.send("thumbnails", {"number": 2})
        run.wait_for(lambda: redis_site.journal() == [2])
        run.wait_for_output("a message cannot be read, one message is lost")
    assert "receive failed" not in run.output()


@pytest.mark.slow
@pytest.mark.thorough
def test_on_redis_nothing_comes_twice(redis_site: Project) -> None:
    """With `receive()` of channels_redis and several processes, a few would."""
    with redis_site.running(BOTH + "processes = 3\nconcurrency = 2\n") as run:
        redis_site.send("thumbnails", *numbers(2000))
        run.wait_for(lambda: len(redis_site.journal()) >= 2000)
        assert run.stop() == 0
    assert Counter(redis_site.journal()) == dict.fromkeys(range(2000), 1)


OWN_LAYER = """
from channels_redis.core import RedisChannelLayer


class OwnLayer(RedisChannelLayer):
    async def receive(self, channel):
        if channel in ("thumbnails", "mail"):
            open("receiving", "a").write(channel + "\\n")
        return await super().receive(channel)
"""


@pytest.fixture
def own_layer(tmp_path: Path, redis_server: tuple[redis.Redis, str]) -> Project:
    """The project on a layer of which nothing is known but `receive()`."""
    host = {"address": redis_server[1], "socket_timeout": None}  # redis-py's own is too short
    config = {"hosts": [host], "capacity": 1000}
    site = project.write(tmp_path, {"BACKEND": "own_layer.OwnLayer", "CONFIG": config})
    (tmp_path / "own_layer.py").write_text(OWN_LAYER)
    return site


def test_on_any_layer(own_layer: Project) -> None:
    with own_layer.running(BOTH) as run:
        messages = [(one, {"number": n}) for n in range(50) for one in ("thumbnails", "mail")]
        own_layer.send_all([*messages, ("mail", {"number": 7, "fail": True})])
        run.wait_for(lambda: len(own_layer.journal()) == 100)
        run.wait_for_output("one message is lost")
        assert run.stop() == 0
    assert Counter(own_layer.journal()) == dict.fromkeys(range(50), 2)
    assert (own_layer.directory / "receiving").exists()


@pytest.mark.thorough
def test_what_was_received_ahead_is_handled_before_the_end(own_layer: Project) -> None:
    """Nobody is free for it when the process is told to end."""
    with own_layer.running(BOTH) as run:
        own_layer.send("mail", {"number": 1, "wait_for": "go"})
        run.wait_for(lambda: own_layer.journal("begin") == [1])
        own_layer.send("thumbnails", {"number": 2})
        run.wait_for(lambda: _queued(own_layer, "thumbnails") == 0)
        run.send(signal.SIGTERM)
        run.wait_for(lambda: run.status()["state"] != "running")
        (own_layer.directory / "go").touch()
        assert run.wait() == 0
    assert own_layer.journal() == [1, 2]


def _queued(site: Project, channel: str) -> int:
    return int(
        site.python(f"""
        import asyncio
        from channels.layers import get_channel_layer

        async def count():
            return await get_channel_layer().connection(0).zcard("asgi{channel}")

        print(asyncio.run(count()))
        """)
    )


def test_what_no_layer_takes_back_is_told(own_layer: Project) -> None:
    short = project.CONFIG.replace("stop_timeout = 15", "stop_timeout = 3")
    with own_layer.running('[workers.x]\nchannels = ["mail"]\n', short) as run:
        own_layer.send("mail", {"number": 23, "wait_for": "never"})
        run.wait_for(lambda: own_layer.journal("begin") == [23])
        assert run.stop() == 0
    lost = "chansup: channel mail: a message was not finished in time, and is lost: "
    (line,) = [line for line in run.output().splitlines() if lost in line]
    assert "'number': 23" in line


def test_an_app_without_django_or_channels(tmp_path: Path) -> None:
    """Called with the scope of a channel, and messages of the site's layer."""
    (tmp_path / "site_app.py").write_text(
        textwrap.dedent("""
        import sys
        from chansup.layer import ChannelLayer


        async def app(scope, receive, send):
            assert scope == {"type": "channel", "channel": "work"}, scope
            while True:
                message = await receive()
                print("got", message["number"], flush=True)
                if message["number"]:
                    await ChannelLayer().send("work", {"number": message["number"] - 1})
        """)
    )
    config = '[app]\nasgi = "site_app:app"\n[workers.x]\nchannels = ["work"]\nconcurrency = 2\n'
    site = Project(tmp_path, {})
    sender = "import asyncio; from chansup.layer import ChannelLayer; "
    sender += "asyncio.run(ChannelLayer().send('work', {'number': 3}))"
    with site.running(config, before="") as run:
        outside = {**os.environ, "CHANSUP_CONFIG": str(run.config)}
        subprocess.run([sys.executable, "-c", sender], env=outside, check=True)
        run.wait_for_output("got 0")
        found = re.findall(r"x\.0 \| got (\d)", run.output())
        assert found[:4] == ["3", "2", "1", "0"]
