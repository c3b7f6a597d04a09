"""channels_redis' own tests of its layers, with the class replaced."""

import asyncio
import inspect
import types
from collections.abc import Callable
from typing import Any

import pytest

from chansup.layer import LocalChannelLayer
from tests.layer import sdists
from tests.layer.hubs import Hub

pytest.importorskip("channels_redis")
pytestmark = pytest.mark.slow

CORE = [
    "test_send_receive",
    "test_double_receive",
    "test_send_capacity",
    "test_send_specific_capacity",
    "test_process_local_send_receive",
    "test_multi_send_receive",
    "test_reject_bad_channel",
    "test_reject_bad_client_prefix",
    "test_groups_basic",
    "test_groups_channel_full",
    "test_groups_multiple_hosts",
    "test_groups_same_prefix",
    "test_groups_multiple_hosts_performance",
    "test_group_send_capacity",
    "test_group_send_capacity_multiple_channels",
    "test_repeated_group_send_with_async_to_sync",
    "test_receive_cancel",
    "test_random_reset__channel_name",
    "test_random_reset__client_prefix",
    "test_message_expiry__earliest_message_expires",
    "test_message_expiry__all_messages_under_expiration_time",
    "test_message_expiry__group_send",
]

PUBSUB = [
    "test_layer_close",
    "test_send_receive",
    "test_send_receive_sync",
    "test_multi_send_receive",
    "test_multi_send_receive_sync",
    "test_groups_basic",
    "test_groups_same_prefix",
    "test_random_reset__channel_name",
    "test_serialize",
    "test_deserialize",
    "test_proxied_methods_coroutine_check",
    "test_receive_hang",
    "test_discard_before_add",
]

# What is left out, and why.
NOT_CORE = {
    "test_default_group_key_format": "names of keys in Redis",
    "test_custom_group_key_format": "names of keys in Redis",
    "test_receive_buffer_respects_capacity": "a buffer inside of channels_redis",
    "test_message_expiry__group_send__one_channel_expires_message": (
        "wants a message a second after it has expired; it is marked as failing there, too"
    ),
}
NOT_PUBSUB = {
    "test_receive_on_non_owned_general_channel": "sends a str: a message is a dict",
    "test_loop_instance_channel_layer_reference": "objects inside of channels_redis",
    "test_multi_event_loop_garbage_collection": "objects inside of channels_redis",
    "test_auto_reconnect": "closes connections inside of channels_redis; see test_failures.py",
}


@pytest.fixture(scope="session")
def published(request: pytest.FixtureRequest, shared_hub: Hub) -> Callable[[str], types.ModuleType]:
    class Layer(LocalChannelLayer):
        def __init__(self, hosts: object = None, **options: Any) -> None:
            super().__init__(shared_hub.path, **options)

        @property
        def client_prefix(self) -> str:
            return self._client.process

        async def close_pools(self) -> None:
            await self.close()

    cache = request.config.cache
    assert cache is not None
    directory = cache.mkdir("sdists")

    def load(name: str) -> types.ModuleType:
        text = sdists.source(directory, "channels_redis", f"tests/{name}.py")
        module = sdists.module(name, text)
        for replaced in ("RedisChannelLayer", "RedisPubSubChannelLayer"):
            setattr(module, replaced, Layer)
        return module

    return load


def run(test: Callable[..., Any], make: Callable[[], LocalChannelLayer], caplog: Any) -> None:
    marks = {mark.name: mark for mark in getattr(test, "pytestmark", [])}
    names = list(inspect.signature(test).parameters)
    cases: list[dict[str, Any]] = [{}]
    mark = marks.get("parametrize")
    if mark is not None and mark.args[0] != "channel_layer":
        arguments = mark.args[0].split(",")
        cases = [dict(zip(arguments, values, strict=True)) for values in mark.args[1]]
    for case in cases:
        case["caplog"] = caplog
        given = {name: case[name] if name in case else make() for name in names}
        if not inspect.iscoroutinefunction(test):
            test(**given)
            continue

        async def tried(given: dict[str, Any] = given) -> None:
            await test(**given)
            for layer in given.values():
                if isinstance(layer, LocalChannelLayer):
                    await layer.flush()
                    await layer.close()

        asyncio.run(tried())


@pytest.mark.parametrize("name", CORE)
def test_of_channels_redis_core(
    name: str, published: Any, caplog: pytest.LogCaptureFixture
) -> None:
    module = published("test_core")
    run(
        getattr(module, name),
        lambda: module.RedisChannelLayer(capacity=3, channel_capacity={"tiny": 1}),
        caplog,
    )


@pytest.mark.parametrize("name", PUBSUB)
def test_of_channels_redis_pubsub(
    name: str, published: Any, caplog: pytest.LogCaptureFixture
) -> None:
    module = published("test_pubsub")
    run(getattr(module, name), module.RedisPubSubChannelLayer, caplog)


@pytest.mark.parametrize(
    ("file", "taken", "left_out"),
    [("test_core", CORE, NOT_CORE), ("test_pubsub", PUBSUB, NOT_PUBSUB)],
)
def test_every_published_test_is_taken_or_left_out_for_a_reason(
    file: str, taken: list[str], left_out: dict[str, str], published: Any
) -> None:
    names = {name for name in vars(published(file)) if name.startswith("test_")}
    assert names == {*taken, *left_out}
    assert not {*taken} & {*left_out}
