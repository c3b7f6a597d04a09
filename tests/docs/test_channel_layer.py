"""What docs/channel-layer.md and the README say of the channel layer, where it is not a command."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from chansup.layer import LocalChannelLayer
from chansup.layer.hub.drops import Drops
from chansup.project import Project, render
from chansup.protocol.hub_report import Drop
from tests.docs.pages import ROOT, Block, blocks, table
from tests.docs.scene import Scene
from tests.running import PATIENCE

PAGE = ROOT / "docs/channel-layer.md"


def block(page: Path, note: str) -> Block:
    (found,) = (block for block in blocks(page) if note in block.notes)
    return found


@pytest.mark.parametrize(
    ("page", "note"),
    [
        (PAGE, "part, written by chansup init"),
        (ROOT / "README.md", "part, written by chansup init for Channels"),
    ],
)
def test_init_writes_it(page: Path, note: str) -> None:
    project = Project(
        directory=Path("/srv/mysite"),
        asgi="mysite.asgi:application",
        is_django=True,
        channels=["thumbnails"],
        channel_layer="chansup",
    )
    assert block(page, note).text in render(project)


def test_the_reasons_of_drops() -> None:
    reasons = {value for name, value in vars(Drop).items() if name.isupper()}
    assert {row[0].strip("`") for row in table(PAGE, "reason", "what happened")} == reasons


def test_the_warning_of_drops(caplog: pytest.LogCaptureFixture) -> None:
    Drops().add(Drop.FULL, "*", 3)
    assert block(PAGE, "warning of the hub").text.strip() == caplog.messages[0]


@pytest.mark.slow
@pytest.mark.thorough
def test_the_news_without_django(scene: Scene) -> None:
    pytest.importorskip("starlette")
    from websockets.asyncio.client import connect

    scene.write("news.py", block(PAGE, "file: news.py").text)
    scene.write(
        "chansup.toml",
        '[app]\nasgi = "news:app"\n[interface]\nbind = "127.0.0.1:8000"\nprocesses = 2\n'
        '[supervisor]\nruntime_directory = "run"\n',
    )
    scene.start()

    async def read() -> None:
        layer = LocalChannelLayer(str(scene.directory / "run/hub.sock"))
        url = f"ws://127.0.0.1:{scene.port}/news"
        async with connect(url) as one, connect(url) as other:
            await layer.group_send("news", {"type": "news", "text": "it works"})
            for client in (one, other):
                text = await asyncio.wait_for(client.recv(), PATIENCE)
                assert json.loads(text) == {"type": "news", "text": "it works"}
        await layer.close()

    asyncio.run(read())
    assert re.search(r"hub\.0\[\d+\]: ready", scene.output())
