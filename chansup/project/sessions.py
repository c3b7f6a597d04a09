"""Which packages of a project give its WebSockets a session of their own."""

import ast
from collections.abc import Iterator
from pathlib import Path

from chansup.config import session_packages
from chansup.config.session_packages import Package
from chansup.project import sources


def packages(root: Path) -> list[Package]:
    """Return the packages that the files below `root` import, or name in INSTALLED_APPS."""
    modules: set[str] = set()
    texts = []
    for path in sources.python_files(root):
        texts.append(sources.text(path))
        modules.update(_named(sources.tree(path)))
    own = {path.name for path in root.iterdir()} if root.is_dir() else set()
    return [
        package
        for package in session_packages.imported(modules)
        if any(package.word in text for text in texts)
        and not {package.module, f"{package.module}.py"} & own
    ]


def _named(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from _with_parents(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
    for name, value in sources.assignments(module):
        if name == "INSTALLED_APPS" and isinstance(value, ast.List | ast.Tuple):
            for item in value.elts:
                if isinstance(item, ast.Constant) and isinstance(item.value, str):
                    yield from _with_parents(item.value)


def _with_parents(name: str) -> Iterator[str]:
    """Yield "a", "a.b" and "a.b.c" of "a.b.c"."""
    parts = name.split(".")
    yield from (".".join(parts[:length]) for length in range(1, len(parts) + 1))
