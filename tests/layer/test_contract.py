"""What the layer promises beside the model: names, types, capacity, expiry, statistics."""

import asyncio
import datetime
import enum
import re
import time
from typing import Any

import pytest

from chansup.layer import ChannelFull, HubError, LocalChannelLayer
from chansup.layer.errors import LayerConfigError
from chansup.layer.serializers import registry
from tests.layer import hubs
from tests.layer.hubs import Hub


def run(coroutine: Any) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 60))


async def sent(layer: LocalChannelLayer, message: Any) -> Any:
    await layer.send("types", message)
    return await layer.receive("types")


class Colour(enum.StrEnum):
    RED = "red"


class Safe(str):
    __slots__ = ()


def test_what_a_message_may_consist_of(shared_hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(shared_hub.path)
        await layer.flush()
        whole = {
            "bytes": b"\0\xff",
            "text": "Grüße 🦁",
            "whole": [2**63 - 1, -(2**63), True, None, 1.5],
            "nested": {"a": {"b": [[], {}]}},
        }
        assert await sent(layer, whole) == whole
        assert await sent(layer, {"a": (1, (2, "x"))}) == {"a": [1, [2, "x"]]}
        given = {Safe("key"): Safe("x"), "list": [Safe("y"), Colour.RED]}
        found = await sent(layer, given)
        assert found["key"] == "x"
        assert found["list"][0] == "y"
        unfit: list[tuple[Any, str]] = [
            ({1: "x"}, "key 1"),
            ({"when": datetime.datetime.now(datetime.UTC)}, r"message\['when'\]: datetime"),
            ({"a": [{"b": {1, 2}}]}, r"message\['a'\]\[0\]\['b'\]: set"),
            ({"a": 2**63}, "64 bits"),
            ({"a": ["x", {"b": "\ud800"}]}, r"message\['a'\]\[1\]\['b'\]: .*surrogate"),
            ({"a": {"\ud800": 1}}, r"message\['a'\]: a key: .*surrogate"),
        ]
        for wrong, where in unfit:
            with pytest.raises(TypeError, match=where):
                await layer.send("types", wrong)
            with pytest.raises(TypeError, match=where):
                await layer.group_send("types", wrong)
        circle: list[Any] = []
        circle.append(circle)
        with pytest.raises(TypeError, match="nested"):
            await layer.send("types", {"a": circle})
        others: list[Any] = ["text", None, [("type", "x")]]
        for wrong in others:
            with pytest.raises(TypeError, match="a message is a dict"):
                await layer.send("types", wrong)
        message = {"inner": [1]}
        await layer.send("types", message)
        message["inner"].append(2)
        assert await layer.receive("types") == {"inner": [1]}
        await layer.close()

    run(tried())


@pytest.mark.parametrize(
    "name", ["", "a b", "ü", "a!b!c", "!", "x" * 101, "a\n", "٣", None, 3, b"bytes", ["list"]]
)
def test_names_that_are_not_valid(name: Any) -> None:
    layer = LocalChannelLayer("/nowhere")
    for wrong in (
        layer.send(name, {}),
        layer.receive(name),
        layer.group_add("group", name),
        layer.group_add(name, "channel"),
        layer.group_discard(name, "channel"),
        layer.group_send(name, {}),
    ):
        with pytest.raises(TypeError, match=r"name .* is not valid"):
            run(wrong)


def test_names_of_100_characters_are_valid(shared_hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(shared_hub.path)
        name = "x" * 100
        await layer.group_add(name, name)
        await layer.group_send(name, {"a": 1})
        assert await layer.receive(name) == {"a": 1}
        await layer.flush()
        await layer.close()

    run(tried())


@pytest.mark.parametrize(
    "options",
    [
        {"expiry": 0},
        {"expiry": True},
        {"group_expiry": "1"},
        {"capacity": 0},
        {"capacity": 1.5},
        {"channel_capacity": {"a*": 0}},
        {"channel_capacity": {3: 4}},
        {"serializer_format": "yaml"},
        {"serializer": "nowhere.Serializer"},
        {"serializer": object()},
        {"symmetric_encryption_keys": "key"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(LayerConfigError, match=next(iter(options))):
        LocalChannelLayer("/nowhere", **options)


def test_capacity_by_pattern_and_what_is_told_of_drops(hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(
            hub.path,
            capacity=3,
            channel_capacity={re.compile(r"mail\.\d+$"): 1, "bulk*": 5, "bulky": 7},
        )
        for name, capacity in [("mail.7", 1), ("mail.x", 3), ("bulk", 5), ("bulky", 5), ("a", 3)]:
            for _ in range(capacity):
                await layer.send(name, {})
            some = "1 message:" if capacity == 1 else f"{capacity} messages: run more workers"
            with pytest.raises(ChannelFull, match=f'"{name}" is full, it may hold {some}'):
                await layer.send(name, {})
        name = await layer.new_channel("bulk")
        await layer.group_add("all", name)
        for _ in range(9):
            await layer.group_send("all", {})
        found = await layer.statistics()
        assert found["dropped"]["full"] == {r"mail\.\d+$": 1, "*": 2, "bulk*": 6}
        assert found["pending"]["bulk*"]["messages"] == 15
        assert found["oldest_pending"] >= 0
        await layer.close()

    run(tried())
    text = hub.log.read_text()
    assert 'pattern "bulk*"' in text
    assert text.count("bulk") == 1  # and not a line for each
    assert "specific" not in text


def test_messages_and_memberships_expire(shared_hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(shared_hub.path, expiry=0.15, group_expiry=0.4)
        await layer.flush()
        name = await layer.new_channel()
        await layer.group_add("short", name)
        await layer.send("old", {"number": 1})
        await layer.send(name, {"number": 1})
        receiving = asyncio.ensure_future(layer.receive(name))
        assert (await receiving)["number"] == 1
        await layer.group_send("short", {"number": 2})  # lies in this process
        await layer.group_send("short", {"number": 3})
        await asyncio.sleep(0.2)
        await layer.send("old", {"number": 2})
        await layer.group_send("short", {"number": 4})
        assert (await layer.receive("old"))["number"] == 2
        assert (await layer.receive(name))["number"] == 4
        await asyncio.sleep(0.25)
        await layer.group_send("short", {"number": 5})
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(layer.receive(name), 0.05)
        found = await layer.statistics()
        assert found["memberships"] == 0
        assert found["dropped"]["expired"]["*"] >= 3
        await layer.close()

    run(tried())


def test_each_message_of_an_ordinary_channel_has_one_reader(shared_hub: Hub) -> None:
    async def tried() -> None:
        layers = [LocalChannelLayer(shared_hub.path, capacity=1000) for _ in range(3)]
        await layers[0].flush()
        got: list[int] = []

        async def read(layer: LocalChannelLayer) -> None:
            while True:
                got.append((await layer.receive("shared"))["number"])

        readers = [asyncio.create_task(read(layer)) for layer in layers for _ in range(3)]
        await asyncio.gather(*(layers[0].send("shared", {"number": n}) for n in range(500)))
        deadline = time.monotonic() + 10
        while len(got) < 500 and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        assert sorted(got) == list(range(500))
        for reader in readers:
            reader.cancel()
        for layer in layers:
            await layer.close()

    run(tried())


@pytest.mark.thorough
def test_memory_is_bounded() -> None:
    async def tried(path: str) -> None:
        layer = LocalChannelLayer(path, capacity=10**6)
        before = (await layer.statistics())["memory"]
        sending = (layer.send("much", {"text": "x" * 100_000}) for _ in range(20))
        results = await asyncio.gather(*sending, return_exceptions=True)
        assert {type(result) for result in results} == {ChannelFull, type(None)}
        adding = (layer.group_add(f"group{number}", "member") for number in range(5000))
        results = await asyncio.gather(*adding, return_exceptions=True)
        assert {type(result) for result in results} == {HubError, type(None)}
        found = await layer.statistics()
        assert found["memory"] <= found["memory_limit"] == 2**20
        assert found["dropped"]["memory"]["*"] > 5
        await layer.flush()
        await asyncio.sleep(3)
        assert (await layer.statistics())["memory"] == before
        await layer.close()

    with hubs.running("--memory", "1M") as hub:
        run(tried(hub.path))


def test_a_process_that_reads_slowly_keeps_nobody_waiting(shared_hub: Hub) -> None:
    async def tried() -> None:
        import struct

        from chansup.layer.frames import Kind, pack

        fast = LocalChannelLayer(shared_hub.path, capacity=100)
        await fast.flush()
        _, writer = await asyncio.open_unix_connection(shared_hub.path)
        slow = LocalChannelLayer(shared_hub.path)
        name = await slow.new_channel()
        writer.write(pack(Kind.HELLO, slow._client.hello()))
        writer.write(pack(Kind.LISTEN, struct.pack("!I", 1) + name.encode()))
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        own = await fast.new_channel()
        await fast.group_add("both", name)
        await fast.group_add("both", own)
        for number in range(150):
            await fast.group_send("both", {"number": number, "text": "x" * 100_000})
            assert (await fast.receive(own))["number"] == number
        found = await fast.statistics()
        assert found["dropped"]["full"]["*"] >= 50
        assert found["memory"] < 30_000_000
        writer.close()
        await fast.flush()
        await fast.close()

    run(tried())


class Upside:
    def serialize(self, message: Any) -> bytes:
        return repr(message).encode()[::-1]

    def deserialize(self, message: bytes) -> Any:
        return eval(message[::-1])


class Registered(Upside):
    def __init__(
        self, symmetric_encryption_keys: Any, random_prefix_length: int, expiry: float
    ) -> None:
        assert (symmetric_encryption_keys, random_prefix_length, expiry) == (None, 0, 60)


@pytest.mark.parametrize(
    "options",
    [
        {"serializer": Upside()},
        {"serializer": f"{__name__}.Upside"},
        {"serializer_format": "upside"},
        {"serializer_format": "json"},
    ],
    ids=["object", "path", "registered", "json"],
)
def test_serializers_of_the_users(shared_hub: Hub, options: dict[str, Any]) -> None:
    registry.register_serializer("upside", Registered)

    async def tried() -> None:
        layer = LocalChannelLayer(shared_hub.path, **options)
        assert await sent(layer, {"type": "x", "y": [1]}) == {"type": "x", "y": [1]}
        await layer.close()

    run(tried())


def test_encryption(shared_hub: Hub) -> None:
    pytest.importorskip("cryptography")

    async def tried() -> None:
        old = LocalChannelLayer(shared_hub.path, symmetric_encryption_keys=["old"])
        new = LocalChannelLayer(shared_hub.path, symmetric_encryption_keys=["new", "old"])
        await old.send("secret", {"type": "x"})
        assert await new.receive("secret") == {"type": "x"}
        assert b"type" not in new.serialize({"type": "x"})
        await old.close()
        await new.close()

    run(tried())


def test_members_of_a_process_that_is_gone_go_with_it(shared_hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(shared_hub.path, capacity=2)
        await layer.flush()
        before = (await layer.statistics())["dropped"]
        gone = LocalChannelLayer(shared_hub.path)
        await gone.group_add("some", await gone.new_channel())
        await gone.close()
        await asyncio.sleep(0.05)
        for _ in range(5):
            await layer.group_send("some", {})
        found = await layer.statistics()
        assert found["dropped"].get("full") == before.get("full")
        assert found["dropped"]["gone"]["*"] - before.get("gone", {}).get("*", 0) == 3
        await layer.flush()
        await layer.close()

    run(tried())


@pytest.mark.thorough
def test_a_large_group_and_many_groups(shared_hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(shared_hub.path)
        await layer.flush()
        names = [await layer.new_channel() for _ in range(2000)]
        await asyncio.gather(*(layer.group_add("large", name) for name in names))
        receiving = [asyncio.ensure_future(layer.receive(name)) for name in names]
        await layer.group_send("large", {"a": 1})
        assert await asyncio.gather(*receiving) == [{"a": 1}] * 2000
        await asyncio.gather(*(layer.group_add(f"g{n}", names[0]) for n in range(5000)))
        assert (await layer.statistics())["groups"] == 5001
        await layer.flush()
        assert (await layer.statistics())["groups"] == 0
        await layer.close()

    run(tried())


def test_what_is_set_afterwards_goes_from_then_on(hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(hub.path)
        await layer.send("queue", {"n": 1})
        layer.capacity = 2
        await layer.send("queue", {"n": 2})
        with pytest.raises(ChannelFull, match="may hold 2 messages"):
            await layer.send("queue", {"n": 3})
        layer.channel_capacity = {"qu*": 3, re.compile(r"x\d"): 1}
        await layer.send("queue", {"n": 3})
        await layer.send("x1", {"n": 1})
        with pytest.raises(ChannelFull, match="may hold 1 message"):
            await layer.send("x1", {"n": 2})
        layer.expiry = 0.1
        assert (layer.expiry, layer.capacity, layer.group_expiry) == (0.1, 2, 86400)
        await layer.send("late", {"n": 1})
        layer.expiry = 60
        await asyncio.sleep(0.3)
        await layer.send("late", {"n": 2})
        assert (await layer.receive("late"))["n"] == 2
        layer.group_expiry = 0.3
        channel = await layer.new_channel()
        await layer.group_add("group", channel)
        await asyncio.sleep(0.5)
        await layer.group_send("group", {"n": 1})
        assert (await layer.statistics())["memberships"] == 0
        layer.timeout = 0.2
        hub.kill()
        with pytest.raises(HubError):
            await layer.send("queue", {"n": 4})
        layer.timeout = 20
        layer.capacity = 1
        hub.start()
        await layer.send("queue", {"n": 1})
        for _ in range(2):
            await layer.send("queue", {"n": 2})
        with pytest.raises(ChannelFull, match="may hold 3 messages"):
            await layer.send("queue", {"n": 2})
        await layer.send("other", {"n": 2})
        with pytest.raises(ChannelFull, match="may hold 1 message:"):
            await layer.send("other", {"n": 2})
        await layer.close()

    run(tried())


@pytest.mark.parametrize(
    ("name", "value"),
    [("expiry", 0), ("group_expiry", "1"), ("capacity", 0), ("timeout", -1), ("timeout", None),
     ("channel_capacity", {"a": 0}), ("channel_capacity", [("a", 1)])],
)  # fmt: skip
def test_what_makes_no_sense_cannot_be_set_afterwards(name: str, value: Any) -> None:
    layer = LocalChannelLayer("/nowhere")
    with pytest.raises(LayerConfigError, match=name):
        setattr(layer, name, value)


@pytest.mark.parametrize(
    "name", ["address", "serializer", "serializer_format", "symmetric_encryption_keys"]
)
def test_what_cannot_be_changed_says_so(name: str) -> None:
    layer = LocalChannelLayer("/nowhere")
    with pytest.raises(AttributeError, match=f"{name} of a channel layer cannot be changed"):
        setattr(layer, name, "x")
    with pytest.raises(AttributeError):
        layer.channel_capacity.append(1)  # type: ignore[attr-defined]


@pytest.mark.parametrize("capacity", [1, 2, 20])
def test_a_channel_that_was_just_read_empty_has_room(shared_hub: Hub, capacity: int) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(shared_hub.path, capacity=capacity)
        await layer.flush()
        channel = await layer.new_channel()
        await layer.send(channel, {"n": 0})
        assert (await layer.receive(channel))["n"] == 0  # and listens from now on
        for _ in range(20):
            for number in range(capacity):
                await layer.send(channel, {"n": number})
            for number in range(capacity):
                assert (await layer.receive(channel))["n"] == number
        await layer.close()

    run(tried())
