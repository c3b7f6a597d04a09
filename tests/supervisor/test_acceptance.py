"""Who is said to accept nobody, and who is merely busy: real queues, and a clock by hand."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, cast

import pytest

from chansup.protocol.scoreboard import OUT_OF_DESCRIPTORS_NOW
from chansup.supervisor.pool.acceptance import Acceptance
from chansup.supervisor.sockets import accept_queue

pytestmark = pytest.mark.slow  # the interpreter makes no difference

BACKLOG = 4


class Thing:
    """Has a few attributes, and is equal to itself alone."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class PretendScoreboard:
    used_up = False

    def read(self, cell: int) -> float:
        assert cell == OUT_OF_DESCRIPTORS_NOW
        return float(self.used_up)


class Scene:
    """One slot on one TCP listener; each look is a second, in which a server beats."""

    def __init__(self, stack: ExitStack, *, launcher: bool = True) -> None:
        self._stack = stack
        self.launcher = launcher
        self.listener = stack.enter_context(socket.socket())
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(BACKLOG)
        self.board = PretendScoreboard()
        self.beat = 1
        self.blocked = False
        self.lines: list[str] = []
        self.fill("interface.0", 999_999_999)  # no such process: its descriptors cannot be seen
        listeners = SimpleNamespace(
            steered=True, address="127.0.0.1:1", socket_of=lambda number: self.listener
        )
        pool = SimpleNamespace(name="interface", kind="interface", slots=[self.slot])
        self.site: Any = SimpleNamespace(
            stopping=False,
            pools={"interface": pool},
            addresses=SimpleNamespace(listeners=lambda: [listeners]),
            say=lambda text, level="info": self.lines.append(text),
            not_accepting={},
        )
        self.acceptance = Acceptance(cast(Any, self.site))

    def fill(self, name: str, pid: int) -> None:
        specification = SimpleNamespace(launcher=self.launcher, takes_over=False, kind="interface")
        process = Thing(
            pid=pid, beats=lambda: self.beat, scoreboard=self.board, specification=specification
        )
        self.slot: Any = Thing(
            name=name, number=0, serves=True, current=process, accepts=True, stalled=False,
            accept_stalls=0,
        )  # fmt: skip

    def connect(self, count: int = 1) -> None:
        for _ in range(count):
            client = self._stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(self.listener.getsockname())

    def accept(self) -> None:
        self._stack.enter_context(self.listener.accept()[0])

    def look(self, times: int = 1) -> list[str]:
        for _ in range(times):
            self.beat += not self.blocked
            self.acceptance.look(1.0)
        return list(self.site.not_accepting.values())


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as held:
        yield held


def test_who_takes_none_of_those_that_wait_is_named_once(stack: ExitStack) -> None:
    scene = Scene(stack)
    scene.connect(2)
    assert scene.look(6) == []
    assert scene.look(2) == ["interface.0: accepts no connections"]
    assert not scene.slot.accepts
    assert scene.look(20) == ["interface.0: accepts no connections"]
    assert scene.slot.accept_stalls == 1
    [line] = scene.lines
    assert "2 on 127.0.0.1:1 have waited for 5 s" in line
    scene.accept()
    scene.accept()
    assert scene.look() == []
    assert scene.slot.accepts
    assert scene.lines[1:] == ["interface.0: accepts connections again"]


def test_who_is_slow_is_not_blamed(stack: ExitStack) -> None:
    scene = Scene(stack)
    scene.connect(3)
    for _ in range(10):
        assert scene.look(4) == []
        scene.accept()
        assert scene.look() == []
        scene.connect()


def test_a_queue_that_is_always_full_is_no_sign_where_its_members_change(stack: ExitStack) -> None:
    scene = Scene(stack)
    scene.connect(BACKLOG + 1)
    for _ in range(40):
        assert scene.look() == []
        scene.accept()
        scene.connect()
        length = accept_queue.look(scene.listener)
        assert length is not None
        assert length.is_full


def test_a_full_queue_that_nobody_takes_from_is_told_later(stack: ExitStack) -> None:
    scene = Scene(stack)
    scene.connect(BACKLOG + 1)
    assert scene.look(15) == []
    assert scene.look(3) == ["interface.0: accepts no connections"]


def test_whose_loop_stands_still_is_left_to_liveness(stack: ExitStack) -> None:
    scene = Scene(stack)
    scene.connect()
    scene.blocked = True
    assert scene.look(60) == []


def test_a_program_may_be_busy_for_longer(stack: ExitStack) -> None:
    scene = Scene(stack, launcher=False)
    scene.connect()
    assert scene.look(30) == []
    assert scene.look(3) == ["interface.0: accepts no connections"]
    assert "take its socket from descriptor 3" in scene.lines[0]


def test_another_process_begins_with_a_clean_slate(stack: ExitStack) -> None:
    scene = Scene(stack)
    scene.connect()
    assert scene.look(8)
    former = scene.slot
    scene.fill(former.name, 999_999_998)
    scene.site.pools["interface"].slots = [scene.slot]
    assert scene.look() == []
    assert scene.look(8)
    assert len(scene.lines) == 2  # nobody says of another process that it accepts again


def test_who_can_open_no_file_is_named_at_once(stack: ExitStack) -> None:
    scene = Scene(stack)
    scene.board.used_up = True
    assert scene.look() == ["interface.0: no file descriptors left"]
    assert "nofile" in scene.lines[0]
    scene.board.used_up = False
    assert scene.look(4) == []
    for _ in range(5):  # comes and goes: one line is enough
        scene.board.used_up = True
        assert scene.look()
        scene.board.used_up = False
        assert scene.look(4) == []
    assert len(scene.lines) == 2
