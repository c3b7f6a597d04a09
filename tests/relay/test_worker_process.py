"""A real worker process, with strangers at its socket."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from chansup.protocol.launch import AppWorker, Launch
from chansup.relay.frames import Decoder, Frame, Kind, pack
from tests.launch import harness
from tests.relay.strangers import hello, message, opening, request
from tests.relay.test_broken_peers import AFTER_GREETING, BEFORE_GREETING

HERE = Path(__file__).parent


class Peer:
    """Somebody who is connected."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(5)
        self.socket.connect(address.removeprefix("unix:"))
        self.decoder = Decoder()
        self.frames: list[Frame] = []

    def say(self, *what: bytes) -> None:
        try:
            self.socket.sendall(b"".join(what))
        except OSError:
            pass  # it was turned away already

    def hear(self, kind: int) -> Frame:
        while True:
            for place, frame in enumerate(self.frames):
                if frame[0] == kind:
                    return self.frames.pop(place)
            data = self.socket.recv(2**16)
            assert data, "it was turned away"
            self.frames += self.decoder.feed(data)

    def is_turned_away(self) -> bool:
        try:
            while self.socket.recv(2**16):
                pass
        except ConnectionError:
            pass
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def worker(
    supervisor: harness.Supervisor, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> harness.Process:
    peers = getattr(request, "param", [os.getuid()])
    orders = AppWorker(concurrency=10, threads=1, peers=peers)
    monkeypatch.setattr(harness, "Launch", partial(Launch, app_worker=orders))
    process = supervisor.start(
        "relay", "unix", directory=HERE, application="echo_app:app", health_path=None
    )
    return process.wait_ready()


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[harness.Supervisor]:
    with harness.supervisor(tmp_path) as played:
        yield played


def test_strangers_cost_a_line_each_and_not_the_process(worker: harness.Process) -> None:
    with closing(Peer(worker.address)) as good:
        good.say(hello(name="interface.0"), opening(1))
        good.hear(Kind.ACCEPT)
        bad = [*BEFORE_GREETING.values()]
        bad += [hello() + data for data in AFTER_GREETING.values()]
        for number, data in enumerate(bad, 1):
            with closing(Peer(worker.address)) as stranger:
                stranger.say(data)
                assert stranger.is_turned_away(), data
            good.say(message(1, number, b"still there?"))
            *_, payload = good.hear(Kind.MESSAGE)
            assert payload == b"still there?"
            good.say(request(number + 1))
            good.hear(Kind.RESPONSE)
        good.say(pack(Kind.DISCONNECT, 0, 1, 1000))
        good.hear(Kind.DONE)
    worker.terminate()
    assert worker.wait_exit() == 0
    lines = worker.output().splitlines()
    assert len(lines) == len(bad), worker.output()
    assert "Traceback" not in worker.output()


@pytest.mark.parametrize("worker", [[os.getuid() + 1]], indirect=True)
def test_other_users_are_turned_away_unheard(worker: harness.Process) -> None:
    with closing(Peer(worker.address)) as stranger:
        stranger.say(hello(), request(1))
        assert stranger.is_turned_away()
    worker.terminate()
    assert worker.wait_exit() == 0
    assert f"pid {os.getpid()} (uid {os.getuid()})" in worker.output()
