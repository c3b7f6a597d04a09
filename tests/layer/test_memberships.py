"""What a process remembers of groups."""

import asyncio

import pytest

from chansup.layer import LocalChannelLayer, memberships
from tests.layer.hubs import Hub
from tests.layer.test_take import run


def test_consumers_that_never_leave_a_group_are_not_remembered_for_ever(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memberships, "_FEW", 20)

    async def tried() -> None:
        layer = LocalChannelLayer(hub.path, group_expiry=0.2)
        for _ in range(10):
            for _ in range(30):
                await layer.group_add("all", await layer.new_channel())
            await asyncio.sleep(0.25)
        known = layer._client._memberships
        assert len(known) < 120
        await layer.close()
        lasting = LocalChannelLayer(hub.path, group_expiry=600)
        for _ in range(100):
            await lasting.group_add("all", await lasting.new_channel())
        assert len(lasting._client._memberships) == 100
        await lasting.close()

    run(tried())
