"""Whose turn it is: at most as many as there are permits, and nobody is forgotten."""

import asyncio
import random

import pytest

from chansup.worker.permits import Permits, Turn


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_only_as_many_expect_a_message_as_can_have_one() -> None:
    async def run() -> None:
        permits = Permits(2, lambda: None)
        busy = [Turn() for _ in range(4)]
        for turn in busy:
            turn.expects = True
        idle = Turn()
        tasks = [asyncio.create_task(permits.turn(turn)) for turn in (*busy, idle)]
        await settle()
        assert [task.done() for task in tasks] == [True, True, False, False, True]
        permits.ended(busy[0], expects=False)  # there was none after all
        await settle()
        assert [task.done() for task in tasks] == [True, True, True, False, True]
        permits.close()
        await settle()
        assert all(task.done() for task in tasks)

    asyncio.run(run())


@pytest.mark.parametrize("total", [1, 3])
def test_all_that_have_messages_get_the_same_share(total: int) -> None:
    """Listeners as they are, with answers that take a random while."""

    async def run() -> None:
        called_back = 0

        def exhausted() -> None:
            nonlocal called_back
            called_back += 1

        permits = Permits(total, exhausted)
        taken = [0] * 6
        most = 0
        in_hand = 0

        async def listen(number: int) -> None:
            nonlocal most, in_hand
            turn = Turn()
            while sum(taken) < 180:
                await permits.turn(turn)
                await asyncio.sleep(random.random() / 10_000)
                permits.ended(turn, expects=True)
                if permits.take(turn):
                    taken[number] += 1
                    in_hand += 1
                    most = max(most, in_hand)
                    asyncio.get_running_loop().call_later(random.random() / 10_000, give)

        def give() -> None:
            nonlocal in_hand
            in_hand -= 1
            permits.give()

        await asyncio.gather(*(listen(number) for number in range(6)))
        assert most == total
        assert called_back
        assert min(taken) > 15, taken

    asyncio.run(asyncio.wait_for(run(), 60))
