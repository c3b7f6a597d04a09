"""Whether a project has WebSockets, whatever its framework."""

import ast
from pathlib import Path

from chansup.project import sources

_WORDS = ("websocket", "WebSocket", "Websocket")  # one of them is in every file that has any
_BASES = (
    "WebsocketConsumer",  # Channels
    "AsyncWebsocketConsumer",
    "JsonWebsocketConsumer",
    "AsyncJsonWebsocketConsumer",
    "WebSocketEndpoint",  # Starlette
    "WebsocketListener",  # Litestar
)
_CALLS = (
    "WebSocketRoute",  # Starlette
    "add_websocket_route",
    "add_api_websocket_route",  # FastAPI
    "add_websocket",  # Quart
)
_DECORATORS = (
    "websocket",  # FastAPI, Quart, Litestar, Sanic
    "websocket_route",
    "websocket_listener",
    "websocket_stream",
)
_ACCEPT = "websocket.accept"  # what a plain ASGI app sends


def used(root: Path) -> bool:
    """Say whether a file of the project below `root` handles WebSockets."""
    return any(
        _in(sources.tree(path), path, root)
        for path in sources.python_files(root)
        if any(word in sources.text(path) for word in _WORDS)
    )


def _in(module: ast.Module, path: Path, root: Path) -> bool:
    for node in ast.walk(module):
        match node:
            case ast.ClassDef():
                found = any(_last(base) in _BASES for base in node.bases)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                found = any(
                    isinstance(decorator, ast.Call) and sources.called(decorator) in _DECORATORS
                    for decorator in node.decorator_list
                )
            case ast.Call():
                found = sources.called(node) in _CALLS or _routes_websockets(node, path, root)
            case ast.Constant():
                found = node.value == _ACCEPT
            case _:
                continue
        if found:
            return True
    return False


def _last(name: ast.expr) -> str | None:
    if isinstance(name, ast.Name):
        return name.id
    return name.attr if isinstance(name, ast.Attribute) else None


def _routes_websockets(call: ast.Call, path: Path, root: Path) -> bool:
    """Say whether a call is Channels' ``ProtocolTypeRouter`` with a route for WebSockets."""
    if sources.called(call) != "ProtocolTypeRouter":
        return False
    for argument in [*call.args, *(keyword.value for keyword in call.keywords)]:
        routes, _ = sources.resolve(argument, path, root)
        if isinstance(routes, ast.Dict):
            keys = [key.value for key in routes.keys if isinstance(key, ast.Constant)]
            return "websocket" in keys
    return False
