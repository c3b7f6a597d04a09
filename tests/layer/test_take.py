"""Messages that are kept until they were dealt with."""

import asyncio
import contextlib
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from chansup.layer import (
    ChannelFull,
    Delivery,
    HubUnavailable,
    LocalChannelLayer,
    MessageTooLarge,
    Unreadable,
)
from chansup.layer.hub.store import CLAIMING
from tests.layer import hubs
from tests.layer.hubs import Hub, replaced

PATIENCE = 30


def run(coroutine: Any) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 60))


async def soon(awaitable: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(awaitable, PATIENCE)


async def until(condition: Callable[[], Awaitable[bool]], patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def send(layer: LocalChannelLayer, channel: str, *numbers: int) -> None:
    for number in numbers:
        await layer.send(channel, {"number": number})


async def take(layer: LocalChannelLayer, channel: str) -> Delivery:
    found: Delivery = await soon(layer.take(channel, until_done=True))
    return found


def summary(delivery: Delivery) -> tuple[int, int]:
    return delivery.message["number"], delivery.attempt


async def depth(layer: LocalChannelLayer, channel: str) -> int:
    return (await layer.observe([channel]))[channel].messages


@pytest.fixture(params=[False, True], ids=["at-once", "until-done"])
def until_done(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_what_a_delivery_tells(hub: Hub, until_done: bool) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(hub.path)
        began = time.monotonic()
        await send(layer, "work", 1, 2)
        await asyncio.sleep(0.1)
        first = await layer.take("work", until_done=until_done)
        took = time.monotonic() - began
        assert 0.1 <= first.waited <= took
        assert first.message == {"number": 1}
        assert first.attempt == 1
        assert "attempt=1" in repr(first)
        first.done()
        waiting = asyncio.ensure_future(layer.take("later", until_done=until_done))
        await asyncio.sleep(0.05)
        second = await layer.take("work", until_done=until_done)
        assert second.waited >= 0.15
        await send(layer, "later", 3)
        assert (await soon(waiting)).waited < second.waited
        await layer.close()

    run(tried())


def test_what_is_given_back_comes_first_and_counts_only_if_it_failed(
    hub: Hub, until_done: bool
) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(hub.path)
        await send(layer, "work", 1, 2, 3, 4)

        async def taken() -> Delivery:
            found: Delivery = await soon(layer.take("work", until_done=until_done))
            return found

        some = [await taken() for _ in range(3)]
        some[1].give_back()
        some[2].give_back(failed=True)
        some[0].give_back(failed=True)  # the oldest is the first, whoever gave it back when
        assert [summary(await taken()) for _ in range(4)] == [(1, 2), (2, 1), (3, 2), (4, 1)]
        await send(layer, "work", 5)
        for attempt in range(1, 5):
            delivery = await taken()
            assert summary(delivery) == (5, attempt)
            delivery.give_back(failed=True)
        found = await layer.statistics()
        assert found["messages_redelivered"] == 5
        await layer.close()

    run(tried())


def test_whoever_receives_it_keeps_the_attempts(hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(hub.path)
        await send(layer, "work", 1)
        (await take(layer, "work")).give_back(failed=True)
        receiving = asyncio.ensure_future(layer.receive("work"))
        await asyncio.sleep(0)
        (demand,) = layer._client.link().demands.waiting.values()
        while not demand.future.done():
            await asyncio.sleep(0)
        receiving.cancel()  # it was given the message, and does not know it yet
        with contextlib.suppress(asyncio.CancelledError):
            await receiving
        assert (await take(layer, "work")).attempt == 2
        await layer.close()

    run(tried())


def test_only_the_first_word_counts(hub: Hub, until_done: bool) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(hub.path)
        await send(layer, "work", 1, 2)
        first = await layer.take("work", until_done=until_done)
        second = await layer.take("work", until_done=until_done)
        first.done()
        first.done()
        first.give_back(failed=True)
        second.give_back()
        second.give_back(failed=True)
        second.done()
        assert summary(await soon(layer.take("work", until_done=until_done))) == (2, 1)
        assert await depth(layer, "work") == 0
        await layer.close()

    run(tried())


def test_what_is_in_hand_is_memory_but_no_depth_and_takes_no_room(hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(hub.path, capacity=2)
        before = (await layer.statistics())["memory"]
        await send(layer, "work", 1, 2)
        held = [await take(layer, "work") for _ in range(2)]
        await send(layer, "work", 3, 4)
        assert await depth(layer, "work") == 2
        found = await layer.statistics()
        assert found["messages_pending"] == 2
        in_hand = found["memory"]
        for one in held:
            one.give_back()
        assert await depth(layer, "work") == 4  # more than it may hold: senders have to wait
        assert (await layer.statistics())["memory"] == in_hand
        for expected in (1, 2):
            with pytest.raises(ChannelFull):
                await send(layer, "work", 5)
            delivery = await take(layer, "work")
            assert delivery.message["number"] == expected
            delivery.done()
        for _ in range(2):
            (await take(layer, "work")).done()
        await until(lambda: memory_is(layer, before))
        await layer.close()

    async def memory_is(layer: LocalChannelLayer, before: int) -> bool:
        return bool((await layer.statistics())["memory"] == before)

    run(tried())


def test_expiry_begins_anew_when_it_was_held(hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(hub.path, expiry=0.5)
        await send(layer, "held", 1)
        await send(layer, "taken", 1)
        began = time.monotonic()
        held = await take(layer, "held")
        taken = await layer.take("taken")
        await asyncio.sleep(0.6)
        held.give_back(failed=True)
        taken.give_back()
        if time.monotonic() - began < 1.0:  # else this machine is too busy
            again = await take(layer, "held")
            assert summary(again) == (1, 2)
            assert again.waited >= 0.6
        found = await layer.statistics()
        assert found["dropped"]["expired"]["*"] >= 1  # nobody held it: it is too old now
        assert await depth(layer, "taken") == 0
        await layer.close()

    run(tried())


def test_messages_to_a_group_are_counted_for_each_channel(hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(hub.path)
        for name in ("red", "blue"):
            await layer.group_add("both", name)
        await layer.group_send("both", {"number": 1})
        (await take(layer, "red")).give_back(failed=True)
        assert summary(await take(layer, "red")) == (1, 2)
        assert summary(await take(layer, "blue")) == (1, 1)
        await layer.close()

    run(tried())


def test_taking_from_a_channel_of_one_process_is_refused(shared_hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(shared_hub.path)
        with pytest.raises(TypeError, match="ordinary channels"):
            await layer.take(await layer.new_channel())
        with pytest.raises(TypeError, match="not valid"):
            await layer.take("a b")
        await layer.close()

    run(tried())


def test_a_message_that_cannot_be_read_is_not_held_for_ever(hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(hub.path)
        other = LocalChannelLayer(hub.path, serializer_format="json")
        await other.send("work", {"number": 1})
        before = (await layer.statistics())["memory"]
        with pytest.raises(Unreadable) as caught:
            await layer.take("work", until_done=True)
        assert isinstance(caught.value.__cause__, msgspec.DecodeError)
        caught.value.receipt.done()
        await until(lambda: less_memory(layer, before))
        await layer.close()
        await other.close()

    async def less_memory(layer: LocalChannelLayer, before: int) -> bool:
        return bool((await layer.statistics())["memory"] < before)

    run(tried())


def test_takes_that_are_cancelled_at_random_lose_nothing(hub: Hub, until_done: bool) -> None:
    async def tried() -> None:
        sender = LocalChannelLayer(hub.path, capacity=10_000)
        receiver = LocalChannelLayer(hub.path, capacity=10_000)
        total = 1000
        await asyncio.gather(*(send(sender, "work", number) for number in range(total)))
        chance = random.Random(5)
        got: list[int] = []
        cancelled = 0
        deadline = time.monotonic() + PATIENCE
        while len(got) < total:
            assert time.monotonic() < deadline
            task = asyncio.ensure_future(receiver.take("work", until_done=until_done))
            for _ in range(chance.randrange(5)):
                await asyncio.sleep(0)
            if chance.random() < 0.2:
                await asyncio.sleep(chance.random() * 0.001)
            if chance.random() < 0.5:
                task.cancel()
            try:
                delivery = await soon(task)
            except asyncio.CancelledError:
                cancelled += 1
                continue
            assert delivery.attempt == 1  # to cancel is not to fail
            if chance.random() < 0.2:
                delivery.give_back()
            else:
                got.append(delivery.message["number"])
                delivery.done()
        assert got == list(range(total))
        assert cancelled > 100
        assert await depth(sender, "work") == 0
        await sender.close()
        await receiver.close()

    run(tried())


# The end of whoever has it in hand

HOLDER = """
import asyncio, sys
from chansup.layer import LocalChannelLayer

async def main():
    layer = LocalChannelLayer(sys.argv[1])
    held = [await layer.take("work", until_done=True) for _ in range(int(sys.argv[2]))]
    demand = asyncio.ensure_future(layer.take("work", until_done=True))
    await asyncio.sleep(0.05)
    print("held", flush=True)
    if len(sys.argv) > 3:  # what comes now is delivered to a process that does not look
        import time
        time.sleep(600)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@contextlib.contextmanager
def holder(hub: Hub, count: int, *more: str) -> Any:
    """A process that has messages in hand."""
    command = [sys.executable, "-c", HOLDER, hub.path, str(count), *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_process_that_is_killed_fails_with_what_it_had_in_hand(hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(hub.path)
        await send(layer, "work", 1, 2)
        with holder(hub, 2) as process:
            assert await depth(layer, "work") == 0
            waiting = [asyncio.ensure_future(take(layer, "work")) for _ in range(2)]
            await layer.statistics()  # the hub knows by now that two wait
            process.kill()
            assert [summary(one) for one in await asyncio.gather(*waiting)] == [(1, 2), (2, 2)]
        await layer.close()

    run(tried())


def test_what_a_process_had_not_looked_at_has_not_failed(hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(hub.path)
        await send(layer, "work", 1)
        with holder(hub, 1, "blind") as process:
            await asyncio.sleep(0.1)
            await send(layer, "work", 2)  # it may be delivered to a loop that is blocked
            process.kill()
            process.wait()
            found = [summary(await take(layer, "work")) for _ in range(2)]
            assert sorted(found) == [(1, 2), (2, 1)]
        await layer.close()

    run(tried())


@pytest.mark.parametrize("how", ["closed layer", "asyncio.run"])
def test_a_loop_that_ends_fails_with_what_it_had_in_hand(hub: Hub, how: str) -> None:
    other = LocalChannelLayer(hub.path)
    asyncio.run(send(other, "work", 1))
    layer = LocalChannelLayer(hub.path)
    kept: list[Delivery] = []

    async def hold() -> None:
        kept.append(await take(layer, "work"))
        if how == "closed layer":
            await layer.close()

    asyncio.run(hold())
    assert summary(asyncio.run(take(other, "work"))) == (1, 2)
    kept[0].done()  # it is somebody else's
    kept[0].give_back()
    assert asyncio.run(depth(other, "work")) <= 1
    gc.collect()


def test_another_thread_may_say_what_became_of_it(hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(hub.path)
        await send(layer, "work", 1, 2, 3)
        some = [await take(layer, "work") for _ in range(3)]
        await asyncio.to_thread(some[0].done)
        await asyncio.to_thread(some[1].give_back, failed=True)
        threads = [threading.Thread(target=some[2].give_back) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [summary(await take(layer, "work")) for _ in range(2)] == [(2, 2), (3, 1)]
        assert await depth(layer, "work") == 0
        await layer.close()

    run(tried())


def test_between_two_runs_of_a_loop_it_is_told_later(hub: Hub) -> None:
    layer = LocalChannelLayer(hub.path)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(send(layer, "work", 1, 2))
    first, second = (loop.run_until_complete(take(layer, "work")) for _ in range(2))
    first.done()
    second.give_back(failed=True)
    assert summary(loop.run_until_complete(take(layer, "work"))) == (2, 2)
    loop.run_until_complete(layer.close())
    loop.close()


def test_in_a_child_that_was_forked_nothing_happens(hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(hub.path)
        await send(layer, "work", 1, 2)
        first, second = await take(layer, "work"), await take(layer, "work")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                first.done()
                second.give_back(failed=True)
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        first.give_back(failed=True)
        second.give_back()
        assert [summary(await take(layer, "work")) for _ in range(2)] == [(1, 2), (2, 1)]
        await layer.close()

    run(tried())


# Another hub


def test_a_hub_that_takes_over_knows_what_is_in_hand(hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(hub.path)
        other = LocalChannelLayer(hub.path)
        await send(layer, "work", 1, 2, 3, 4, 5)
        (await take(layer, "work")).give_back(failed=True)
        held = [await take(layer, "work") for _ in range(4)]
        assert summary(held[0]) == (1, 2)
        await replaced(hub, during=held[0].done)
        assert await depth(other, "work") == 1
        held[1].done()
        held[2].give_back()
        held[3].give_back(failed=True)
        await layer.statistics()  # the hub knows of it by now
        found = [summary(await take(other, "work")) for _ in range(3)]
        assert found == [(3, 1), (4, 2), (5, 1)]
        await replaced(hub)
        statistics = await other.statistics()
        assert statistics["messages_pending"] == 0
        assert statistics["messages_redelivered"] == 2
        await other.close()  # with three in hand
        found = [summary(await take(layer, "work")) for _ in range(3)]
        assert found == [(3, 2), (4, 3), (5, 2)]
        await layer.close()

    run(tried())


def test_who_only_holds_tells_the_hub_that_takes_over(hub: Hub) -> None:
    """Else it would be somebody else's after half a minute."""

    async def tried() -> None:
        layer = LocalChannelLayer(hub.path)
        await send(layer, "work", 1)
        held = await take(layer, "work")
        await replaced(hub)
        other = LocalChannelLayer(hub.path)

        async def has_come_back() -> bool:
            return bool((await other.statistics())["messages_in_hand"] == 1)

        await until(has_come_back)
        assert held.attempt == 1
        await layer.close()
        assert summary(await take(other, "work")) == (1, 2)  # at once: it was claimed
        await other.close()

    run(tried())


def test_a_client_that_is_frozen_during_a_takeover_goes_on_holding(hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(hub.path)
        await send(layer, "work", 1)
        with holder(hub, 1) as process:
            process.send_signal(signal.SIGSTOP)
            await send(layer, "work", 2)  # delivered to it, and not read
            await replaced(hub)
            process.send_signal(signal.SIGCONT)

            async def has_come_back() -> bool:
                return bool((await layer.statistics())["messages_in_hand"])

            await until(has_come_back)
            waiting = [asyncio.ensure_future(take(layer, "work")) for _ in range(2)]
            await layer.statistics()
            process.kill()
            found = sorted(summary(one) for one in await asyncio.gather(*waiting))
            assert found[0] == (1, 2)
            assert found[1][0] == 2  # whether it had looked at it by then is open
        await layer.close()

    run(tried())


def test_a_hub_that_was_killed_gets_what_is_given_back(hub: Hub, until_done: bool) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(hub.path)
        other = LocalChannelLayer(hub.path)
        await send(layer, "work", 1, 2, 3)
        some = [await layer.take("work", until_done=until_done) for _ in range(3)]
        hub.kill()
        some[0].give_back(failed=True)  # there is no hub now
        await asyncio.to_thread(hub.start)
        await send(layer, "work", 4)
        some[1].give_back()
        some[2].done()
        await layer.statistics()
        found = [summary(await take(other, "work")) for _ in range(3)]
        assert found == [(1, 2), (2, 1), (4, 1)]
        assert await depth(other, "work") == 0
        await layer.close()
        await other.close()

    run(tried())


@pytest.mark.slow
def test_hubs_and_holders_that_die_at_random_under_load(hub: Hub) -> None:
    """What was accepted by a hub that lives is dealt with; with hubs that die, most of it."""

    async def tried() -> None:
        sender = LocalChannelLayer(hub.path, capacity=10_000, timeout=20)
        chance = random.Random(7)
        done: Counter[int] = Counter()
        attempts: Counter[int] = Counter()

        async def work(layer: LocalChannelLayer) -> None:
            while True:
                delivery = await layer.take("work", until_done=True)
                attempts[delivery.attempt] += 1
                if chance.random() < 0.1:
                    await asyncio.sleep(chance.random() * 0.01)
                if chance.random() < 0.1:
                    delivery.give_back(failed=chance.random() < 0.5)
                else:
                    done[delivery.message["number"]] += 1
                    delivery.done()

        async def worker(ended: asyncio.Event) -> None:
            """One that is closed now and then in the middle of its work."""
            while not ended.is_set():
                layer = LocalChannelLayer(hub.path, timeout=20)
                tasks = [asyncio.create_task(work(layer)) for _ in range(3)]
                await asyncio.wait([*tasks, asyncio.create_task(ended.wait())],
                                   timeout=chance.uniform(0.05, 0.2),
                                   return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
                for task in tasks:
                    assert not task.done() or isinstance(task.exception(), HubUnavailable)
                await layer.close()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

        ended = asyncio.Event()
        workers = [asyncio.create_task(worker(ended)) for _ in range(2)]
        accepted: set[int] = set()
        number = 0

        async def load(until: asyncio.Future[Any]) -> None:
            nonlocal number
            while not until.done():
                number += 1
                try:
                    await sender.send("work", {"number": number})
                except HubUnavailable:
                    continue
                accepted.add(number)
                await asyncio.sleep(0.0005)

        for _ in range(2):
            await load(asyncio.ensure_future(asyncio.sleep(0.2)))
            await load(asyncio.ensure_future(replaced(hub)))

        async def all_done() -> bool:
            return accepted <= set(done)

        # What a holder had that left in the middle of a takeover waits for it to return.
        await until(all_done, CLAIMING + 15)
        before = len(accepted)

        async def kill() -> None:
            await asyncio.sleep(chance.uniform(0.02, 0.1))
            hub.kill()
            await asyncio.to_thread(hub.start)

        for _ in range(3):
            await load(asyncio.ensure_future(kill()))
        last = number = number + 1
        await sender.send("work", {"number": number})

        async def last_done() -> bool:
            return last in done

        await until(last_done)
        assert len(done) > before
        assert attempts[2] > 0
        ended.set()
        for one in workers:
            await soon(one)
        await sender.close()

    run(tried())


def test_messages_in_hand_cannot_grow_beyond_the_memory() -> None:
    async def tried(path: str) -> None:
        layer = LocalChannelLayer(path, capacity=1000)
        held: list[Delivery] = []
        for _ in range(8):
            await layer.send("work", {"text": "x" * 100_000})
            held.append(await take(layer, "work"))
        with pytest.raises(ChannelFull, match=r"\[channel_layer\] memory .*raise memory"):
            await layer.send("work", {"text": "x" * 300_000})
        for one in held:
            one.done()
        await layer.send("work", {"text": "x" * 100_000})
        await layer.close()

    with hubs.running("--memory", "1M") as hub:
        run(tried(hub.path))


def test_messages_of_a_megabyte(hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(hub.path)
        message = {"text": "x" * 999_000}
        await layer.send("work", message)
        (await take(layer, "work")).give_back(failed=True)
        delivery = await soon(layer.take("work"))
        assert delivery.message == message
        delivery.give_back()
        assert (await take(layer, "work")).message == message
        with pytest.raises(MessageTooLarge):
            await layer.send("work", {"text": "x" * 1_100_000})
        await layer.close()

    run(tried())


def test_flush_forgets_what_is_in_hand(hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(hub.path)
        await send(layer, "work", 1, 2)
        first, second = await take(layer, "work"), await take(layer, "work")
        await layer.flush()
        first.give_back()
        second.done()
        await send(layer, "work", 3)
        assert summary(await take(layer, "work")) == (3, 1)
        await layer.close()

    run(tried())
