"""Reads a project's Python files without running them."""

import ast
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_SKIPPED = {"node_modules", "site-packages", "venv", "env", "build", "dist", "static", "media"}
_MAX_DEPTH = 4
_MAX_FILES = 5000
_MAX_BYTES = 1024 * 1024


def python_files(directory: Path) -> list[Path]:
    """Return the project's own Python files, those near the top first; tests are left out."""
    found: list[Path] = []
    for parent, directories, files in os.walk(directory):
        depth = len(Path(parent).relative_to(directory).parts)
        directories[:] = sorted(
            name
            for name in directories
            if depth < _MAX_DEPTH and not name.startswith(".") and _is_own(Path(parent) / name)
        )
        found.extend(
            Path(parent) / name for name in files if name.endswith(".py") and not _is_test(name)
        )
        if len(found) > _MAX_FILES:
            break
    return sorted(found, key=lambda path: (len(path.parts), path))


def _is_own(directory: Path) -> bool:
    return (
        directory.name not in _SKIPPED
        and directory.name not in ("tests", "test", "migrations")
        and not (directory / "pyvenv.cfg").exists()
    )


def _is_test(name: str) -> bool:
    return name.startswith(("test_", "conftest")) or name.endswith("_test.py")


@cache
def text(path: Path) -> str:
    """Return the text of a file; nothing where it cannot be read."""
    try:
        if not path.is_file() or path.stat().st_size > _MAX_BYTES:
            return ""  # a pipe could make us wait for ever
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return ""


@cache
def tree(path: Path) -> ast.Module:
    """Return the syntax tree of a file; an empty one where it has none."""
    try:
        return ast.parse(text(path))
    except (SyntaxError, ValueError, RecursionError):
        return ast.Module(body=[], type_ignores=[])


def assignments(module: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names that a module assigns at its top level, with what it assigns."""
    for statement in module.body:
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Name) and statement.value is not None:
                yield target.id, statement.value


def resolve(node: ast.expr, path: Path, root: Path, hops: int = 4) -> tuple[ast.expr, Path]:
    """Return what a name in the module `path` stands for, and the module that says so.

    Imports are followed below `root`. A value that is not a name, or leads nowhere, is
    returned as it is.
    """
    if not isinstance(node, ast.Name) or hops == 0:
        return node, path
    for name, value in assignments(tree(path)):
        if name == node.id:
            return resolve(value, path, root, hops - 1)
    for statement in ast.walk(tree(path)):
        if not isinstance(statement, ast.ImportFrom):
            continue
        for alias in statement.names:
            source = _imported(statement, path, root)
            if (alias.asname or alias.name) == node.id and source is not None:
                return resolve(ast.Name(alias.name), source, root, hops - 1)
    return node, path


def _imported(statement: ast.ImportFrom, path: Path, root: Path) -> Path | None:
    """Return the file that a ``from … import`` in `path` reads, if it is the project's own."""
    if not statement.level:
        return module_path(statement.module or "", root)
    package = path.parents[statement.level - 1]
    return module_path(statement.module, package) if statement.module else package / "__init__.py"


def string(module: ast.Module, name: str) -> str | None:
    """Return the string that a module assigns to a name, if it does."""
    for assigned, value in assignments(module):
        if assigned == name and isinstance(value, ast.Constant) and isinstance(value.value, str):
            return value.value
    return None


def called(call: ast.expr) -> str | None:
    """Return the last name of a callee: ``FastAPI`` for ``fastapi.FastAPI(…)``."""
    if not isinstance(call, ast.Call):
        return None
    if isinstance(call.func, ast.Name):
        return call.func.id
    return call.func.attr if isinstance(call.func, ast.Attribute) else None


def module_name(path: Path, root: Path) -> str | None:
    """Return the name that `path` is imported by from `root`; None where it has none."""
    parts = list(path.relative_to(root).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts) if parts and all(part.isidentifier() for part in parts) else None


def module_path(name: str, root: Path) -> Path | None:
    """Return the file of a module, or None."""
    place = root.joinpath(*name.split("."))
    if place == root:
        return None
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            return path
    return None
