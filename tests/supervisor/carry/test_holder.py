"""The holder: what it keeps, gives away and lets go of, over real channels and sockets."""

import asyncio
import gc
import os
import socket
import tracemalloc

import pytest

from chansup.protocol import carry
from chansup.protocol.counters import Family
from chansup.supervisor.carry import counters
from chansup.supervisor.carry import holder as module
from chansup.supervisor.carry.adoption import MOST_UNDER_WAY
from chansup.supervisor.carry.carrier import Carrier
from chansup.supervisor.carry.holder import Holder
from tests.supervisor.carry.child import Child, is_open, until


class Site:
    """A holder, and the processes of its site."""

    def __init__(self, limit: int = 1000) -> None:
        self.said: list[str] = []
        self.holder = Holder(lambda text, level="info": self.said.append(text), limit)
        self.children: list[Child] = []

    async def child(self, *, survives_crash: bool = True) -> Child:
        child = Child(self.holder, f"web.{len(self.children)}")
        self.children.append(child)
        child.begin(survives_crash=survives_crash)
        await until(lambda: child.carrier.ready and child.carrier.segments)
        return child

    def counted(self, family: Family) -> dict[str, int]:
        found = {label: self.holder.counters.of(family, label) for label in family.fixed[0].values}
        return {label: number for label, number in found.items() if number}

    def adopters(
        self, *children: Child, is_hopeful: bool = True, timeout: float = 15.0, rate: float = 1e6
    ) -> None:
        carriers = [child.carrier for child in children]
        self.holder.set_adopters(carriers, is_hopeful=is_hopeful, timeout=timeout, rate=rate)

    async def held(self, child: Child, number: int) -> list[socket.socket]:
        before = self.holder.held
        clients = [child.open(slot) for slot in range(number)]
        await until(lambda: self.holder.held == before + number)
        return clients

    def close(self) -> None:
        self.holder.close()
        for child in self.children:
            child.let_go()
            child.sock.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def site():
    before = descriptors()
    site = Site()
    yield site
    site.close()
    gc.collect()
    assert descriptors() <= before


def run(work):
    asyncio.run(work)


def test_a_parked_socket_goes_to_another_process(site):
    async def main():
        old, new = await site.child(), await site.child()
        (client,) = await site.held(old, 1)
        site.adopters(new)
        old.say(carry.Parked(0))
        await until(new.orders)
        memory, order = new.listen()
        assert isinstance(memory, carry.Memory)
        assert (order.key, order.index, order.reason, order.count) == (memory.key, 0, "deploy", 1)
        os.write(new.sockets[order.ticket], b"hello")
        assert client.recv(10) == b"hello"
        new.adopt(order, 7)
        new.say(carry.Resumed(7))
        await until(lambda: site.holder.counters.pauses.count)
        assert site.counted(counters.ADOPTED) == {"deploy": 1}
        assert new.carrier.sockets.keys() == {7}
        assert site.holder.held == 1

        new.say(carry.Closed(7))
        new.let_go()
        await until(lambda: not is_open(client))
        assert site.holder.held == 0
        client.close()

    run(main())


def test_what_a_dead_process_had_goes_to_the_emptiest_of_the_others(site):
    async def main():
        dead, full, empty = await site.child(), await site.child(), await site.child()
        others = await site.held(full, 4)
        clients = await site.held(dead, 10)
        site.adopters(full, empty)
        dead.die()
        await until(lambda: len(full.orders()) + len(empty.orders()) == 10)
        assert (len(full.orders()), len(empty.orders())) == (3, 7)
        assert {order.reason for order in empty.orders()} == {"crash"}
        assert {order.index for order in full.orders() + empty.orders()} == set(range(10))
        assert all(map(is_open, clients))
        for client in (*clients, *others):
            client.close()

    run(main())


