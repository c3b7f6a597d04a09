"""The drain, driven by hand: no server, no clock but ours."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chansup.launch.drain import TRANSITIONS, Drain, Phase
from chansup.launch.in_flight import InFlight
from chansup.launch.listeners import Connections
from chansup.protocol.launch import Drain as Limits

LIMITS = Limits(settle=0.3, spread=5.0, keep_alive=5.0, timeout=25.0)


class WebSocket:
    def __init__(self, host: "Host", ends: bool = True, moves: bool = False) -> None:
        self.accepted = True
        self.moves = moves
        self.closed_at: float | None = None
        self._host = host
        self._ends = ends
        host.in_flight.websockets.add(self)

    def close(self) -> None:
        if self.closed_at is None:
            self.closed_at = self._host.now
            if self._ends:
                self._host.in_flight.websockets.discard(self)
                self._host.in_flight.released += 1


class Host:
    def __init__(self, limits: Limits = LIMITS) -> None:
        self.now = 1000.0
        self.in_flight = InFlight()
        self.events: list[str] = []
        self.open: set[int] = set()
        self.unread = False
        self.queue = False
        self.look_takes = 0.0  # seconds
        self.drain = Drain(limits, self.in_flight, self, lambda: self.now)

    def begin(self) -> None:
        self.events.append("begin")

    def waiting(self) -> bool:
        return self.queue

    def stop_accepting(self) -> None:
        self.events.append("stop accepting")

    def stopped(self) -> None:
        self.events.append("stopped")

    def connections(self) -> Connections:
        self.now += self.look_takes
        return Connections(frozenset(self.open), self.unread)

    def cut(self) -> None:
        self.events.append("cut")
        self.in_flight.requests = 0
        self.in_flight.websockets.clear()

    def end(self) -> None:
        self.events.append("end")

    def run(self, seconds: float = 100.0) -> float:
        """Step until the end, or for so long; return the seconds that passed."""
        began = self.now
        while self.now - began < seconds:
            delay = self.drain.step()
            if delay is None:
                break
            self.now += delay
        return self.now - began


def test_nothing_to_wait_for() -> None:
    host = Host()
    assert host.drain.begin()
    assert host.in_flight.draining
    assert 0.3 <= host.run() < 0.5
    assert host.events == ["begin", "stop accepting", "stopped", "end"]


def test_the_queue_is_emptied_first_but_not_for_ever() -> None:
    host = Host()
    host.queue = True
    host.drain.begin()
    host.run(0.08)
    assert host.events == ["begin"]
    host.run()
    assert host.events == ["begin", "stop accepting", "stopped", "end"]


def test_a_request_in_flight_is_waited_for() -> None:
    host = Host()
    host.in_flight.requests = 1
    host.drain.begin()
    host.run(10)
    assert "end" not in host.events
    host.in_flight.requests = 0
    assert host.run() < 0.1


def test_idle_connections_may_stay_for_keep_alive() -> None:
    host = Host()
    host.open = {1, 2}
    host.drain.begin()
    assert 5.0 <= host.run() < 5.2


def test_a_connection_that_closes_is_not_waited_for() -> None:
    host = Host()
    host.open = {1}
    host.drain.begin()
    host.run(1)
    host.open = set()
    assert host.run() < 0.1


def test_the_wait_begins_anew_when_a_connection_becomes_idle() -> None:
    host = Host()
    host.open = {1}
    host.in_flight.requests = 1
    host.drain.begin()
    host.run(4)
    host.in_flight.requests = 0
    host.in_flight.released += 1
    assert 5.0 <= host.run() < 5.2


def test_unread_bytes_are_read_first() -> None:
    host = Host()
    host.open = {1}
    host.unread = True
    host.drain.begin()
    host.run(7)
    assert "end" not in host.events
    host.unread = False
    assert host.run() < 0.2


def test_websockets_that_move_have_a_pace_of_their_own() -> None:
    host = Host()
    moving = [WebSocket(host, moves=True) for _ in range(100)]
    closing = [WebSocket(host) for _ in range(100)]
    host.in_flight.handover_rate = 100.0
    host.drain.begin()
    host.run()
    began = min(one.closed_at or 0 for one in moving)
    assert max(one.closed_at or 0 for one in moving) - began < 1.2
    assert max(one.closed_at or 0 for one in closing) - began > 4.0


def test_those_that_move_keep_their_pace_where_looking_takes_long() -> None:
    host = Host()
    host.look_takes = 0.1
    websockets = [WebSocket(host, moves=True) for _ in range(1000)]
    host.drain.begin()
    host.run()
    moments = sorted(one.closed_at for one in websockets if one.closed_at is not None)
    assert len(moments) == 1000
    most = max(sum(begin <= one < begin + 0.05 for one in moments) for begin in moments)
    assert most <= 100  # of 500 in a second, with one look in a while


def test_websockets_are_spread_evenly() -> None:
    host = Host()
    websockets = [WebSocket(host) for _ in range(100)]
    host.drain.begin()
    began = host.now
    host.run()
    moments = sorted(
        websocket.closed_at - began - 0.3 for websocket in websockets if websocket.closed_at
    )
    assert len(moments) == 100
    assert moments[-1] <= 5.2
    for second in range(5):
        assert 17 <= sum(second <= moment < second + 1 for moment in moments) <= 23


def test_a_websocket_that_opens_meanwhile_is_closed_too() -> None:
    host = Host()
    first = WebSocket(host)
    host.in_flight.requests = 1
    host.drain.begin()
    host.run(2)
    late = WebSocket(host)
    late.accepted = False
    host.run(6)
    assert first.closed_at is not None
    assert late.closed_at is None
    late.accepted = True
    host.in_flight.requests = 0
    assert host.run() < 0.1
    assert late.closed_at is not None


def test_hurry() -> None:
    host = Host()
    host.open = {1}
    websockets = [WebSocket(host) for _ in range(10)]
    host.drain.begin()
    host.run(0.5)
    assert not host.drain.begin()
    assert host.run() < 0.2
    assert all(websocket.closed_at for websocket in websockets)


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.SERVING])
def test_every_phase_leads_to_the_end(phase: Phase) -> None:
    reached, seen = {phase}, set[Phase]()
    while reached - seen:
        seen |= reached
        reached = {following for known in seen for _, following in TRANSITIONS[known]} | seen
    assert Phase.ENDING in reached


@given(
    settle=st.floats(0, 40),
    spread=st.floats(0, 40),
    keep_alive=st.floats(0, 40),
    timeout=st.floats(1, 40),
    requests=st.integers(0, 2),
    unread=st.booleans(),
    queue=st.booleans(),
    connections=st.sets(st.integers(), max_size=3),
    websockets=st.lists(st.booleans(), max_size=3),
    hurry_after=st.none() | st.floats(0, 40),
)
def test_it_always_ends_before_the_timeout(hurry_after: float | None, **given_: Any) -> None:
    limits = Limits(given_["settle"], given_["spread"], given_["keep_alive"], given_["timeout"])
    host = Host(limits)
    host.in_flight.requests = given_["requests"]
    host.unread, host.queue = given_["unread"], given_["queue"]
    host.open = given_["connections"]
    for ends in given_["websockets"]:
        WebSocket(host, ends)
    host.drain.begin()
    took = 0.0
    if hurry_after is not None:
        took = host.run(hurry_after)
        host.drain.begin()
    took += host.run()
    assert host.events[-1] == "end"
    assert took < limits.timeout
