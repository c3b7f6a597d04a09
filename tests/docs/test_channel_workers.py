"""What docs/channel-workers.md shows and has no command for."""

import asyncio
import json

import pytest

from chansup.layer import LocalChannelLayer
from tests.docs.pages import ROOT, blocks
from tests.docs.scene import Scene
from tests.running import PATIENCE

PAGE = ROOT / "docs/channel-workers.md"
SITE = """
[app]
asgi = "mysite.asgi:application"

[interface]
bind = "127.0.0.1:8000"

[channel_layer]

[supervisor]
runtime_directory = "run"
"""


@pytest.mark.slow
@pytest.mark.thorough
def test_dead_letters_are_sent_again(scene: Scene) -> None:
    (resend,) = (block for block in blocks(PAGE) if "file: resend.py" in block.notes)
    scene.give("a Django project with Channels")
    scene.write("chansup.toml", SITE)
    scene.write("resend.py", resend.text)
    messages = [{"type": "make", "photo": number} for number in range(3)]
    letters = [{"channel": "thumbnails", "attempts": 3, "message": one} for one in messages]
    path = scene.directory / "dead-letters.jsonl"
    path.write_text("".join(f"{json.dumps(letter)}\n" for letter in letters))
    scene.start()
    scene.run("python resend.py", "\u2026\n")
    assert scene.exit_code == 0
    assert not path.exists()

    async def take() -> list[dict[str, object]]:
        layer = LocalChannelLayer(str(scene.directory / "run/hub.sock"))
        found = [await asyncio.wait_for(layer.receive("thumbnails"), PATIENCE) for _ in messages]
        await layer.close()
        return found

    assert asyncio.run(take()) == messages