def test_what_a_process_said_before_it_died_counts(site):
    """Though it had not read all that it was told: the kernel says ECONNRESET first then."""

    async def main():
        dead, other = await site.child(), await site.child()
        clients = await site.held(dead, 3)
        site.adopters(other)
        dead.carrier.channel.tell(carry.Forget(1))
        dead.say(carry.Closed(0))
        dead.say(carry.Parked(1))
        dead.die()
        await until(lambda: len(other.orders()) == 2)
        assert {order.index: order.reason for order in other.orders()} == {1: "deploy", 2: "crash"}
        assert [is_open(client) for client in clients] == [False, True, True]
        for client in clients:
            client.close()

    run(main())


def test_what_was_given_to_one_that_died_meanwhile_is_given_again(site):
    async def main():
        old, dead, other = await site.child(), await site.child(), await site.child()
        clients = await site.held(old, 2)
        site.adopters(dead)
        old.say(carry.Parked(0))
        old.say(carry.Parked(1))
        await until(lambda: len(dead.orders()) == 2)
        first, second = dead.orders()
        dead.adopt(first, 5)
        segment = os.memfd_create("more")
        dead.say(carry.Segment(1), segment)
        os.close(segment)
        site.adopters(other)
        dead.die()
        await until(lambda: len(other.orders()) == 2)
        again = {order.reason: order for order in other.orders()}
        assert (again["crash"].index, again["crash"].count) == (5, 2)  # of the memory of the dead
        assert (again["deploy"].index, again["deploy"].count) == (second.index, 1)
        assert again["deploy"].key == second.key
        assert again["crash"].key != second.key
        for client in clients:
            client.close()

    run(main())


def test_memory_of_the_dead_is_given_back_when_nobody_needs_it(site):
    async def main():
        dead, other = await site.child(), await site.child()
        (client,) = await site.held(dead, 1)
        site.adopters(other)
        dead.die()
        await until(other.orders)
        (order,) = other.orders()
        before = site.holder.report().journal_bytes
        other.adopt(order, 0)
        await until(lambda: carry.Forget(order.key) in other.listen())
        assert site.holder.report().journal_bytes <= before
        client.close()

    run(main())


def test_nobody_is_given_anything_before_it_is_ready(site):
    async def main():
        dead = await site.child()
        (client,) = await site.held(dead, 1)
        late = Child(site.holder, "late")
        site.children.append(late)
        site.adopters(late)
        dead.die()
        await asyncio.sleep(0.05)
        assert late.listen() == []
        assert site.holder.waiting == 1
        late.begin()
        await until(lambda: late.carrier.can_adopt)
        site.adopters(late)
        await until(late.orders)
        client.close()

    run(main())


def test_one_that_waits_too_long_ends(site):
    async def main():
        dead = await site.child()
        clients = await site.held(dead, 2)
        site.adopters(timeout=0.1)
        dead.die()
        await until(lambda: not any(map(is_open, clients)))
        assert site.counted(counters.ENDED) == {"no_process": 2}
        assert site.holder.held == site.holder.waiting == 0
        for client in clients:
            client.close()

    run(main())


@pytest.mark.parametrize(("is_clean", "said"), [(True, b"\x88\x02\x03\xf5"), (False, b"")])
def test_one_that_waits_too_long_is_told_so_where_that_is_certain_to_be_right(site, is_clean, said):
    async def main():
        old = await site.child()
        (client,) = await site.held(old, 1)
        site.adopters(timeout=0.05)
        old.say(carry.Parked(0, is_clean))
        await until(lambda: site.holder.held == 0)
        assert client.recv(100) == said
        assert client.recv(100) == b""
        client.close()

    run(main())


def test_where_nobody_will_come_nobody_is_waited_for(site):
    async def main():
        dead = await site.child()
        (client,) = await site.held(dead, 1)
        site.adopters(is_hopeful=False)
        dead.die()
        await until(lambda: not is_open(client))
        client.close()

    run(main())


