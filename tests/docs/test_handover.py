"""What docs/handover.md says of apps and numbers holds."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from chansup.config.schema import Workers
from chansup.config.structure import fields
from chansup.handover import parting, words
from chansup.project import Project, render
from chansup.relay import credits, scopes
from chansup.relay.interface import attachment, upload
from tests.docs.pages import ROOT, Block, blocks, prose, table
from tests.docs.scene import Scene

PAGE = ROOT / "docs/handover.md"

# What a Django project does for its consumers.
AROUND_A_CONSUMER = """
from django.conf import settings

settings.configure()

{consumer}

app = Memory.as_asgi()
"""


def block(note: str) -> Block:
    (found,) = (block for block in blocks(PAGE) if note in block.notes)
    return found


def consumer(text: str) -> str:
    return AROUND_A_CONSUMER.format(consumer=text)


def test_init_writes_what_the_readme_says(tmp_path: Path) -> None:
    (written,) = (
        block
        for block in blocks(ROOT / "README.md")
        if "part, written by chansup init" in block.notes
    )
    project = Project(directory=tmp_path, asgi="mysite.asgi:application", has_websockets=True)
    assert written.text in render(project)


@pytest.mark.slow
def test_the_consumer_does_the_same_as_the_app(scene: Scene) -> None:
    pytest.importorskip("channels")
    for name in ("chansup.toml", "talk.py"):
        scene.write(name, block(f"file: {name}").text)
    scene.write("memory.py", consumer(block("consumer").text))
    scene.start()
    command, _, expected = block("run").text.removeprefix("$ ").partition("\n")
    scene.run(command, expected)
    assert scene.exit_code == 0


def synchronous(text: str) -> str:
    """Return the same consumer as a synchronous one: called, not awaited."""
    return (
        text.replace("AsyncWebsocketConsumer", "WebsocketConsumer")
        .replace("async def", "def")
        .replace("await ", "")
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [str, synchronous], ids=["asynchronous", "synchronous"])
@pytest.mark.parametrize("extension", [None, {"count": 2, "reason": "crash", "checkpoint": "ab"}])
def test_the_consumer_runs_in_both_modes(kind: type, extension: dict[str, Any] | None) -> None:
    pytest.importorskip("channels")
    from django.conf import settings

    if not settings.configured:
        settings.configure()
    namespace: dict[str, Any] = {}
    exec(kind(block("consumer").text), namespace)
    app = namespace["Memory"].as_asgi()
    sent = asyncio.run(conversation(app, extension, ["c"]))
    if extension is None:
        assert sent == [("websocket.accept",), ("websocket.send", "hello"), ("websocket.send", "c")]
    else:
        assert sent == [
            ("websocket.accept",), ("websocket.send", "abc"), ("chansup.handover.checkpoint", "abc"),
        ]  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("extension", [None, {"count": 0, "reason": None, "checkpoint": None}])
def test_a_consumer_says_whether_it_may_be_moved(extension: dict[str, Any] | None) -> None:
    pytest.importorskip("channels")
    from django.conf import settings

    if not settings.configured:
        settings.configure()
    namespace: dict[str, Any] = {}
    exec(block("game").text, namespace)
    app = namespace["Game"].as_asgi()
    sent = asyncio.run(conversation(app, extension, ['{"move": "e4"}', '{"move": "resign"}']))
    header = ("websocket.accept", [(b"chansup-handover", b"close")])
    event = ("chansup.handover.policy", "transparent")
    assert sent == ([("websocket.accept",)] if extension is None else [header, event])


async def conversation(
    app: Any, extension: dict[str, Any] | None, said: list[str]
) -> list[tuple[Any, ...]]:
    sent: list[tuple[Any, ...]] = []
    events = [
        {"type": "websocket.connect"},
        *({"type": "websocket.receive", "text": t} for t in said),
    ]
    done = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if events:
            return events.pop(0)
        if not any(value for _, *value in sent[1:]):  # this app answers nothing
            asyncio.get_running_loop().call_later(0.05, done.set)
        await done.wait()
        return {"type": "websocket.disconnect", "code": 1012}

    async def send(message: dict[str, Any]) -> None:
        names = ("text", "checkpoint", "handover", "headers")
        value = next((message[name] for name in names if message.get(name)), None)
        sent.append((message["type"], value) if value else (message["type"],))
        if value and not events:
            asyncio.get_running_loop().call_later(0.05, done.set)

    extensions = {} if extension is None else {"chansup.handover": extension}
    scope = {"type": "websocket", "path": "/", "headers": [], "extensions": extensions}
    await app(scope, receive, send)
    return sent


def test_the_limits() -> None:
    said = {row[0]: row[1] for row in table(PAGE, "what", "limit")}
    text = " ".join(prose(PAGE).split())
    assert said["a message from the app to the client"].startswith(
        f"{attachment.MAX_MESSAGE // 2**20} MiB"
    )
    assert said["a checkpoint"] == f"{words.MAX_CHECKPOINT // 1024} KiB"
    assert said["the scope of one request"].startswith(f"{scopes.MAX_SCOPE // 1024} KiB")
    assert any(value.startswith(f"{credits.WINDOW // 1024} KiB") for value in said.values())
    assert f"small enough to be kept ({upload._RETAINED // 1024} KiB)" in text
    assert f"within {parting._PATIENCE:g} s of the goodbye" in text
    for key in (
        "handover_rate",
        "websocket_timeout",
        "queue_timeout",
        "worker_timeout",
        "queue_limit",
    ):
        assert f"`{key}` ({fields(Workers)[key].default:g}" in text, key


def test_the_extensions() -> None:
    text = prose(PAGE)
    for name in {name for names in scopes.EXTENSIONS.values() for name in names}:
        assert f"`{name}`" in text, name
