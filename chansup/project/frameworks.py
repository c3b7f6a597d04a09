"""Apps of other frameworks than Django."""

import ast
from pathlib import Path
from typing import NamedTuple

from chansup.project import sources

_ASGI = (
    "FastAPI",
    "Starlette",
    "Quart",
    "Litestar",
    "BlackSheep",
    "Sanic",
    "ASGIApp",  # Socket.IO, Engine.IO
    "ProtocolTypeRouter",
    "get_asgi_application",
)
_WSGI = ("Flask", "Bottle", "get_wsgi_application")
_USUAL_FILES = ("main.py", "app.py", "asgi.py", "application.py", "server.py", "api.py", "wsgi.py")
_USUAL_NAMES = ("app", "application", "asgi_app", "api")


class Found(NamedTuple):
    """An app: the directory to import from ("src" in a project of that layout, else ".")."""

    root: str
    kind: str  # "asgi" | "wsgi"
    application: str  # "module:attribute"


def find(directory: Path) -> list[Found]:
    """Return the apps of a directory, the likeliest one to be served first.

    An app that its own module uses, mounts in another one for instance, comes only if it is first.
    """
    candidates = []
    for path in sources.python_files(directory):
        for kind, name in _apps(path):
            rank = (
                kind == "wsgi",
                not _is_around(name, path),
                _place(name, _USUAL_NAMES),
                _place(path.name, _USUAL_FILES),
                len(path.parts),
                path,
            )
            candidates.append((rank, kind, name, path))
    found: list[Found] = []
    for _, kind, name, path in sorted(candidates):
        root = _root(path, directory)
        module = sources.module_name(path, root)
        if module and not (found and _is_used(name, path)):
            found.append(Found(root.relative_to(directory).as_posix(), kind, f"{module}:{name}"))
    return found


def _is_around(name: str, path: Path) -> bool:
    """Whether an app of Socket.IO has another app in it: ASGIApp(sio, app)."""
    for assigned, value in sources.assignments(sources.tree(path)):
        if assigned == name and sources.called(value) == "ASGIApp" and isinstance(value, ast.Call):
            names = {keyword.arg for keyword in value.keywords}
            return len(value.args) > 1 or "other_asgi_app" in names
    return False


def _is_used(name: str, path: Path) -> bool:
    """Whether the module hands the app on, as in mount("/api", api)."""
    handed_on = (
        argument
        for node in ast.walk(sources.tree(path))
        if isinstance(node, ast.Call)
        for argument in (*node.args, *(keyword.value for keyword in node.keywords))
    )
    values = (value for node in handed_on for value in ast.walk(node))
    return any(isinstance(value, ast.Name) and value.id == name for value in values)


def _apps(path: Path) -> list[tuple[str, str]]:
    """Return the apps that a module holds: kind and name."""
    text = sources.text(path)
    if not any(word in text for word in (*_ASGI, *_WSGI, "scope")):
        return []
    module = sources.tree(path)
    found = []
    for name, value in sources.assignments(module):
        function = sources.called(value)
        if function in _ASGI:
            found.append(("asgi", name))
        elif function in _WSGI:
            found.append(("wsgi", name))
    for statement in module.body:
        if isinstance(statement, ast.AsyncFunctionDef):
            names = [argument.arg for argument in statement.args.args]
            if names == ["scope", "receive", "send"]:
                found.append(("asgi", statement.name))
    return found


def _place(name: str, usual: tuple[str, ...]) -> int:
    return usual.index(name) if name in usual else len(usual)


def _root(path: Path, directory: Path) -> Path:
    """Return where the module is imported from."""
    source = directory / "src"
    is_layout = source in path.parents and not (source / "__init__.py").exists()
    return source if is_layout else directory