def test_at_the_stop_of_a_site_everything_ends_with_its_process(site):
    async def main():
        one, other = await site.child(), await site.child()
        clients = await site.held(one, 2)
        site.adopters(one, other)
        one.carrier.leave(adoptable=True)
        one.say(carry.Parked(0))
        await until(other.orders)
        site.holder.stop()
        await until(lambda: carry.Leave(False) in one.listen())
        assert carry.Leave(False) in other.listen()
        one.die()
        other.die()
        await until(lambda: not any(map(is_open, clients)))
        assert site.counted(counters.ENDED) == {}
        for client in clients:
            client.close()

    run(main())


def test_where_counters_are_not_exact_a_crash_ends_what_a_deploy_moves(site):
    async def main():
        dead, other = await site.child(survives_crash=False), await site.child()
        clients = await site.held(dead, 2)
        site.adopters(other)
        assert any("counters differ" in line for line in site.said)
        dead.say(carry.Parked(0))
        await until(other.orders)
        dead.die()
        await until(lambda: not is_open(clients[1]))
        assert is_open(clients[0])
        assert site.counted(counters.ENDED) == {"not_exact": 1}
        for client in clients:
            client.close()

    run(main())


def test_what_is_beyond_the_limit_goes_on_plainly():
    async def main():
        site = Site(limit=2)
        child = await site.child()
        await site.held(child, 2)
        extra = child.open(2)
        await until(lambda: carry.Declined(2, "descriptors") in child.listen())
        assert not is_open(extra)  # the child of this test has no descriptor of its own
        assert site.counted(counters.NOT_CARRIED) == {"descriptors": 1}
        assert sum("limit of descriptors" in line for line in site.said) == 1
        child.open(3)
        child.say(carry.Closed(0))
        await until(lambda: site.holder.held == 1)
        child.open(4)
        await until(lambda: site.holder.held == 2)
        child.open(5)
        await until(lambda: carry.Declined(5, "descriptors") in child.listen())
        assert sum("limit of descriptors" in line for line in site.said) == 2  # it was half empty
        site.close()

    run(main())


@pytest.mark.parametrize(
    "message",
    [
        carry.Adopted(99, 1),
        carry.Failed(99, "error", True),
        carry.Ready(True),
        b"{}",
        b"\xff",
        b"[" * 60000,
    ],
)
def test_garbage_ends_the_channel_and_lets_go_of_all_that_the_process_has(site, message):
    async def main():
        child, other = await site.child(), await site.child()
        clients = await site.held(child, 2)
        site.adopters(other)
        if isinstance(message, bytes):
            child.sock.send(message)
        else:
            child.say(message)
        await until(lambda: not child.carrier.channel.is_open)
        assert not any(map(is_open, clients))
        assert site.counted(counters.NOT_CARRIED) == {"channel": 2}
        assert len([line for line in site.said if "its WebSockets end with it" in line]) == 1
        child.die()
        await asyncio.sleep(0)
        assert other.orders() == []
        for client in clients:
            client.close()

    run(main())


@pytest.mark.parametrize("slot", [0, 5000])
def test_a_slot_that_is_in_use_or_not_there_is_garbage(site, slot):
    async def main():
        child = await site.child()
        clients = await site.held(child, 1)
        clients.append(child.open(slot))
        await until(lambda: not child.carrier.channel.is_open)
        assert not any(map(is_open, clients))
        for client in clients:
            client.close()

    run(main())


def test_a_process_that_only_closes_its_channel_is_taken_for_one_that_dies(site, monkeypatch):
    monkeypatch.setattr(module, "GRACE", 0.1)

    async def main():
        dying, living = await site.child(), await site.child()
        clients = [*(await site.held(dying, 1)), *(await site.held(living, 1))]
        heir = await site.child()
        site.adopters(heir)
        dying.sock.close()
        living.sock.close()
        await until(lambda: not dying.carrier.channel.is_open)
        dying.die()
        await until(heir.orders)
        await until(lambda: not is_open(clients[1]))  # it lives on, and has it alone
        assert is_open(clients[0])
        assert site.counted(counters.NOT_CARRIED) == {"channel": 1}
        for client in clients:
            client.close()

    run(main())


