"""What becomes of requests that had no answer when the hub was killed."""

import asyncio
import signal
import socket
from pathlib import Path

import msgspec
import pytest

from chansup.layer import HubLost, HubUnavailable, LocalChannelLayer
from chansup.layer.frames import ID, Decoder, Kind, pack, string
from chansup.layer.greetings import Hello, Welcome
from chansup.layer.hub import ledger
from chansup.layer.policies import Policy
from chansup.layer.requests import RefusedError, Request, Requests
from tests.layer.hubs import PATIENCE, Hub

SEND = pack(Kind.SEND, string(b"x") + b"body")
GROUP_SEND = pack(Kind.GROUP_SEND, string(b"x") + b"body")
OTHER = pack(Kind.GROUP_ADD, b"")
FLUSH = pack(Kind.FLUSH)


def welcome(done: int | None, refused: int = 0) -> Welcome:
    return Welcome(version="", epoch="", done=done, refused=refused)


def outcome(answer: "asyncio.Future[bytes]") -> object:
    if not answer.done():
        return "waits"
    if error := answer.exception():
        return type(error)
    return answer.result()


@pytest.mark.parametrize(
    ("done", "refused", "expected", "again"),
    [
        # 7 requests: two were answered, five are unsure: SEND, GROUP_SEND, OTHER, SEND, FLUSH
        (2, 0, ["waits", "waits", "waits", "waits", HubLost], 4),
        (3, 0, [b"", "waits", "waits", "waits", HubLost], 3),
        (4, 0, [b"", b"", "waits", "waits", HubLost], 2),
        (6, 0b1000, [RefusedError, b"", "waits", b"", HubLost], 1),
        (6, 0b0101, [b"", RefusedError, "waits", RefusedError, HubLost], 1),
        (7, 0, [b"", b"", "waits", b"", HubLost], 1),
        (None, 0, [HubLost, HubLost, "waits", HubLost, HubLost], 1),
        (3 + 64, 0, [HubLost, b"", "waits", b"", HubLost], 1),
    ],
)
def test_what_was_done_is_not_done_again(
    done: int | None, refused: int, expected: list[object], again: int
) -> None:
    async def tried() -> None:
        requests = Requests()
        loop = asyncio.get_running_loop()
        answers: list[asyncio.Future[bytes]] = [loop.create_future() for _ in range(7)]
        for frame, answer in zip(
            [SEND, OTHER, SEND, GROUP_SEND, OTHER, SEND, FLUSH], answers, strict=True
        ):
            requests.add(Request(frame, 1.0, answer))
        for _ in range(2):
            requests.answered().succeed()
        requests.lose("gone")
        repeated = requests.settle(welcome(done, refused), 5.0)
        assert [outcome(answer) for answer in answers[2:]] == expected
        assert len(repeated) == again
        assert all(one.since == 5.0 and one.is_awaited for one in repeated)
        assert requests.settle(welcome(0), 6.0) == []

    asyncio.run(tried())


def test_what_waits_too_long_for_another_hub_is_given_up() -> None:
    async def tried() -> None:
        requests = Requests()
        loop = asyncio.get_running_loop()
        answers: list[asyncio.Future[bytes]] = [loop.create_future() for _ in range(4)]
        for frame, since, answer in zip(
            [SEND, OTHER, SEND, SEND], [1.0, 1.0, 3.0, 1.0], answers, strict=True
        ):
            requests.add(Request(frame, since, answer))
        answers[3].cancel()  # whoever asked does not wait any more: it is not sent again either
        requests.lose("gone")
        assert requests.oldest_unsure() == 1.0
        requests.fail_overdue(2.0, "gone")
        assert [outcome(answer) for answer in answers[:3]] == [HubLost, HubUnavailable, "waits"]
        assert len(requests.settle(welcome(0), 5.0)) == 1

    asyncio.run(tried())


class Raw:
    """A client that says what it likes."""

    def __init__(self, path: str, link: int, former: int = 0, received: int = 0) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(path)
        hello = Hello(
            process="f" * 16, policy=Policy(60, 60, 2), link=link, former=former, received=received
        )
        self.say(Kind.HELLO, msgspec.msgpack.encode(hello))
        self.decoder = Decoder()
        self.frames: list[tuple[int, bytes]] = []
        self.welcome = msgspec.msgpack.decode(self.hear(Kind.WELCOME), type=Welcome)

    def say(self, kind: int, payload: bytes = b"") -> None:
        self.socket.sendall(pack(kind, payload))

    def hear(self, kind: int) -> bytes:
        while True:
            while self.frames:
                found, payload = self.frames.pop(0)
                if found == kind:
                    return payload
            data = self.socket.recv(65536)
            assert data, "the hub closed the connection"
            self.frames += self.decoder.feed(data)

    def close(self) -> None:
        self.socket.close()


@pytest.mark.parametrize("killed", [False, True])
def test_the_hub_says_how_far_it_came(hub: Hub, killed: bool) -> None:
    first = Raw(hub.path, 1)
    assert first.welcome.done is None
    for _ in range(3):  # of two that the channel holds
        first.say(Kind.SEND, string(b"x") + b"body")
    first.hear(Kind.REFUSED)  # so all were dealt with
    first.close()
    if killed:
        hub.kill()
        hub.start()
    for _ in range(2):  # the first WELCOME may be lost on the way
        second = Raw(hub.path, 2, former=1)
        assert (second.welcome.done, second.welcome.refused) == (3, 1)
        second.close()
    stranger = Raw(hub.path, 4, former=3)
    assert stranger.welcome.done is None
    stranger.close()


