"""What an app keeps in the memory of one process, and other processes of its pool would miss."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from chansup.project import live_connections, reached, sources

Kind = Literal["connections", "socketio", "memory"]


class InProcess(msgspec.Struct, frozen=True):
    """One thing that is kept in one process."""

    kind: Kind
    what: str  # as people know it: "connections", "Socket.IO without a client_manager"
    place: str  # "chat/main.py:12", as seen from the project's directory


class Findings(msgspec.Struct, frozen=True):
    """What the files of an app say about several processes."""

    kept: list[InProcess] = []
    polls: bool = False  # Engine.IO's long polling: each client's requests need one process


def find(root: Path, application: str | None = None) -> Findings:
    """Return what the files below `root` keep in one process.

    With an `application` ("module:attribute"), only files that its module imports count.
    """
    paths = reached.files(root, application)
    is_connected = any(word in sources.text(path) for path in paths for word in _OTHER_LAYERS)
    kept = [
        InProcess("connections", f'"{one.name}", a collection of live connections', one.place(root))
        for one in live_connections.find(paths, root)
    ]
    polls = False
    for path in paths:
        for finding, is_polling in _servers(path, root):
            polls = polls or is_polling
            if finding is not None:
                kept.append(finding)
        if not is_connected:
            kept += _layers(path, root)
        kept += _frameworks(path, root)
    kept += _event_stream(paths, root)
    found = {one.what: one for one in reversed(kept)}  # the first of a kind tells enough
    return Findings(list(reversed(found.values())), polls)


# Libraries: what is called, from which package, and the argument that connects several processes
_SOCKET_IO = {"AsyncServer", "Server", "SocketManager", "SocketIO"}
_CONNECTS = {"client_manager", "message_queue"}  # arguments, of python-socketio, Flask-SocketIO
_OWN_MANAGERS = {"AsyncManager", "Manager", "BaseManager"}  # of one process alone
_POLLING_PACKAGES = ("socketio", "engineio", "fastapi_socketio", "flask_socketio")
_IN_MEMORY_LAYER = "channels.layers.InMemoryChannelLayer"
_OTHER_LAYERS = ("channels_redis", "channels_rabbitmq", "chansup.layer")  # of many processes
_FRAMEWORKS = {  # that say themselves that they need one process
    "nicegui": "NiceGUI",
    "chainlit": "Chainlit",
    "justpy": "JustPy",
    "bokeh_fastapi": "Bokeh",
    "panel": "Panel",
}
_MEMORY = {
    "MemoryChannelsBackend": ("litestar", "Litestar's MemoryChannelsBackend"),
}


def _servers(path: Path, root: Path) -> Iterator[tuple[InProcess | None, bool]]:
    """Yield what calls of libraries in a file make; and whether their clients poll."""
    packages = reached.packages(path)
    module = sources.tree(path)
    for node in ast.walk(module):
        if not isinstance(node, ast.Call):
            continue
        name = sources.called(node)
        place = _place(path, node, root)
        if name in _SOCKET_IO and packages & set(_POLLING_PACKAGES):
            yield _socket_io(node, path, root, place, packages), _polls(node)
        elif name == "Broadcast" and "broadcaster" in packages and _is_memory_url(node, path, root):
            yield InProcess("memory", 'a Broadcast with "memory://"', place), False
        elif name in _MEMORY and _MEMORY[name][0] in packages:
            yield InProcess("memory", _MEMORY[name][1], place), False
        elif (
            name == "PubSubEndpoint"
            and "fastapi_websocket_pubsub" in packages
            and not node.args
            and not _has(node, {"broadcaster"})
        ):
            yield InProcess("memory", "a PubSubEndpoint without a broadcaster", place), False


def _layers(path: Path, root: Path) -> Iterator[InProcess]:
    """Yield the channel layers of one process that a file names, or makes."""
    packages = reached.packages(path)
    for node in ast.walk(sources.tree(path)):
        is_named = isinstance(node, ast.Constant) and node.value == _IN_MEMORY_LAYER
        is_made = isinstance(node, ast.Call) and sources.called(node) == "InMemoryChannelLayer"
        if isinstance(node, ast.expr) and (is_named or (is_made and "channels" in packages)):
            yield InProcess("memory", "an InMemoryChannelLayer", _place(path, node, root))


def _frameworks(path: Path, root: Path) -> Iterator[InProcess]:
    """Yield the frameworks that a file imports whose pages live in one process."""
    for node in ast.walk(sources.tree(path)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules = [node.module]
        else:
            continue
        for module in modules:
            name = _FRAMEWORKS.get(module.partition(".")[0])
            if name is not None:
                place = f"{path.relative_to(root).as_posix()}:{node.lineno}"
                yield InProcess("memory", f"{name}, whose sessions live in one process", place)


def _socket_io(
    call: ast.Call, path: Path, root: Path, place: str, packages: set[str]
) -> InProcess | None:
    if "socketio" not in packages and "engineio" in packages:
        return InProcess("socketio", "Engine.IO, whose clients one process alone reaches", place)
    for keyword in call.keywords:
        if keyword.arg is None:
            return None  # **options: who knows
        if keyword.arg in _CONNECTS:
            value, _ = sources.resolve(keyword.value, path, root)
            is_none = isinstance(value, ast.Constant) and value.value is None
            if not is_none and sources.called(value) not in _OWN_MANAGERS:
                return None
    argument = "message_queue" if sources.called(call) == "SocketIO" else "client_manager"
    return InProcess("socketio", f"Socket.IO without a {argument}", place)


def _polls(call: ast.Call) -> bool:
    """Whether clients of an Engine.IO server may poll: not where it says transports otherwise."""
    for keyword in call.keywords:
        if keyword.arg == "transports":
            return any(
                isinstance(node, ast.Constant) and node.value == "polling"
                for node in ast.walk(keyword.value)
            )
    return True


def _is_memory_url(call: ast.Call, path: Path, root: Path) -> bool:
    values = [*call.args[:1], *(word.value for word in call.keywords if word.arg == "url")]
    for value in values:
        url, _ = sources.resolve(value, path, root)
        if isinstance(url, ast.Constant) and isinstance(url.value, str):
            return url.value.startswith("memory:")
    return False


def _has(call: ast.Call, names: set[str]) -> bool:
    return any(keyword.arg is None or keyword.arg in names for keyword in call.keywords)


def _event_stream(paths: list[Path], root: Path) -> list[InProcess]:
    """Find django-eventstream with nothing that connects its processes."""
    named = None
    for path in paths:
        for name, value in sources.assignments(sources.tree(path)):
            if name in ("EVENTSTREAM_REDIS", "GRIP_URL", "GRIP_PROXIES"):
                return []
            if name == "INSTALLED_APPS" and named is None:
                named = next(
                    (
                        _place(path, node, root)
                        for node in ast.walk(value)
                        if isinstance(node, ast.Constant) and node.value == "django_eventstream"
                    ),
                    None,
                )
    if named is None:
        return []
    return [InProcess("memory", "django_eventstream without EVENTSTREAM_REDIS", named)]


def _place(path: Path, node: ast.expr, root: Path) -> str:
    return f"{path.relative_to(root).as_posix()}:{node.lineno}"
