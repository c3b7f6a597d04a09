"""Which of a project's files an app imports."""

import ast
from pathlib import Path

from chansup.project import sources

_BY_NAME = ("import_module", "find_modules", "autodiscover", "pkgutil", "DJANGO_SETTINGS_MODULE")


def files(root: Path, application: str | None) -> list[Path]:
    """Return the files below `root` that the module of an application imports, in any depth.

    All of them where modules are imported by their names, as Django does, or where there is no
    such module.
    """
    everything = sources.python_files(root)
    module = (application or "").partition(":")[0]
    first = sources.module_path(module, root) if module else None
    if first is None or (root / "manage.py").exists():
        return everything
    found: dict[Path, None] = {}
    waiting = [*_parents(module, root), first]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found[path] = None
        if any(word in sources.text(path) for word in _BY_NAME):
            return everything
        waiting += _imported(path, root)
    return [path for path in found if sources.text(path)]


def packages(path: Path) -> set[str]:
    """Return the first names of what a file imports from elsewhere: "socketio"."""
    found: set[str] = set()
    for node in ast.walk(sources.tree(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def _imported(path: Path, root: Path) -> list[Path]:
    found: list[Path] = []
    for node in ast.walk(sources.tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found += _with_parents(alias.name, root)
        elif isinstance(node, ast.ImportFrom):
            base, start = node.module or "", root
            if node.level:
                start = path.parents[node.level - 1]
                found += _existing(start / "__init__.py")
            found += _with_parents(base, start)
            for alias in node.names:
                name = f"{base}.{alias.name}" if base else alias.name
                found += _existing(sources.module_path(name, start))
    return found


def _existing(path: Path | None) -> list[Path]:
    return [path] if path is not None and path.is_file() else []


def _with_parents(module: str, root: Path) -> list[Path]:
    path = sources.module_path(module, root) if module else None
    return [*_parents(module, root), path] if path is not None else []


def _parents(module: str, root: Path) -> list[Path]:
    parts = module.split(".")[:-1]
    paths = (root.joinpath(*parts[:length], "__init__.py") for length in range(1, len(parts) + 1))
    return [path for path in paths if path.is_file()]