def test_what_was_still_in_the_socket_is_done_before_the_client_hears_how_far_it_came(
    hub: Hub,
) -> None:
    first = Raw(hub.path, 1)
    assert hub.process is not None
    hub.process.send_signal(signal.SIGSTOP)
    first.say(Kind.SEND, string(b"x") + b"body")
    first.close()
    second = socket.socket(socket.AF_UNIX)
    second.connect(hub.path)
    second.close()
    hub.process.send_signal(signal.SIGCONT)
    again = Raw(hub.path, 2, former=1)
    assert again.welcome.done == 1
    again.say(Kind.LISTEN, ID.pack(1) + b"x")
    assert again.hear(Kind.HAND).endswith(b"body")
    again.close()


def test_a_message_that_a_killed_hub_had_not_read_arrives_once(hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(hub.path, timeout=PATIENCE)
        channel = await layer.new_channel()
        await layer.group_add("all", channel)
        receiving = asyncio.ensure_future(layer.receive(channel))
        await layer.send("work", {"n": 0})
        assert hub.process is not None
        hub.process.send_signal(signal.SIGSTOP)
        sending = [
            asyncio.ensure_future(layer.group_send("all", {"n": 1})),
            asyncio.ensure_future(layer.send("work", {"n": 2})),
            asyncio.ensure_future(layer.group_add("more", channel)),
            asyncio.ensure_future(layer.group_send("more", {"n": 3})),
        ]
        cancelled = asyncio.ensure_future(layer.send("work", {"n": 4}))
        await asyncio.sleep(0.05)
        cancelled.cancel()
        hub.kill()
        await asyncio.to_thread(hub.start)
        await asyncio.wait_for(asyncio.gather(*sending), PATIENCE)
        assert (await receiving)["n"] == 1
        assert (await layer.receive(channel))["n"] == 3
        assert (await layer.receive("work"))["n"] == 2
        statistics = await layer.statistics()
        assert statistics["messages_pending"] == 0
        assert statistics["dropped"] == {"lost": {"*": 1}}  # what waited: 0
        await layer.close()

    asyncio.run(asyncio.wait_for(tried(), 2 * PATIENCE))


def test_without_another_hub_the_sender_hears_of_it_in_time(hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(hub.path, timeout=0.5)
        await layer.send("x", {"n": 1})
        assert hub.process is not None
        hub.process.send_signal(signal.SIGSTOP)
        sending = asyncio.ensure_future(layer.send("x", {"n": 2}))
        joining = asyncio.ensure_future(layer.group_discard("x", "y"))
        await asyncio.sleep(0.05)
        hub.kill()
        with pytest.raises(HubLost, match="whether the message was sent is not known"):
            await asyncio.wait_for(sending, PATIENCE)
        with pytest.raises(HubUnavailable) as caught:
            await asyncio.wait_for(joining, PATIENCE)
        assert not isinstance(caught.value, HubLost)
        await layer.close()

    asyncio.run(tried())


# The ledger


def test_the_ledger_tells_the_next_hub(tmp_path: Path) -> None:
    path = str(tmp_path / "hub.sock")
    first = ledger.beside(path, 4)
    first.claim()
    rows = [first.open(b"%016d" % number, 7, 100 + number) for number in range(4)]
    assert all(rows)
    for number, row in enumerate(rows):
        assert row is not None
        row.give(number)
        row.done(10 * number, number)
    first.join(b"%016d" % 1)
    first.join(b"%016d" % 2)
    first.close(b"%016d" % 2, 7)
    first.risk(5)
    second = ledger.beside(path, 8)  # more clients, with the next config
    assert second.lost == 5
    assert second.processes == {b"%016d" % 1: 101}
    assert second.open_rows() == {(b"%016d" % number, 7) for number in (0, 1, 3)}
    assert second.find(b"%016d" % 3, 7) == (3, 30, 3)
    assert second.find(b"%016d" % 3, 8) is None
    second.begin()
    assert ledger.beside(path, 2).lost == 0
    assert (tmp_path / "hub.sock.ledger").stat().st_mode & 0o777 == 0o600


def test_a_full_ledger_forgets_the_connections_that_were_closed_first() -> None:
    kept = ledger.anonymous(1)
    number = 0
    while kept.open(b"%016d" % number, 1, 0) is not None:
        number += 1
    assert number >= 2
    kept.close(b"%016d" % 1, 1)
    kept.close(b"%016d" % 0, 1)
    assert kept.open(b"a" * 16, 1, 0) is not None
    assert kept.find(b"%016d" % 1, 1) is None
    assert kept.find(b"%016d" % 0, 1) is not None
    assert kept.open(b"too long for a process", 1, 0) is None


def test_a_ledger_that_somebody_else_put_there_is_not_used(tmp_path: Path) -> None:
    target = tmp_path / "valuable"
    target.write_bytes(b"x" * 100)
    (tmp_path / "hub.sock.ledger").symlink_to(target)
    kept = ledger.beside(str(tmp_path / "hub.sock"), 4)
    assert kept.open(b"a" * 16, 1, 0) is not None
    assert target.read_bytes() == b"x" * 100