def test_poison_is_tried_by_three_processes_and_ended_by_the_next(site):
    async def main():
        first = await site.child()
        clients = await site.held(first, 2)
        heirs = [await site.child() for _ in range(4)]
        site.adopters(heirs[0])
        first.die()
        for place, heir in enumerate(heirs[:3]):
            await until(heir.orders)
            for slot, order in enumerate(heir.orders()):
                heir.adopt(order, slot)
                if order.index == 1:  # one of them is innocent
                    heir.say(carry.Resumed(slot))
                    heir.say(carry.Settled(slot))
            await asyncio.sleep(0.01)
            site.adopters(heirs[place + 1])
            heir.die()
        last = heirs[3]
        await until(lambda: len(last.orders()) == 2)
        closes = sorted(order.close for order in last.orders())
        assert closes == [0, 1011]
        assert any("poison" in line for line in site.said)
        (poison,) = [order for order in last.orders() if order.close]
        last.say(carry.Failed(poison.ticket, "closed", True))
        await until(lambda: site.counted(counters.ENDED) == {"poison": 1})
        for client in clients:
            client.close()

    run(main())


def test_what_one_process_does_not_take_another_one_may(site):
    async def main():
        dead, sour, other = await site.child(), await site.child(), await site.child()
        clients = await site.held(dead, 1)
        site.adopters(sour)
        dead.die()
        await until(sour.orders)
        site.adopters(other)
        sour.say(carry.Failed(sour.orders()[0].ticket, "leaving", False))
        await until(other.orders)
        assert not sour.carrier.can_adopt
        for tries in range(1, 4):
            order = other.orders()[-1]
            other.say(carry.Failed(order.ticket, "memory", False, "no memory"))
            await asyncio.sleep(0.02)
            assert len(other.orders()) == min(tries + 1, 3)
        other.let_go()
        sour.let_go()
        await until(lambda: not is_open(clients[0]))
        assert site.counted(counters.ENDED) == {"refused": 1}
        assert site.counted(counters.FAILED) == {"leaving": 1, "memory": 3}
        clients[0].close()

    run(main())


def test_one_process_is_not_given_more_than_it_has_answered(site):
    async def main():
        dead, other = await site.child(), await site.child()
        number = MOST_UNDER_WAY + 20
        clients = await site.held(dead, number)
        site.adopters(other)
        dead.die()
        await until(lambda: len(other.orders()) == MOST_UNDER_WAY)
        await asyncio.sleep(0.02)
        assert len(other.orders()) == MOST_UNDER_WAY
        for slot in range(20):
            other.adopt(other.orders()[slot], slot)
        await until(lambda: len(other.orders()) == number)
        for client in clients:
            client.close()

    run(main())


def test_a_process_that_reads_nothing_holds_up_nobody(site):
    async def main():
        dead, frozen, other = await site.child(), await site.child(), await site.child()
        clients = await site.held(dead, 100)
        while frozen.carrier.channel.offer(carry.Memory(10**9), clients[0].fileno()):
            pass
        site.adopters(frozen, other)
        dead.die()
        await until(lambda: len(other.orders()) == 100)
        assert frozen.carrier.channel.is_open
        for client in clients:
            client.close()

    run(main())


def test_one_that_is_held_costs_little_memory(site):
    async def main():
        child = await site.child()
        await site.held(child, 10)
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        clients = [child.open(slot) for slot in range(10, 210)]
        await until(lambda: site.holder.held == 210)
        gc.collect()
        now, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        client_size = 200  # of the test's own socket objects, at least
        assert (now - before) / 200 < 1024 + client_size
        for client in clients:
            client.close()

    run(main())


def test_a_carrier_that_never_was_started_is_nobody(site):
    carrier = Carrier("x")
    site.holder.ended(carrier)
    carrier.channel.close()
