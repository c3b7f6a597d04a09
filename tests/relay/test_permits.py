"""The permits of a worker, with interfaces that obey late, in any order, and leave at any time.

The interfaces' books are the real ones; what stands between is a queue in each direction.
"""

import random
from collections import deque
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chansup.protocol import roster
from chansup.relay.appworker.permits import Permits
from chansup.relay.frames import HEADER, Kind
from chansup.relay.interface.worker import Worker


class Interface:
    """An interface process with one worker, as its pool: requests come, wait, are worked on."""

    draining = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.waiting = 0
        self.to_worker: deque[tuple[int, int]] = deque()
        self.from_worker: deque[tuple[int, int]] = deque()
        listed = roster.Worker("web.0", "web", 1, 1, "", "ready")
        self.worker = Worker(self, listed, None, None)  # type: ignore[arg-type]
        self.worker.usable = True
        self.worker.link = self  # type: ignore[assignment]
        self.sent = 0

    # As the link

    def send_control(self, frame: bytes) -> None:
        _, kind, _, _, number = HEADER.unpack(frame)
        self.to_worker.append((kind, number))
        self.sent += 1

    # As the pool: what Pool does with its queue

    def serve(self) -> None:
        while self.waiting and self.worker.has_permit:
            self.waiting -= 1
            self.worker.used += 1
            if not self.waiting:
                self.worker.content()

    def released(self, worker: Worker) -> None:
        self.serve()

    # What happens to it

    def arrive(self) -> None:
        if not self.waiting and self.worker.has_permit:
            self.worker.used += 1
            return
        self.waiting += 1
        self.worker.need(self.waiting)

    def give_up(self) -> None:
        self.waiting -= 1
        if not self.waiting:
            self.worker.content()

    def hear(self) -> None:
        kind, number = self.from_worker.popleft()
        self.worker._take_own(kind, number, b"")


class Site:
    """One worker's permits, and the interfaces."""

    def __init__(self, concurrency: int) -> None:
        self.permits = Permits(concurrency)
        self.interfaces: dict[str, Interface] = {}
        self.orphans = 0  # requests whose interface is gone
        self.orders = 0
        self._names = 0

    def join(self) -> Interface:
        one = Interface(f"interface.{self._names}")
        self._names += 1
        self.interfaces[one.name] = one
        self.give(self.permits.join(one.name))
        return one

    def leave(self, one: Interface) -> None:
        del self.interfaces[one.name]
        self.orphans += one.worker.used
        self.give(self.permits.leave(one.name, one.worker.used))

    def end_orphan(self) -> None:
        self.orphans -= 1
        self.give(self.permits.end())

    def give(self, orders: list[Any]) -> None:
        for order in orders:
            assert (order.granted > 0) != (order.recalled > 0)
            assert order.granted >= 0 and order.recalled >= 0
            frame = (Kind.GRANT, order.granted) if order.granted else (Kind.RECALL, order.recalled)
            self.interfaces[order.holder].from_worker.append(frame)
            self.orders += 1

    def hear(self, one: Interface) -> None:
        kind, number = one.to_worker.popleft()
        if kind == Kind.NEED:
            self.give(self.permits.need(one.name, number))
        else:
            assert kind == Kind.RETURN
            self.give(self.permits.returned(one.name, number))

    def check(self) -> None:
        held = 0
        for one in self.interfaces.values():
            worker = one.worker
            assert 0 <= worker.used <= worker.granted
            under_way = [n for kind, n in one.from_worker if kind == Kind.GRANT]
            returning = [n for kind, n in one.to_worker if kind == Kind.RETURN]
            assert self.permits._holders[one.name].held == worker.granted + sum(under_way) + sum(
                returning
            )
            held += self.permits._holders[one.name].held
        assert self.permits.free >= 0
        assert self.permits.free + held + self.orphans == self.permits.concurrency

    def settle(self) -> int:
        """Deliver until nothing is under way. Return how many messages that took."""
        messages = 0
        while any(one.to_worker or one.from_worker for one in self.interfaces.values()):
            for one in self.interfaces.values():
                while one.from_worker:
                    one.hear()
                    messages += 1
                while one.to_worker:
                    self.hear(one)
                    messages += 1
            assert messages < 10_000, "they never stop talking"
        return messages

    def check_nobody_waits_in_vain(self) -> None:
        self.settle()
        self.check()
        if any(one.waiting for one in self.interfaces.values()):
            assert self.permits.free == 0
            for one in self.interfaces.values():
                assert one.worker.used == one.worker.granted, "it has idle what another one needs"


