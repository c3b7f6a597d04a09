"""Messages that cannot be decoded where they arrive."""

import logging
import time

import pytest

from chansup.layer import LocalChannelLayer, Unreadable
from tests.layer.hubs import Hub
from tests.layer.test_take import depth, run, soon, take, until

pytest.importorskip("cryptography")
from cryptography.fernet import InvalidToken

MESSAGE = {"type": "x"}


def test_what_comes_back_late_can_still_be_decrypted(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its handler may be slow, and its expiry begins anew."""

    async def tried() -> None:
        layer = LocalChannelLayer(hub.path, expiry=60, symmetric_encryption_keys=["key"])
        await layer.send("work", MESSAGE)
        delivery = await take(layer, "work")
        delivery.give_back(failed=True)
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 3600)
        assert (await take(layer, "work")).message == MESSAGE
        await layer.close()

    run(tried())


@pytest.mark.parametrize("until_done", [True, False])
def test_what_one_process_cannot_read_another_one_can(hub: Hub, until_done: bool) -> None:
    async def tried() -> None:
        old = LocalChannelLayer(hub.path, symmetric_encryption_keys=["old"])
        new = LocalChannelLayer(hub.path, symmetric_encryption_keys=["new", "old"])
        await new.send("work", MESSAGE)
        with pytest.raises(Unreadable, match="channel work cannot be read: InvalidToken") as caught:
            await soon(old.take("work", until_done=until_done))
        assert new.deserialize(caught.value.body) == MESSAGE
        assert isinstance(caught.value.__cause__, InvalidToken)
        assert (await old.statistics())["messages_in_hand"] == until_done
        assert caught.value.receipt.attempt == 1
        caught.value.receipt.give_back(failed=True)
        delivery = await take(new, "work")
        assert (delivery.message, delivery.attempt) == (MESSAGE, 2)
        delivery.done()
        await old.close()
        await new.close()

    run(tried())


def test_what_nobody_can_read_is_kept_until_somebody_says_so(hub: Hub) -> None:
    async def tried() -> None:
        odd = LocalChannelLayer(hub.path, serializer_format="json")
        layer = LocalChannelLayer(hub.path)

        async def is_back() -> bool:
            return await depth(odd, "work") == 1

        await odd.send("work", MESSAGE)
        with pytest.raises(Unreadable):
            await soon(layer.take("work", until_done=True))
        await layer.close()  # as if the process has died
        await until(is_back)
        with pytest.raises(Unreadable) as caught:
            await soon(layer.take("work", until_done=True))
        assert caught.value.receipt.attempt == 2
        caught.value.receipt.done()

        async def is_gone() -> bool:
            found = await layer.statistics()
            return (found["messages_pending"], found["messages_in_hand"]) == (0, 0)

        await until(is_gone)
        await odd.close()
        await layer.close()

    run(tried())


def test_receive_raises_what_the_serializer_does_and_tells(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    async def tried() -> None:
        odd = LocalChannelLayer(hub.path, symmetric_encryption_keys=["other"])
        layer = LocalChannelLayer(hub.path, symmetric_encryption_keys=["key"])
        own = await layer.new_channel("mine")
        for name in ("work", own):
            await odd.send(name, MESSAGE)
            with pytest.raises(InvalidToken):
                await soon(layer.receive(name))
        await odd.close()
        await layer.close()

    with caplog.at_level(logging.ERROR, "chansup.layer"):
        run(tried())
    assert [record.getMessage().partition(", and")[0] for record in caplog.records] == [
        "chansup: a message of channel work cannot be read",
        "chansup: a message of channel mine… cannot be read",
    ]
