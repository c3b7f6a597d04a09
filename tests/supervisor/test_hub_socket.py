"""The socket of the hub: who may connect, and when somebody asks for a hub."""

import asyncio
import os
import socket
import stat
from functools import partial
from pathlib import Path

import pytest

from chansup.config import load
from chansup.config.pools import HUB
from chansup.supervisor.errors import RuntimeDirectoryError
from chansup.supervisor.plan.building import build
from chansup.supervisor.plan.generation import Generation
from chansup.supervisor.sockets.hub_socket import HubSocket
from chansup.unix import Presence


def never(*arguments: object) -> None:
    raise AssertionError(arguments)


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    return client


def test_it_listens_until_it_is_closed(tmp_path: Path) -> None:
    hub = HubSocket(tmp_path, never, never)
    hub.open({os.geteuid(), 0}, is_used=True)
    status = hub.path.stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert hub.address == str(tmp_path / "hub.sock")
    client = connect(hub.path)  # and waits: nobody accepts
    hub.open({os.geteuid()}, is_used=True)
    assert hub.path.stat().st_ino == status.st_ino  # the same socket
    hub.close()
    assert not hub.path.exists()
    assert hub.listener is None
    hub.close()
    hub.open({os.geteuid()}, is_used=True)  # again, as a reload may want it
    connect(hub.path).close()
    hub.close()
    client.close()


def test_what_a_killed_supervisor_left_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "hub.sock"))
    hub = HubSocket(tmp_path, never, never)
    hub.open({os.geteuid()}, is_used=True)
    connect(hub.path).close()
    hub.close()


def test_a_directory_that_is_gone_is_a_clear_error(tmp_path: Path) -> None:
    hub = HubSocket(tmp_path / "nowhere", never, never)
    with pytest.raises(RuntimeDirectoryError, match="for the channel layer: No such file"):
        hub.open({os.geteuid()}, is_used=True)


def test_the_first_client_is_heard_once(tmp_path: Path) -> None:
    async def whole() -> None:
        hub = HubSocket(tmp_path, never, never)
        hub.open({os.geteuid()}, is_used=False)
        came: list[int] = []
        for number in (1, 2):
            hub.watch(partial(came.append, number))
        with connect(hub.path), connect(hub.path):
            async with asyncio.timeout(10):
                while not came:
                    await asyncio.sleep(0)
            for _ in range(10):
                await asyncio.sleep(0)
        assert came == [1]
        hub.watch(never)
        hub.close()  # and nothing is watched any more
        await asyncio.sleep(0)

    asyncio.run(whole())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_other_users_may_connect(tmp_path: Path) -> None:
    opened: list[bool] = []
    warnings: list[str] = []
    hub = HubSocket(tmp_path, lambda: opened.append(True), warnings.append)
    hub.open({12345, 0}, is_used=False)
    assert (hub.path.stat().st_uid, stat.S_IMODE(hub.path.stat().st_mode)) == (12345, 0o600)
    assert opened
    assert not warnings  # nobody may ever come
    hub.open({12345, 12346}, is_used=True)  # the hub asks who it is
    assert stat.S_IMODE(hub.path.stat().st_mode) == 0o666
    hub.open({0}, is_used=True)
    assert (hub.path.stat().st_uid, stat.S_IMODE(hub.path.stat().st_mode)) == (0, 0o600)
    hub.close()
    (warning,) = warnings  # directories of pytest are closed to others
    assert "is closed to user 12345" in warning


def generation(directory: Path, config: str = "", number: int = 1) -> Generation:
    path = directory / "chansup.toml"
    path.write_text('[programs.x]\ncommand = "x"\n' + config)
    return build(number, load.load(path, {}), {})


def test_the_hub_joins_the_pools_when_it_is_needed(tmp_path: Path) -> None:
    made = generation(tmp_path)
    assert list(made.pools) == ["x"]
    assert made.hub is not None
    made.hub_demand.is_there = True
    assert list(made.pools) == [HUB, "x"]  # the first to start
    assert list(generation(tmp_path, "[channel_layer]\n").pools) == [HUB, "x"]
    other = generation(tmp_path, '[channel_layer]\nbackend = "redis://x"\n')
    other.hub_demand.is_there = True
    assert list(other.pools) == ["x"]
    assert other.layer("/run/hub.sock").address is None


def test_what_a_new_hub_is_needed_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = generation(tmp_path).hub
    assert first is not None
    assert first.takes_over and first.stays and first.reports
    for config, same in [
        ("[channel_layer]\n", True),
        ("[channel_layer]\noptions = { capacity = 9 }\n", True),
        ('[channel_layer]\nmemory = "256M"\n', True),
        ('[programs.y]\ncommand = "y"\n', True),
        ('[channel_layer]\nmemory = "257M"\n', False),
        ("[channel_layer]\nconnections = 9\n", False),
        ("[supervisor]\nliveness_timeout = 9\n", False),
    ]:
        second = generation(tmp_path, config, 2).hub
        assert second is not None
        assert second.runs_the_same_as(first) is same, config
    monkeypatch.setattr(
        "chansup.supervisor.plan.installed.fingerprint", lambda server=None: ("new",)
    )
    upgraded = generation(tmp_path).hub
    assert upgraded is not None and not upgraded.runs_the_same_as(first)


def test_a_vanished_socket_is_made_again_and_the_former_can_still_be_reached(
    tmp_path: Path,
) -> None:
    hub = HubSocket(tmp_path, never, never)
    assert hub.restore() is Presence.OURS  # nothing is to be there yet
    hub.open({os.geteuid()}, is_used=True)
    assert hub.restore() is Presence.OURS
    assert hub.former is None
    hub.path.unlink()
    assert hub.restore() is Presence.MISSING
    assert hub.restore() is Presence.OURS
    connect(hub.path).close()
    assert hub.former is not None
    with connect(Path(f"/proc/self/fd/{hub.former.place}")):  # a successor goes this way
        hub.former.listener.accept()[0].close()
    hub.forget_former()
    hub.path.unlink()
    hub.path.touch()
    assert hub.restore() is Presence.FOREIGN
    hub.close()
    assert hub.path.exists()


def test_the_first_client_is_heard_on_a_socket_that_was_made_again(tmp_path: Path) -> None:
    async def whole() -> None:
        hub = HubSocket(tmp_path, never, never)
        hub.open({os.geteuid()}, is_used=False)
        came = asyncio.Event()
        hub.watch(came.set)
        hub.path.unlink()
        hub.restore()
        with connect(hub.path):
            await asyncio.wait_for(came.wait(), 10)
        hub.close()

    asyncio.run(whole())