class PermitsMachine(RuleBasedStateMachine):
    @initialize(concurrency=st.integers(1, 12), interfaces=st.integers(1, 4))
    def begin(self, concurrency: int, interfaces: int) -> None:
        self.site = Site(concurrency)
        for _ in range(interfaces):
            self.site.join()

    def pick(self, data: st.DataObject, wanted: Any) -> Interface | None:
        found = [one for one in self.site.interfaces.values() if wanted(one)]
        return data.draw(st.sampled_from(found)) if found else None

    @rule(data=st.data(), number=st.integers(1, 15))
    def requests_arrive(self, data: st.DataObject, number: int) -> None:
        one = self.pick(data, lambda one: True)
        if one is not None:
            for _ in range(number):
                one.arrive()

    @rule(data=st.data(), number=st.integers(1, 15))
    def requests_end(self, data: st.DataObject, number: int) -> None:
        one = self.pick(data, lambda one: one.worker.used)
        if one is not None:
            for _ in range(min(number, one.worker.used)):
                one.worker.release()

    @rule(data=st.data())
    def client_gives_up(self, data: st.DataObject) -> None:
        one = self.pick(data, lambda one: one.waiting)
        if one is not None:
            one.give_up()

    @rule(data=st.data())
    def interface_hears(self, data: st.DataObject) -> None:
        one = self.pick(data, lambda one: one.from_worker)
        if one is not None:
            one.hear()

    @rule(data=st.data())
    def worker_hears(self, data: st.DataObject) -> None:
        one = self.pick(data, lambda one: one.to_worker)
        if one is not None:
            self.site.hear(one)

    @rule()
    def everything_is_heard(self) -> None:
        self.site.check_nobody_waits_in_vain()

    @precondition(lambda self: len(self.site.interfaces) < 5)
    @rule()
    def joins(self) -> None:
        self.site.join()

    @rule(data=st.data())
    def leaves(self, data: st.DataObject) -> None:
        one = self.pick(data, lambda one: True)
        if one is not None:
            self.site.leave(one)

    @precondition(lambda self: self.site.orphans)
    @rule()
    def orphan_ends(self) -> None:
        self.site.end_orphan()

    @invariant()
    def books_agree(self) -> None:
        if hasattr(self, "site"):
            self.site.check()

    def teardown(self) -> None:
        if not hasattr(self, "site"):
            return
        site = self.site
        site.check_nobody_waits_in_vain()
        # Now the requests end, one by one: everybody's turn comes.
        while site.orphans:
            site.end_orphan()
        site.check_nobody_waits_in_vain()
        most = 100 + sum(one.waiting + one.worker.used for one in site.interfaces.values())
        for _ in range(most):
            busy = [one for one in site.interfaces.values() if one.worker.used]
            if not busy:
                break
            busy[0].worker.release()
            site.check_nobody_waits_in_vain()
        assert not any(one.waiting for one in site.interfaces.values())


TestPermits = PermitsMachine.TestCase
TestPermits.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)


def saturated(concurrency: int, interfaces: int) -> Site:
    site = Site(concurrency)
    for _ in range(interfaces):
        site.join()
    for one in site.interfaces.values():
        for _ in range(concurrency * 2):
            one.arrive()
    site.settle()
    return site


def work_off(site: Site, rounds: int) -> dict[str, int]:
    """Let requests end, and new ones come. Return how many of each interface ended."""
    chance = random.Random(7)
    done = dict.fromkeys(site.interfaces, 0)
    for _ in range(rounds):
        one = chance.choice([one for one in site.interfaces.values() if one.worker.used])
        one.worker.release()
        one.arrive()
        done[one.name] += 1
        site.settle()
    return done


@pytest.mark.parametrize(("concurrency", "interfaces"), [(2, 2), (11, 2), (10, 4), (1000, 3)])
def test_interfaces_that_are_all_overloaded_share_evenly_and_do_not_chatter(
    concurrency: int, interfaces: int
) -> None:
    site = saturated(concurrency, interfaces)
    work_off(site, concurrency * 2)
    held = [site.permits._holders[name].held for name in site.interfaces]
    assert sum(held) == concurrency
    assert max(held) - min(held) <= 1 + interfaces // 3
    before = site.orders
    work_off(site, 200)
    assert site.orders - before == 0


@pytest.mark.parametrize(("concurrency", "interfaces"), [(1, 2), (1, 4), (2, 3), (3, 5)])
def test_fewer_permits_than_interfaces_go_round(concurrency: int, interfaces: int) -> None:
    site = saturated(concurrency, interfaces)
    done = work_off(site, 60 * interfaces)
    assert min(done.values()) >= 30


def test_what_one_has_idle_goes_to_another_that_needs_it_though_that_has_more() -> None:
    site = Site(10)
    poor, rich = site.join(), site.join()
    site.settle()
    for _ in range(30):
        rich.arrive()  # long polls, say: none of them ends
    site.settle()
    assert rich.worker.used == 10
    assert poor.worker.granted == 0


def test_one_whose_requests_never_end_does_not_keep_others_from_what_a_third_has_idle() -> None:
    site = Site(9)
    stuck, idle, needy = site.join(), site.join(), site.join()
    site.settle()
    for _ in range(4):
        stuck.arrive()
    site.settle()
    for _ in range(20):
        needy.arrive()
    site.settle()
    assert idle.worker.granted == 0
    assert stuck.worker.used == 4
    assert needy.worker.used == 5


def test_an_ordinary_request_costs_no_message() -> None:
    site = Site(10)
    one, other = site.join(), site.join()
    site.settle()
    sent, orders = one.sent, site.orders
    for _ in range(100):
        one.arrive()
        other.arrive()
        one.worker.release()
        other.worker.release()
    assert (one.sent, site.orders) == (sent, orders)


def test_more_than_was_given_cannot_come_back() -> None:
    permits = Permits(4)
    permits.join("a")
    with pytest.raises(ValueError, match="3 permits came back, 2 were given"):
        permits.returned("a", 3)
    permits.returned("a", 2)
    assert permits.free == 4


def test_an_interface_that_used_more_than_it_held_is_waited_for() -> None:
    permits = Permits(4)
    permits.join("a")
    permits.join("b")
    assert permits.need("b", 10)
    assert permits.leave("a", still_used=20) == []
    for _ in range(18):
        assert not [order for order in permits.end() if order.granted]
    assert permits.free <= 0
    assert [order for order in permits.end() if order.granted] == [("b", 1, 0)]
    assert permits._holders["b"].held <= 4
