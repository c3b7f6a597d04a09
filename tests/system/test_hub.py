"""The hub under a real supervisor: when it is there, what replaces it, and that nothing is lost."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chansup.layer import LocalChannelLayer
from chansup.protocol.channel_layer import VARIABLE
from tests import fetch
from tests.kit import everybody
from tests.running import PATIENCE, Running, running
from tests.system.conftest import DIRECT
from tests.system.test_relay import reload, rewrite

pytestmark = pytest.mark.slow


APP = """
import json, os

from chansup.layer import ChannelLayer

layers = []


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown" and layers:
                await layers[0].send("last.words", {"type": "goodbye"})
                print("said goodbye", flush=True)
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    action, _, channel = scope["path"].rpartition("/")
    if not layers and "env" not in action:
        layers.append(ChannelLayer())
    if "send" in action:
        await layers[0].send(channel, {"text": scope["query_string"].decode()})
        answer = "sent"
    elif "receive" in action:
        answer = (await layers[0].receive(channel))["text"]
    else:
        answer = os.environ["CHANSUP_CHANNEL_LAYER"]
    body = json.dumps({"pid": os.getpid(), "answer": answer}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""
PROGRAM = """
[programs.idle]
command = "sleep 10000"
ready = "after:0s"
"""
HUB = PROGRAM + "[channel_layer]\n"


@pytest.fixture
def talkative(tmp_path: Path) -> Path:
    """A directory with an application that sends and receives."""
    (tmp_path / "site_app.py").write_text(APP)
    return tmp_path


def get(run: Running, path: str) -> Any:
    answer = fetch.get(f"{run.url}{path}", timeout=PATIENCE)
    assert answer.status_code == 200, answer.text
    return answer.json()


def layer_of(run: Running) -> LocalChannelLayer:
    return LocalChannelLayer(str(run.config.parent / ".chansup" / "hub.sock"), timeout=PATIENCE)


def talk(run: Running, conversation: Callable[[LocalChannelLayer], Awaitable[Any]]) -> Any:
    """Be a client of the hub, for one event loop."""

    async def whole() -> Any:
        async with asyncio.timeout(2 * PATIENCE):
            return await conversation(layer_of(run))

    return asyncio.run(whole())


def put(run: Running, count: int = 1) -> None:
    async def conversation(layer: LocalChannelLayer) -> None:
        for number in range(count):
            await layer.send("alpha", {"number": number})

    talk(run, conversation)


def taken(run: Running, count: int = 1) -> list[int]:
    async def conversation(layer: LocalChannelLayer) -> list[int]:
        return [(await layer.receive("alpha"))["number"] for _ in range(count)]

    found: list[int] = talk(run, conversation)
    return found


def hub(run: Running) -> dict[str, Any]:
    return run.slots()["hub.0"]


def test_processes_talk_and_a_site_without_a_layer_has_no_hub(talkative: Path) -> None:
    config = DIRECT.replace("processes = 2", "processes = 1") + (
        '[workers.one]\nserves = ["http"]\n[workers.two]\nserves = ["http:/two/*"]\n'
    )
    with running(talkative, config) as run:
        run.wait_until_ready()
        place = json.loads(get(run, "/env/x")["answer"])
        assert place["backend"] == "local"
        assert "hub.0" not in run.slots()  # nobody has used it
        assert "does not run yet" in run.command("restart", "hub").stderr
        one = get(run, "/send/alpha?hello")
        two = get(run, "/two/receive/alpha")
        assert two["answer"] == "hello"
        assert one["pid"] != two["pid"]
        before = hub(run)["pid"]
        assert run.output().count("starting the hub") == 1
        get(run, "/send/alpha?from+the+old+code")
        reload(run)
        assert get(run, "/two/receive/alpha")["answer"] == "from+the+old+code"
        assert hub(run)["pid"] == before
        assert get(run, "/env/x")["pid"] != one["pid"]
        refused = run.command("scale", "hub=2")
        assert refused.returncode == 1
        assert "a site has one hub" in refused.stderr
        assert run.command("logs", "hub").returncode == 0
        assert run.stop() == 0
        output = run.output()
    # The hub is the last to go: the app's last words still reached it.
    assert "said goodbye" in output
    assert output.index(f"hub.0[{before}]: gone, exit code 0") > output.rindex("said goodbye")


def test_every_kind_of_child_is_told(tmp_path: Path) -> None:
    config = """
[programs.tells]
command = ["sh", "-c", 'echo program "$CHANSUP_CHANNEL_LAYER"; sleep 1000']
ready = "after:0s"

[tasks.tells-too]
command = ["sh", "-c", 'echo task "$CHANSUP_CHANNEL_LAYER"']
before = ["programs"]

[channel_layer]
backend = "redis://:secret@127.0.0.1:1/0"
options = { capacity = 7 }
"""
    with running(tmp_path, config) as run:
        run.wait_until_ready()
        for who in ("task", "program"):
            run.wait_for_output(f"{who} {{")
            (line,) = [one for one in run.output().splitlines() if f"{who} {{" in one]
            place = json.loads(line.partition(f"{who} ")[2])
            assert place["backend"] == "redis://:secret@127.0.0.1:1/0"
            assert place["options"] == {"capacity": 7}
            assert place["address"] is None
        assert not (tmp_path / ".chansup" / "hub.sock").exists()
        assert "secret" not in run.command("status", "--json").stdout


def test_a_restart_loses_no_message(tmp_path: Path) -> None:
    with running(tmp_path, HUB) as run:
        run.wait_until_ready()
        first = hub(run)["pid"]
        count = 300

        async def conversation(layer: LocalChannelLayer) -> list[int]:
            done = asyncio.Event()

            async def send() -> None:
                number = 0
                while number < count or not done.is_set():
                    await layer.send("alpha", {"number": number})
                    number += 1
                    await asyncio.sleep(0.002)
                await layer.send("alpha", {"number": -1})

            async def receive() -> list[int]:
                found: list[int] = []
                while not found or found[-1] >= 0:
                    found.append((await layer.receive("alpha"))["number"])
                return found

            async def restart() -> None:
                for _ in range(3):
                    done_one = await asyncio.to_thread(run.command, "restart", "hub")
                    assert done_one.returncode == 0, done_one.stderr
                done.set()

            found, *_ = await asyncio.gather(receive(), send(), restart())
            return found

        found = talk(run, conversation)
        assert found == [*range(len(found) - 1), -1]
        assert len(found) > count
        put(run, 3)
        assert run.command("restart", "hub").returncode == 0
        assert taken(run, 3) == [0, 1, 2]
        slot = hub(run)
        assert slot["pid"] != first
        assert slot["restarts"] == {"command": 4}
        assert "warning" not in run.output()


def test_a_reload_replaces_the_hub_where_its_own_settings_changed(tmp_path: Path) -> None:
    with running(tmp_path, HUB) as run:
        run.wait_until_ready()
        first = hub(run)["pid"]
        put(run, 2)
        reload(run)
        assert hub(run)["pid"] == first
        rewrite(run, "[channel_layer]\n", '[channel_layer]\nmemory = "300M"\n')
        reload(run)
        second = hub(run)
        assert second["pid"] != first
        assert second["restarts"] == {"reload": 1}
        assert taken(run, 2) == [0, 1]


def test_a_successor_that_fails_leaves_the_hub_as_it_is(tmp_path: Path) -> None:
    with running(tmp_path, HUB) as run:
        run.wait_until_ready()
        before = hub(run)["pid"]
        put(run)
        rewrite(
            run,
            "[channel_layer]\n",
            '[rollout]\nstart_timeout = 0.01\n[channel_layer]\nmemory = "300M"\n',
        )
        assert "not ready within 0.01 s" in reload(run, code=1)
        assert hub(run)["pid"] == before
        assert hub(run)["restarts"] == {}
        assert taken(run) == [0]


STALLS = """
import os, signal, sys

if "--takeover" in sys.orig_argv:
    from chansup.layer.hub import takeover

    read = takeover._read

    def stall(stream, size):
        os.kill(os.getpid(), signal.SIGSTOP)
        return read(stream, size)

    takeover._read = stall
"""


@pytest.mark.thorough
def test_a_successor_that_stalls_costs_nothing(tmp_path: Path) -> None:
    """Neither what is queued, nor the hub that waits for it: it continues to say that it is alive."""
    (tmp_path / "sitecustomize.py").write_text(STALLS)
    config = HUB + (
        "options = { capacity = 1000 }\n[rollout]\nstart_timeout = 8\n[supervisor]\n"
        f'runtime_directory = "{tmp_path}/.chansup"\nliveness_timeout = 2\n'
    )
    with running(tmp_path, config, {"PYTHONPATH": str(tmp_path)}) as run:
        run.wait_until_ready()
        before = hub(run)["pid"]

        async def fill(layer: LocalChannelLayer) -> None:
            for number in range(20):
                await layer.send("alpha", {"number": number, "ballast": b"x" * 500_000})

        talk(run, fill)
        restarted = run.command("restart", "hub")
        assert restarted.returncode == 1, restarted.stdout
        assert "the other hub did not take over" in run.output()
        assert "not ready within start_timeout = 8 s" in run.output()
        assert hub(run)["pid"] == before
        assert hub(run)["restarts"] == {}
        assert taken(run, 20) == [*range(20)]


def test_a_killed_hub_comes_back_and_its_clients_go_on(tmp_path: Path) -> None:
    with running(tmp_path, HUB) as run:
        run.wait_until_ready()
        path = tmp_path / ".chansup" / "hub.sock"
        inode = path.stat().st_ino
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

        async def conversation(layer: LocalChannelLayer) -> None:
            channel = await layer.new_channel()
            await layer.group_add("everybody", channel)
            waiting = asyncio.create_task(layer.receive(channel))
            for number in range(3):
                killed = hub(run)["pid"]
                os.kill(killed, signal.SIGKILL)
                await asyncio.to_thread(run.wait_for_successor, "hub.0", killed)
                while True:  # the membership is told to the new hub as soon as it answers
                    await layer.group_send("everybody", {"number": number})
                    done, _ = await asyncio.wait([waiting], timeout=0.2)
                    if done:
                        break
                assert waiting.result()["number"] == number
                waiting = asyncio.create_task(layer.receive(channel))
            waiting.cancel()

        talk(run, conversation)
        assert path.stat().st_ino == inode
        run.wait_until_ready()
        assert hub(run)["restarts"] == {"crash": 3}


def test_somebody_from_outside_brings_the_hub(tmp_path: Path) -> None:
    with running(tmp_path, PROGRAM) as run:
        run.wait_until_ready()
        assert "hub.0" not in run.slots()
        script = (
            "import asyncio; from chansup.layer import ChannelLayer;"
            "asyncio.run(ChannelLayer().send('alpha', {'number': 0}))"
        )
        environ = {key: value for key, value in os.environ.items() if key != VARIABLE}
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**environ, "CHANSUP_CONFIG": str(run.config)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert taken(run) == [0]
        first = hub(run)["pid"]
        reload(run)  # it stays in every generation that follows
        assert hub(run)["pid"] == first


@pytest.mark.thorough
def test_the_backend_changes_by_reload(talkative: Path) -> None:
    config = DIRECT.replace("processes = 2", "processes = 1")
    with running(talkative, config) as run:
        run.wait_until_ready()
        path = talkative / ".chansup" / "hub.sock"
        assert path.exists()
        run.config.write_text(run.config.read_text() + "\n[channel_layer]\n")
        reload(run)
        first = hub(run)["pid"]
        rewrite(run, "[channel_layer]\n", '[channel_layer]\nbackend = "redis://127.0.0.1:1"\n')
        reload(run)
        assert "hub.0" not in run.slots()
        assert not path.exists()
        assert f"hub.0[{first}]: gone, exit code 0" in run.output()
        assert json.loads(get(run, "/env/x")["answer"])["backend"] == "redis://127.0.0.1:1"
        rewrite(run, '\nbackend = "redis://127.0.0.1:1"\n', "\n")
        reload(run)
        assert hub(run)["state"] == "READY"
        assert json.loads(get(run, "/env/x")["answer"])["address"] == str(path)
        # A reload that fails after it had to listen takes that back.
        rewrite(run, "[channel_layer]\n", '[channel_layer]\nbackend = "redis://127.0.0.1:1"\n')
        reload(run)
        rewrite(run, '\nbackend = "redis://127.0.0.1:1"\n', "\n")
        (talkative / "site_app.py").write_text("broken")
        reload(run, code=1)
        assert "hub.0" not in run.slots()
        assert not path.exists()


@pytest.mark.thorough
def test_a_frozen_hub_is_replaced(tmp_path: Path) -> None:
    config = (
        HUB + f'[supervisor]\nruntime_directory = "{tmp_path}/.chansup"\nliveness_timeout = 2\n'
    )
    with running(tmp_path, config) as run:
        run.wait_until_ready()
        frozen = hub(run)["pid"]
        put(run)
        os.kill(frozen, signal.SIGSTOP)
        run.wait_for_output("liveness_timeout = 2 s")
        run.wait_for_successor("hub.0", frozen)
        run.wait_until_ready()
        assert hub(run)["restarts"] == {"hang": 1}
        put(run)
        assert taken(run) == [0]


@pytest.mark.thorough
def test_a_frozen_hub_is_restarted_and_what_it_had_is_told_to_be_lost(tmp_path: Path) -> None:
    """At once: neither its stop_timeout nor its liveness_timeout is waited for."""
    config = HUB + (
        f'[supervisor]\nruntime_directory = "{tmp_path}/.chansup"\nliveness_timeout = 600\n'
        "[rollout]\nstop_timeout = 600\n"
    )
    with running(tmp_path, config) as run:
        run.wait_until_ready()
        put(run)
        frozen = hub(run)["pid"]
        os.kill(frozen, signal.SIGSTOP)
        restarted = run.command("restart", "hub")
        assert restarted.returncode == 0, restarted.stdout
        assert "1 process was replaced; the former hub did not answer: the mess" in restarted.stdout
        assert not Path(f"/proc/{frozen}").exists()
        assert hub(run)["restarts"] == {"command": 1}
        again = run.command("restart", "hub")
        assert again.returncode == 0
        assert "lost" not in again.stdout
        put(run)
        assert taken(run) == [0]


@pytest.mark.parametrize(
    ("number", "words"), [(1, "1 message is lost"), (2, "2 messages are lost")]
)
def test_what_a_hub_takes_along_is_told(tmp_path: Path, number: int, words: str) -> None:
    with running(tmp_path, HUB) as run:
        run.wait_until_ready()
        for _ in range(number):
            put(run)
        assert run.command("restart", "hub").returncode == 0
        assert run.stop() == 0
        assert run.output().count(words) == 1


def test_no_hub_outlives_a_supervisor_and_its_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / ".chansup" / "hub.sock"
    with running(tmp_path, HUB) as run:
        run.wait_until_ready()
        run.send(signal.SIGKILL)
        run.wait()
    assert path.exists()  # nobody could take it away
    with running(tmp_path, HUB) as run:
        run.wait_until_ready()
        put(run)
        assert taken(run) == [0]
        assert run.stop() == 0
    assert not path.exists()


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

TALK = """
import asyncio, os, sys
from chansup.layer import LocalChannelLayer
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))

async def main():
    layer = LocalChannelLayer(sys.argv[1], timeout=float(sys.argv[3]))
    await layer.send("alpha", {"number": 0})

asyncio.run(main())
"""


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    with everybody.directory() as directory:
        yield directory


def sends(run: Running, user: int, patience: float = PATIENCE) -> str:
    """Send a message as a user; return what goes wrong."""
    socket = run.config.parent / ".chansup" / "hub.sock"
    words = [sys.executable, "-c", TALK, str(socket), str(user), str(patience)]
    done = subprocess.run(words, capture_output=True, text=True, cwd="/")
    return done.stderr


def owner_of(pid: int) -> int:
    return os.stat(f"/proc/{pid}").st_uid


@pytest.mark.skipif(everybody.reason() is not None, reason=str(everybody.reason()))
def test_the_hub_runs_as_the_user_of_the_site(open_to_all: Path) -> None:
    config = HUB.replace("[channel_layer]", 'user = "nobody"\n[channel_layer]')
    environ = everybody.environment(open_to_all)
    with running(open_to_all, config, environ, program=everybody.program()) as run:
        run.wait_until_ready()
        nobody = owner_of(hub(run)["pid"])
        assert nobody != 0
        path = open_to_all / ".chansup" / "hub.sock"
        assert path.stat().st_uid == nobody
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert sends(run, nobody) == ""
        assert sends(run, 0) == ""  # root may, and trusts a supervisor of root
        assert "Permission denied" in sends(run, 12345, patience=0.5)
        assert taken(run, 2) == [0, 0]
        # Another user for the hub alone: what is queued goes over, since the old one knows root.
        put(run)
        rewrite(run, "[channel_layer]\n", '[channel_layer]\nuser = "root"\n')
        reload(run)
        assert owner_of(hub(run)["pid"]) == 0
        assert sends(run, nobody) == ""
        # And back: the old one sees that the new one has its socket, from the supervisor.
        rewrite(run, '[channel_layer]\nuser = "root"\n', "[channel_layer]\n")
        reload(run)
        assert owner_of(hub(run)["pid"]) == nobody
        assert taken(run, 2) == [0, 0]


@as_root
def test_two_users_share_a_hub_and_strangers_are_refused(open_to_all: Path) -> None:
    config = HUB.replace("[channel_layer]", 'user = "nobody"\n[programs.other]\n')
    config += 'command = "sleep 10000"\nready = "after:0s"\nuser = "daemon"\n[channel_layer]\n'
    with running(open_to_all, config) as run:
        run.wait_until_ready()
        assert owner_of(hub(run)["pid"]) == 0
        for name in ("idle.0", "other.0"):
            assert sends(run, owner_of(run.slots()[name]["pid"])) == ""
        assert "HubUnavailable" in sends(run, 12345, patience=0.5)
        run.wait_for_output("user id 12345 is refused")
        assert taken(run, 2) == [0, 0]


@as_root
def test_a_user_who_may_not_run_the_interpreter_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    program = tmp_path / "closed" / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    config = f'[programs.x]\ncommand = "{program}"\nuser = "nobody"\n'
    with running(tmp_path, config) as run:
        run.wait_for_output("cannot run")
        run.wait_for_output("user nobody may not go into /")
        run.wait_for_output(f"on the way to {program}: let that user pass (chmod o+x), or install")


def test_a_hub_that_was_only_slow_hands_over_before_it_is_ended(tmp_path: Path) -> None:
    config = (
        HUB + f'[supervisor]\nruntime_directory = "{tmp_path}/.chansup"\nliveness_timeout = 2\n'
    )
    with running(tmp_path, config) as run:
        run.wait_until_ready()
        slow = hub(run)["pid"]
        put(run)
        os.kill(slow, signal.SIGSTOP)
        run.wait_for_output("liveness_timeout = 2 s")
        os.kill(slow, signal.SIGCONT)
        run.wait_for_successor("hub.0", slow)
        run.wait_until_ready()
        assert hub(run)["restarts"] == {"hang": 1}
        assert taken(run) == [0]  # nothing was lost
